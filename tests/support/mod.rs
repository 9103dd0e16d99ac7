//! What several tests need: the real daemon, if there is one, and faults on request.

pub(crate) mod daemon;
pub(crate) mod fault;
