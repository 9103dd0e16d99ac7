//! The view for people: the plan, live progress, the end.

use std::time::Duration;

use super::super::progress::Progress;
use super::super::{Outcome, Output, Verdict, View};
use super::{outcome, plan, probes};
use crate::apply::Event;
use crate::plan::Plan;
use crate::probe::Probe;

/// Follows an apply for people: results on one stream, progress and what went wrong on the other.
#[derive(Debug)]
pub struct Follow {
    output: Output,
    progress: Option<Progress>,
}

impl Follow {
    /// Nothing shown so far.
    #[must_use]
    pub fn new(output: Output) -> Self {
        Self { output, progress: None }
    }
}

impl View for Follow {
    fn plan(&mut self, shown: &Plan) {
        if !self.output.quiet() || !shown.refusals.is_empty() {
            self.output.result(&plan(shown));
        }
    }

    fn event(&mut self, plan: &Plan, event: &Event<'_>) {
        let output = &self.output;
        self.progress
            .get_or_insert_with(|| Progress::new(output.clone(), plan))
            .event(event);
    }

    fn probes(&mut self, seen: &[Probe]) {
        self.output.result(&probes(seen));
    }

    fn broken_off(&mut self, _: Verdict, _: Duration) {
        if let Some(progress) = self.progress.take() {
            progress.close();
        }
    }

    fn outcome(&mut self, ended: &Outcome<'_>) {
        if let Some(progress) = self.progress.take() {
            progress.close();
        }
        let (result, trouble) = outcome(ended);
        if let Some(text) = trouble {
            self.output.message(&text);
        }
        if let Some(text) = result.filter(|_| !self.output.quiet()) {
            self.output.result(&text);
        }
    }
}
