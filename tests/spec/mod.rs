//! Specs that are right.

mod convert;
mod meaning;
mod schema;
mod twins;
