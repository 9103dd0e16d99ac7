//! The project's own documents, as pages of its API documentation.

#[doc = include_str!("architecture.md")]
pub mod architecture {}

#[doc = include_str!("glossary.md")]
pub mod glossary {}

#[doc = include_str!("language.md")]
pub mod language {}

#[doc = include_str!("planning.md")]
pub mod planning {}

#[doc = include_str!("applying.md")]
pub mod applying {}

#[doc = include_str!("egress.md")]
pub mod egress {}

#[doc = include_str!("workspace.md")]
pub mod workspace {}

#[doc = include_str!("local.md")]
pub mod local {}

#[doc = include_str!("conformance.md")]
pub mod conformance {}

#[doc = include_str!("truenas.md")]
pub mod truenas {}

#[doc = include_str!("stale.md")]
pub mod stale {}

#[doc = include_str!("exit-codes.md")]
pub mod exit_codes {}

#[doc = include_str!("decisions.md")]
pub mod decisions {}
