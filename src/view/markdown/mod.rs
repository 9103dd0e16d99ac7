//! For a comment on a pull request: GitHub's Markdown, which the other forges understand as well.
//!
//! Every value of a spec or of a live system stands in code, and cannot leave it: no markup, no link, no
//! mention of somebody comes from there.

mod neutral;
mod plan;
mod row;

pub use plan::{check, plan};
