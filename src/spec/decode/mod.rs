//! The tree held against the language: blocks out, every departure reported.
//!
//! Names, kinds of values, arity and repetition are settled here. What a value *says* is looked at once
//! variables are expanded, in [`super::validate`].

mod block;
mod decoder;
mod settle;

pub(super) use block::{Block, Content, Entry};
pub(super) use decoder::document;
