//! From decoded files to [`crate::model::Desired`]: what is included, expanded, layered, read and counted.

mod build;
mod desired;
mod files;
mod include;
mod layers;
mod trees;
mod variables;
mod workspace;

pub(super) use desired::{Declared, desired};
pub use files::read_again;
