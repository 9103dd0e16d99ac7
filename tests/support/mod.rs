//! What several tests need: the real daemon where there is one, faults, the program, and texts in files.

pub(crate) mod blessed;
pub(crate) mod daemon;
pub(crate) mod fault;
pub(crate) mod namespaces;
pub(crate) mod place;
pub(crate) mod program;
pub(crate) mod proxy;
pub(crate) mod pty;
