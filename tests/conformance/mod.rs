//! What every backend promises, as one suite of small checks: each is run against the simulated backend, and
//! against a real Incus daemon where the tests may use one; with its containers also against simulated TrueNAS systems.
//!
//! A check is an async function of a [`fixture::Fixture`] in one of the rooms below, listed in `suite`; a
//! forgotten one is a warning about dead code.

mod attaching;
mod clones;
mod console;
mod exec;
mod files;
pub(crate) mod fixture;
mod folders;
mod lifecycle;
mod looking;
mod notes;
mod observing;
mod reading;
mod settings;
mod snapshots;
mod suite;
mod table;
mod writing;
