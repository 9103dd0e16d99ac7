//! What happens while a plan is applied.

use std::time::Duration;

use crate::plan::{Step, StepId};

/// Which of a command's two output streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Something that happened.
#[derive(Debug)]
pub enum Event<'a> {
    /// A step is being carried out.
    Started(&'a Step),
    /// A set-up step wrote a line; bytes that are no UTF-8 are replaced.
    Output {
        /// The step.
        step: &'a Step,
        /// Where it wrote.
        stream: Stream,
        /// The line, without its end.
        line: String,
    },
    /// A step is done.
    Finished {
        /// The step.
        step: &'a Step,
        /// How long it took.
        elapsed: Duration,
    },
    /// A step failed.
    Failed {
        /// The step.
        step: &'a Step,
        /// How long it took.
        elapsed: Duration,
        /// Why, and where the spec says what is at fault.
        failure: &'a super::Failure,
    },
    /// A step is not carried out, because one before it was not.
    Skipped {
        /// The step.
        step: &'a Step,
        /// The one that failed.
        because: &'a StepId,
    },
    /// Somebody asked for an end: nothing new is started any more.
    Draining,
    /// The lock is somebody else's, or could not be renewed: nothing new is started any more.
    LockLost,
}
