//! What is going on: live lines on a terminal, plain lines elsewhere.

mod live;
mod plain;

use super::Output;
use crate::apply::Event;
use crate::plan::Plan;

use live::Live;
use plain::Plain;

/// Shows events as they come. Nothing when the output is quiet.
#[derive(Debug)]
pub struct Progress(Kind);

#[derive(Debug)]
enum Kind {
    Live(Live),
    Plain(Plain),
    Quiet,
}

impl Progress {
    /// Progress of a plan's steps.
    #[must_use]
    pub fn new(output: Output, plan: &Plan) -> Self {
        Self(if output.quiet() {
            Kind::Quiet
        } else if output.live() {
            Kind::Live(Live::new(output, plan))
        } else {
            Kind::Plain(Plain::new(output))
        })
    }

    /// Something happened.
    pub fn event(&mut self, event: &Event<'_>) {
        match &mut self.0 {
            Kind::Live(live) => live.event(event),
            Kind::Plain(plain) => plain.event(event),
            Kind::Quiet => {}
        }
    }

    /// Takes live lines away.
    pub fn close(self) {
        if let Kind::Live(live) = self.0 {
            live.close();
        }
    }
}
