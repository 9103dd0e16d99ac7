//! What is well-formed and yet makes no sense: values, conflicting keys, references, cycles, paths.

mod config;
mod cycles;
mod paths;
mod peers;
mod references;
mod rules;
mod values;

pub(super) use config::{config, is_allowed};
pub(super) use cycles::cycles;
pub(super) use paths::paths;
pub(super) use peers::peers;
pub(super) use references::{references, undeclared};
pub(super) use rules::{layered, rules};
pub(super) use values::values;
