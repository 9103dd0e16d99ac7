//! Specs and live systems that mean harm.

mod live;
mod sources;
