//! What several tests need: the real daemon; if there is one.

pub(crate) mod daemon;
