//! The integration tests, one binary: what the library does against the simulated backend and, where one is
//! offered, a real daemon.

mod cli;
mod conformance;
mod convergence;
mod crash;
mod documents;
mod egress;
mod errors;
mod floors;
mod hostile;
mod incus;
mod local;
mod locking;
mod planning;
mod quickstart;
mod scenarios;
mod schemas;
mod spec;
mod support;
mod truenas;
mod trust;
mod workspace;
