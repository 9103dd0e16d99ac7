//! How an apply went.

use super::StepError;
use crate::model::{Desired, Mark};
use crate::plan::{Step, StepId};

/// A step that failed.
#[derive(Debug)]
pub struct Failure {
    /// Which.
    pub step: StepId,
    /// Why.
    pub error: StepError,
    /// What of the spec the backend does not take, and where it says so.
    pub marks: Vec<Mark>,
}

impl Failure {
    /// The failure of a step of a plan that was made for this.
    pub(super) fn of(step: &Step, desired: Option<&Desired>, error: StepError) -> Self {
        let sandbox = desired.and_then(|desired| desired.sandboxes.get(&step.sandbox));
        let objections = match &error {
            StepError::Backend(error) => error.objections(),
            _ => &[],
        };
        let marks = sandbox.into_iter().flat_map(|sandbox| {
            objections.iter().map(|objection| Mark {
                place: objection
                    .field
                    .as_ref()
                    .map_or(&sandbox.at, |field| sandbox.place_of(field))
                    .clone(),
                text: objection.words.clone(),
            })
        });
        Self {
            step: step.id.clone(),
            marks: marks.collect(),
            error,
        }
    }
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
    /// Whether steps were left while they ran.
    pub left_running: bool,
}

impl Report {
    /// Whether nothing that was begun can still be under way on the backend. A step whose answer was not heard may be.
    #[must_use]
    pub fn all_has_ended(&self) -> bool {
        let unheard = |failure: &Failure| match &failure.error {
            StepError::Backend(error) => error.may_go_on(),
            _ => false,
        };
        !self.left_running && !self.failed.iter().any(unheard)
    }

    /// Whether every step is done.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.failed.is_empty() && self.skipped.is_empty() && self.not_started.is_empty()
    }
}
