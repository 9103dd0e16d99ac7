//! Specs that are right.

mod twins;
