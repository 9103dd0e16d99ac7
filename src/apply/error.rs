//! Why a step failed.

use crate::backend;
use crate::model::GuestPath;
use crate::plan::AccountError;

/// Why a step failed. `Display` names the work; the source says what the backend said.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The backend could not do it.
    #[error(transparent)]
    Backend(#[from] backend::Error),
    /// A set-up step ended badly.
    #[error("the step `{name}` exited with {code}")]
    Run {
        /// Its name.
        name: String,
        /// Its exit code, 128 + N after signal N.
        code: i32,
        /// The end of what it wrote, both streams.
        tail: String,
    },
    /// It did not become ready.
    #[error("not ready after {seconds} s: `{command}` exited with {code}")]
    NotReady {
        /// The command that was tried.
        command: String,
        /// Its last exit code.
        code: i32,
        /// How long it was tried.
        seconds: u64,
        /// What it said last.
        tail: String,
    },
    /// The user could not be made.
    #[error("the user cannot be made")]
    Account(#[from] AccountError),
    /// A file of accounts is a link, a folder or far too large: nobody edits that unseen.
    #[error("`{0}` is not a file of accounts that could be edited")]
    Accounts(GuestPath),
    /// A step runs as somebody whom the sandbox does not know.
    #[error("the sandbox has no user `{0}`")]
    NoUser(String),
    /// A secret's value is not there to be written.
    #[error("the variable `{0}` is not set")]
    NoSecret(String),
}

impl StepError {
    /// What to do about it, where there is something.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Backend(error) => error.hint().map(str::to_owned),
            Self::Account(AccountError::IdTaken { holder, .. }) => {
                Some(format!("say `user \"{holder}\"`, or give the user another uid"))
            }
            Self::Account(AccountError::OtherId { found, .. }) => Some(format!("say `uid={found}`")),
            Self::NoUser(_) => Some("declare it with `user`, or make it in a step before".to_owned()),
            _ => None,
        }
    }

    /// The end of what a failed command wrote.
    #[must_use]
    pub fn tail(&self) -> Option<&str> {
        match self {
            Self::Run { tail, .. } | Self::NotReady { tail, .. } if !tail.is_empty() => Some(tail),
            _ => None,
        }
    }
}
