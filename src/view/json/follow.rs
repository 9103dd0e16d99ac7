//! The view for programs.

use super::super::{Outcome, Output, View};
use super::event::Event;
use super::plan::{PlanDocument, Probe};
use crate::plan::Plan;
use crate::{apply, probe};

/// Follows an apply for programs: one event on each line.
#[derive(Debug)]
pub struct Follow {
    output: Output,
}

impl Follow {
    /// Nothing shown so far.
    #[must_use]
    pub fn new(output: Output) -> Self {
        Self { output }
    }
}

impl View for Follow {
    fn plan(&mut self, plan: &Plan) {
        let plan = Box::new(PlanDocument::of(plan));
        self.output.result(&Event::Plan { plan }.line());
    }

    fn event(&mut self, _: &Plan, event: &apply::Event<'_>) {
        self.output.result(&Event::of(event).line());
    }

    fn probes(&mut self, probes: &[probe::Probe]) {
        for probe in probes {
            let probe = Probe::of(probe);
            self.output.result(&Event::Probe { probe }.line());
        }
    }

    fn outcome(&mut self, outcome: &Outcome<'_>) {
        self.output.result(&Event::summary(outcome).line());
    }
}
