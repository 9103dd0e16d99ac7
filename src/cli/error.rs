//! Why a command did not do what it was asked to.

use std::error::Error as StdError;

use super::Code;
use super::lock::held_by;
use crate::apply::{Holder, Loss};
use crate::backend;
use crate::model::Diagnostic;
use crate::spec::{Rejected, Sources};
use crate::view::diagnostics::{Style, render};
use crate::view::{Output, clean, human};

/// How many lines of what has moved are shown.
const LINES: usize = 30;

/// Why a command did not do what it was asked to; expected ones all.
#[derive(Debug)]
pub(super) enum Error {
    /// The spec does not make sense.
    Rejected(Box<Rejected>),
    /// The plan must not be carried out.
    Refused {
        /// Why, one by one.
        diagnostics: Vec<Diagnostic>,
        /// What they point into.
        sources: Sources,
        /// 4, or 1 where all of it is the spec's fault.
        code: Code,
    },
    /// The backend said no.
    Backend(backend::Error),
    /// A file or a stream could not be read or written.
    Io {
        /// What was tried.
        doing: String,
        /// What came of it.
        source: std::io::Error,
    },
    /// Something on the command line makes no sense.
    Usage {
        /// What.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// Nobody said yes.
    Consent {
        /// To what.
        message: String,
        /// What it is about, line by line.
        details: Option<String>,
        /// How to.
        hint: Option<String>,
    },
    /// While somebody thought about the plan, the live system moved on.
    Moved,
    /// A kept plan was made from what is no more so.
    Outdated {
        /// What has moved, line by line.
        moved: Vec<String>,
    },
    /// Ctrl-C before anything was done.
    Interrupted,
    /// Somebody else works on the environment.
    Locked {
        /// The environment.
        environment: String,
        /// Who, where that can be read.
        holder: Option<Box<Holder>>,
        /// The moment.
        now: u64,
    },
    /// The lock was lost while it was needed.
    LockLost {
        /// The environment.
        environment: String,
        /// How.
        loss: Loss,
    },
}

impl From<backend::Error> for Error {
    fn from(error: backend::Error) -> Self {
        Self::Backend(error)
    }
}

impl From<Rejected> for Error {
    fn from(rejected: Rejected) -> Self {
        Self::Rejected(Box::new(rejected))
    }
}

impl Error {
    /// A failure of the caller's own files or streams.
    pub(super) fn io(doing: impl Into<String>, source: std::io::Error) -> Self {
        Self::Io {
            doing: doing.into(),
            source,
        }
    }

    /// A mistake on the command line.
    pub(super) fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Usage {
            message: message.into(),
            hint: Some(hint.into()),
        }
    }

    /// How the program ends.
    pub(super) fn code(&self) -> Code {
        match self {
            Self::Rejected(_) | Self::Backend(_) | Self::Io { .. } | Self::Usage { .. } | Self::LockLost { .. } => {
                Code::Error
            }
            Self::Refused { code, .. } => *code,
            Self::Consent { .. } | Self::Moved | Self::Outdated { .. } | Self::Locked { .. } => Code::Refused,
            Self::Interrupted => Code::Interrupted,
        }
    }

    /// Tells it.
    pub(super) fn report(&self, output: &Output, style: Style) {
        let text = match self {
            Self::Rejected(rejected) => problems(&rejected.diagnostics, &rejected.sources, style),
            Self::Refused {
                diagnostics, sources, ..
            } => problems(diagnostics, sources, style),
            Self::Backend(error) => human::error(&error.to_string(), error.source(), error.hint()),
            Self::Io { doing, source } => human::error(&format!("{doing}: {source}"), None, None),
            Self::Usage { message, hint } => human::error(message, None, hint.as_deref()),
            Self::Consent { message, details, hint } => {
                let details = details
                    .as_ref()
                    .map(|details| format!("{details}\n"))
                    .unwrap_or_default();
                format!("{details}{}", human::error(message, None, hint.as_deref()))
            }
            Self::Moved => human::error(
                "the live system has changed since this plan was made; nothing was done",
                None,
                Some("apply again, and look at the new plan"),
            ),
            Self::Outdated { moved } => {
                let all = moved.iter().take(LINES).map(|line| format!("  · {}\n", clean(line)));
                let more = moved.len().saturating_sub(LINES);
                let more = if more > 0 {
                    format!("  · … and {more} more\n")
                } else {
                    String::new()
                };
                format!(
                    "Not as it was when this plan was made:\n{}{more}{}",
                    all.collect::<String>(),
                    human::error(
                        "the plan no longer fits; nothing was done",
                        None,
                        Some("make the plan again, and look at it")
                    )
                )
            }
            Self::Interrupted => "Interrupted; nothing was changed.".to_owned(),
            Self::Locked {
                environment,
                holder,
                now,
            } => {
                let (message, hint) = held_by(environment, holder.as_deref(), *now);
                human::error(&message, None, Some(&hint))
            }
            Self::LockLost { environment, loss } => {
                let why = match loss {
                    Loss::Taken(Some(holder)) => format!("{holder} has taken it"),
                    Loss::Taken(None) => "it is gone".to_owned(),
                    Loss::Unrenewed(error) => format!("it could not be renewed: {error}"),
                };
                let message = format!("the lock of `{environment}` was lost, so nothing more was started: {why}");
                human::error(&message, None, Some("apply again to go on from here"))
            }
        };
        output.message(&text);
    }
}

fn problems(diagnostics: &[Diagnostic], sources: &Sources, style: Style) -> String {
    let drawn = render(diagnostics, sources, style);
    if diagnostics.len() < 2 {
        return drawn;
    }
    format!("{}\n\n{} problems.", drawn.trim_end(), diagnostics.len())
}
