//! How it all ended.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

use super::diagnostics::Style;
use crate::apply::Report;
use crate::plan::Plan;
use crate::spec::Sources;

/// The end in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every step is done, and the result was seen to be in sync.
    Done,
    /// There was nothing to do.
    NothingToDo,
    /// Steps failed, or the result is not in sync.
    Failed,
    /// Nothing was done: consent is missing, or something must not be done.
    Refused,
    /// It was interrupted.
    Interrupted,
}

/// How it ended, and what is left.
#[derive(Debug)]
pub struct Outcome<'a> {
    /// The end in one word.
    pub verdict: Verdict,
    /// What was to be done.
    pub plan: &'a Plan,
    /// What was done; none when nothing was begun.
    pub report: Option<&'a Report>,
    /// What a fresh observation says that is left; none where there was none.
    pub remaining: Option<&'a Plan>,
    /// The texts of the spec, and how excerpts of them are drawn; none where it was made without a spec.
    pub spec: Option<(&'a Sources, Style)>,
    /// How long it took.
    pub elapsed: Duration,
}
