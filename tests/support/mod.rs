//! What several tests need: the real daemon where there is one, and faults.

pub(crate) mod daemon;
pub(crate) mod fault;
