//! The vocabulary of events.

use std::error::Error;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

use super::super::{Outcome, Verdict, clean};
use super::plan::{FORMAT_VERSION, PlanDocument, Probe};
use crate::apply::{self, StepError, Stream};
use crate::model::Mark;
use crate::plan::Summary;

/// One line: an event of an apply or a destroy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(title = "sbx-apply event")]
pub struct Line<'a> {
    /// The version of this form: `1`.
    pub format_version: &'static str,
    /// What happened.
    #[serde(flatten)]
    pub event: Event<'a>,
}

/// What happened. The first event is the plan, the last one the summary, but for probes. Where there came no plan, as when
/// somebody else holds the lock, the summary is all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event<'a> {
    /// The plan was made.
    Plan {
        /// It.
        plan: Box<PlanDocument<'a>>,
    },
    /// A step is being carried out.
    StepStarted {
        /// The step.
        step: &'a str,
        /// Its sandbox.
        sandbox: &'a str,
        /// What it does, in a word.
        op: &'static str,
        /// What it does, for people.
        title: &'a str,
    },
    /// A set-up step wrote a line.
    Output {
        /// The step.
        step: &'a str,
        /// Its sandbox.
        sandbox: &'a str,
        /// `stdout` or `stderr`.
        stream: &'static str,
        /// The line without its end; bytes that are no UTF-8 are replaced.
        line: &'a str,
    },
    /// A step is done.
    StepFinished {
        /// The step.
        step: &'a str,
        /// Its sandbox.
        sandbox: &'a str,
        /// How long it took, in milliseconds.
        elapsed_ms: u64,
    },
    /// A step failed.
    StepFailed {
        /// The step.
        step: &'a str,
        /// Its sandbox.
        sandbox: &'a str,
        /// How long it took, in milliseconds.
        elapsed_ms: u64,
        /// What was tried.
        error: String,
        /// The chain of causes, outermost first.
        causes: Vec<String>,
        /// What to do about it.
        hint: Option<String>,
        /// The end of what a command wrote.
        output: Option<String>,
        /// Where the spec says what the backend does not take.
        places: Vec<At<'a>>,
    },
    /// A step is not carried out, because one that it needs failed.
    StepSkipped {
        /// The step.
        step: &'a str,
        /// Its sandbox.
        sandbox: &'a str,
        /// The one that failed.
        because: &'a str,
    },
    /// A sandbox was looked out of (`apply --probe`). These come after the summary.
    Probe {
        /// One check of it.
        #[serde(flatten)]
        probe: Probe<'a>,
    },
    /// Somebody asked for an end: nothing new is started any more.
    Interrupted,
    /// The lock was lost: nothing new is started any more.
    LockLost,
    /// It is over.
    Summary {
        /// How it ended.
        outcome: Verdict,
        /// How many steps are done.
        done: usize,
        /// How many failed.
        failed: usize,
        /// How many were skipped.
        skipped: usize,
        /// How many an interrupt left undone.
        not_finished: usize,
        /// How long it took, in milliseconds.
        elapsed_ms: u64,
        /// What a fresh observation says that is left; null where there was none.
        remaining: Option<Summary>,
    },
}

/// How many steps ended in which way.
#[derive(Debug, Clone, Copy, Default)]
pub struct Steps {
    /// They are done.
    pub done: usize,
    /// They failed.
    pub failed: usize,
    /// They were skipped.
    pub skipped: usize,
}

/// A place in the spec.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct At<'a> {
    /// The file.
    pub file: &'a str,
    /// Its line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// What is said of it.
    pub text: &'a str,
}

impl<'a> At<'a> {
    fn of(mark: &'a Mark) -> Self {
        Self {
            file: &mark.place.file,
            line: mark.place.line,
            column: mark.place.column,
            text: &mark.text,
        }
    }
}

fn milliseconds(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

fn causes(error: &StepError) -> Vec<String> {
    let mut causes = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        causes.push(cause.to_string());
        next = cause.source();
    }
    causes
}

impl<'a> Event<'a> {
    /// The event of something that happened.
    #[must_use]
    pub fn of(event: &'a apply::Event<'a>) -> Self {
        match event {
            apply::Event::Started(step) => Self::StepStarted {
                step: step.id.as_str(),
                sandbox: step.sandbox.as_str(),
                op: step.op.as_str(),
                title: &step.title,
            },
            apply::Event::Output { step, stream, line } => Self::Output {
                step: step.id.as_str(),
                sandbox: step.sandbox.as_str(),
                stream: match stream {
                    Stream::Stdout => "stdout",
                    Stream::Stderr => "stderr",
                },
                line,
            },
            apply::Event::Finished { step, elapsed } => Self::StepFinished {
                step: step.id.as_str(),
                sandbox: step.sandbox.as_str(),
                elapsed_ms: milliseconds(*elapsed),
            },
            apply::Event::Failed { step, elapsed, failure } => Self::StepFailed {
                step: step.id.as_str(),
                sandbox: step.sandbox.as_str(),
                elapsed_ms: milliseconds(*elapsed),
                error: failure.error.to_string(),
                causes: causes(&failure.error),
                hint: failure.error.hint(),
                output: failure.error.tail().map(str::to_owned),
                places: failure.marks.iter().map(At::of).collect(),
            },
            apply::Event::Skipped { step, because } => Self::StepSkipped {
                step: step.id.as_str(),
                sandbox: step.sandbox.as_str(),
                because: because.as_str(),
            },
            apply::Event::Draining => Self::Interrupted,
            apply::Event::LockLost => Self::LockLost,
        }
    }

    /// The last event.
    #[must_use]
    pub fn summary(outcome: &Outcome<'_>) -> Self {
        let count = |of: fn(&apply::Report) -> usize| outcome.report.map_or(0, of);
        Self::Summary {
            outcome: outcome.verdict,
            done: count(|report| report.done.len()),
            failed: count(|report| report.failed.len()),
            skipped: count(|report| report.skipped.len()),
            not_finished: count(|report| report.not_started.len()),
            elapsed_ms: milliseconds(outcome.elapsed),
            remaining: outcome.remaining.map(crate::plan::Plan::summary),
        }
    }

    /// The last event, where there was no report.
    #[must_use]
    pub fn broken_off(outcome: Verdict, steps: Steps, elapsed: Duration) -> Self {
        Self::Summary {
            outcome,
            done: steps.done,
            failed: steps.failed,
            skipped: steps.skipped,
            not_finished: 0,
            elapsed_ms: milliseconds(elapsed),
            remaining: None,
        }
    }

    /// The event as a line of its stream.
    #[must_use]
    pub fn line(self) -> String {
        let line = Line {
            format_version: FORMAT_VERSION,
            event: self,
        };
        // Strings, numbers and lists of them always serialize.
        clean::json(serde_json::to_string(&line).unwrap_or_default())
    }
}
