//! Set-up steps and readiness.

use super::{Content, GuestPath, Place, Seconds, StepName};

/// What a step runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Script {
    /// A text for `/bin/sh -ec`.
    Command(String),
    /// A file of the spec's folder, run by its own `#!` line.
    File {
        /// As the spec names it.
        name: String,
        /// Its bytes.
        content: Content,
    },
}

/// A set-up step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Its name, unique in the sandbox.
    pub name: StepName,
    /// What it runs.
    pub script: Script,
    /// As whom; root when none. A login name of the guest.
    pub user: Option<String>,
    /// How long it may take.
    pub timeout: Seconds,
    /// A declared file or tree; when its contents change, the step runs again.
    pub on_change: Option<GuestPath>,
    /// Where the spec says so.
    pub at: Place,
}

/// When a sandbox counts as ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// A text for `/bin/sh -ec`, tried until it exits with 0. None: as soon as commands run at all.
    pub command: Option<String>,
    /// How long to wait.
    pub timeout: Seconds,
    /// Where the spec says so.
    pub at: Place,
}
