//! The TrueNAS backend.

mod auth;
mod client;
