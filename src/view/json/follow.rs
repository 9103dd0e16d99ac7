//! The view for programs.

use std::time::Duration;

use super::super::{Outcome, Output, Verdict, View};
use super::event::{Event, Steps};
use super::plan::{PlanDocument, Probe};
use crate::plan::Plan;
use crate::{apply, probe};

/// Follows an apply for programs: one event on each line.
#[derive(Debug)]
pub struct Follow {
    output: Output,
    ended: Steps,
    is_over: bool,
}

impl Follow {
    /// Nothing shown so far.
    #[must_use]
    pub fn new(output: Output) -> Self {
        Self {
            output,
            ended: Steps::default(),
            is_over: false,
        }
    }
}

impl View for Follow {
    fn plan(&mut self, plan: &Plan) {
        let plan = Box::new(PlanDocument::of(plan));
        self.output.result(&Event::Plan { plan }.line());
    }

    fn event(&mut self, _: &Plan, event: &apply::Event<'_>) {
        match event {
            apply::Event::Finished { .. } => self.ended.done += 1,
            apply::Event::Failed { .. } => self.ended.failed += 1,
            apply::Event::Skipped { .. } => self.ended.skipped += 1,
            _ => {}
        }
        self.output.result(&Event::of(event).line());
    }

    fn probes(&mut self, probes: &[probe::Probe]) {
        for probe in probes {
            let probe = Probe::of(probe);
            self.output.result(&Event::Probe { probe }.line());
        }
    }

    fn broken_off(&mut self, verdict: Verdict, elapsed: Duration) {
        // Whoever reads events finds a last one, whatever happened.
        if !self.is_over {
            self.is_over = true;
            self.output
                .result(&Event::broken_off(verdict, self.ended, elapsed).line());
        }
    }

    fn outcome(&mut self, outcome: &Outcome<'_>) {
        self.is_over = true;
        self.output.result(&Event::summary(outcome).line());
    }
}
