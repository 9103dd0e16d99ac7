//! One line for each thing that ends, for logs.

use super::super::palette::{Tone, paint};
use super::super::{Output, clean};
use crate::apply::Event;
use crate::plan::{Op, Step};
use crate::view::human::{is_shown, took};

#[derive(Debug)]
pub(super) struct Plain {
    output: Output,
}

impl Plain {
    pub(super) fn new(output: Output) -> Self {
        Self { output }
    }

    pub(super) fn event(&self, event: &Event<'_>) {
        match event {
            // What may take long, or write something, is announced.
            Event::Started(step) if matches!(step.op, Op::Run(_) | Op::Ready(_)) => {
                self.output.note(&format!("{} ...", title(step)));
            }
            Event::Started(_) => {}
            Event::Output { step, line, .. } => self.output.note(&output_line(step, line)),
            Event::Finished { step, elapsed } => {
                if is_shown(step) {
                    self.output
                        .note(&format!("{} ... done {}", title(step), took(*elapsed)));
                }
            }
            // Why is told at the end, with the other failures.
            Event::Failed { step, elapsed, .. } => {
                let failed = paint(Tone::Wrong, "failed");
                self.output
                    .note(&format!("{} ... {failed} {}", title(step), took(*elapsed)));
            }
            // Summed up at the end: they can be many.
            Event::Skipped { .. } => {}
            Event::Draining => self.output.note(DRAINING),
            Event::LockLost => self.output.note(LOCK_LOST),
        }
    }
}

/// Said when nothing new is started for want of the lock.
pub(super) const LOCK_LOST: &str = "The lock was lost: leaving at once, for somebody else may be at work.";
/// What the first interrupt is answered with.
pub(super) const DRAINING: &str = "Interrupted: finishing what runs. Once more to leave at once.";

fn title(step: &Step) -> String {
    format!("{}: {}", step.sandbox, clean(&step.title))
}

/// A line that a set-up step wrote, after the name of its sandbox.
pub(super) fn output_line(step: &Step, line: &str) -> String {
    // Progress bars of installers redraw their line; what was drawn last is what is left of it.
    let line = line.rsplit('\r').find(|part| !part.is_empty()).unwrap_or_default();
    let line = anstream::adapter::strip_str(line).to_string();
    let prefix = paint(Tone::Faint, format!("{} |", step.sandbox));
    format!("{prefix} {}", clean(&line))
}
