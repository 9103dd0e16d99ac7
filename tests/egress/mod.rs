//! Outbound network policy, with an internet of the tests' own.

mod incus;
mod internet;
