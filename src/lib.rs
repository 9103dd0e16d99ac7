//! A declarative, one-shot reconciler for sandboxes: a spec is read, the live state of a backend is observed,
//! a plan is computed and applied. No daemon of its own, no state file.
//!
//! The floors, each importing only from those below it: `cli`, `view`, `apply` and `probe`, `backend`, then `spec` and
//! `plan` (which do not see each other), then [`model`].

pub mod apply;
pub mod backend;
pub mod cli;
pub mod docs;
pub mod model;
pub mod plan;
pub mod probe;
pub mod spec;
pub mod view;
