//! How an apply went.

use super::StepError;
use crate::plan::StepId;

/// A step that failed.
#[derive(Debug)]
pub struct Failure {
    /// Which.
    pub step: StepId,
    /// Why.
    pub error: StepError,
}

/// How an apply went, step by step.
#[derive(Debug, Default)]
pub struct Report {
    /// Steps that are done, in the order in which they ended.
    pub done: Vec<StepId>,
    /// Steps that failed.
    pub failed: Vec<Failure>,
    /// Steps that were not carried out, each with the failed one that it needed.
    pub skipped: Vec<(StepId, StepId)>,
    /// Steps that were not started because of an interrupt.
    pub not_started: Vec<StepId>,
    /// Whether it was interrupted.
    pub interrupted: bool,
}

impl Report {
    /// Whether every step is done.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.failed.is_empty() && self.skipped.is_empty() && self.not_started.is_empty()
    }
}
