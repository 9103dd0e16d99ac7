//! The language itself, as data: every node and key, what it may hold, and what it means.
//!
//! The decoder, the YAML reader, the JSON Schema and `convert` all follow this one description, so that they
//! cannot disagree.

mod check;
mod form;
mod kind;
mod table;

pub(crate) use check::{destination, ports};
pub(super) use form::{Body, Form, Label, Shape, Written};
pub(super) use kind::Type;
pub(super) use table::{BACKENDS, DOCUMENT, backend};
