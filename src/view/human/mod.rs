//! For people: plain words, symbols and, where they are wanted, colours.

mod change;
mod check;
mod egress;
mod failure;
mod follow;
mod outcome;
mod plan;
mod probes;
mod stale;
mod text_diff;
mod tree;
mod wording;

pub use check::check;
pub(super) use check::differences;
pub use failure::{error, step_error};
pub use follow::Follow;
pub(super) use outcome::is_shown;
pub use outcome::outcome;
pub use plan::{losses, notices, plan};
pub(super) use probes::outcome as probe_outcome;
pub use probes::probes;
pub(super) use stale::{kept, stale};
pub(super) use text_diff::text_diff;
pub(super) use tree::difference;
pub use wording::{age, counted, summary};
pub(super) use wording::{took, value};
