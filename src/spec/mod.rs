//! The language of specs: text in, [`crate::model::Desired`] out.
//!
//! A pipeline, one room per step: [`source`] holds texts and their places; [`kdl`] and [`yaml`] read them into
//! the tree of [`syntax`]; [`decode`] holds that against the [`language`]; [`resolve`] includes, expands,
//! layers and builds; [`validate`] finds what is well-formed and yet makes no sense. [`schema`] and [`convert`]
//! follow from the same description of the language.
//!
//! This floor may read files below the spec's root. It never reads the environment, never prints, never
//! runs anything and never reaches for the network. A spec is untrusted: sizes, depths and counts are bounded
//! everywhere, and every problem is reported, not the first alone.

mod convert;
mod decode;
mod inputs;
mod kdl;
mod language;
mod load;
mod problems;
mod resolve;
mod schema;
mod source;
mod suggest;
mod syntax;
mod validate;
mod write;
mod yaml;

pub use convert::convert;
pub use inputs::SourceDigest;
pub use load::{Input, Loaded, Rejected, Request, check_text, load};
pub use resolve::read_again;
pub use schema::schema;
pub use source::{FILE_LIMIT, Source, Sources};
pub use suggest::nearest;
pub use syntax::Format;
pub use write::{sayable, write};

/// Reads a destination of an egress policy: a host name, an address or a network.
///
/// # Errors
/// What is wrong with it, and what to do.
pub fn destination(text: &str) -> Result<crate::model::Destination, (String, String)> {
    language::destination(text).map_err(|complaint| (complaint.message, complaint.help))
}

/// Reads `443` or `8000-8100`.
#[must_use]
pub fn ports(text: &str) -> Option<crate::model::PortRange> {
    language::ports(text)
}
