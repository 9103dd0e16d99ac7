//! The integration tests, one binary: what the library does against the simulated backend and, where one is
//! offered, a real daemon.

mod conformance;
mod convergence;
mod incus;
mod spec;
mod support;
