//! What goes wrong on the inner side, in words for the other.

use std::fmt::Display;
use std::io;

use crate::backend::local::wire::{Kind, Reply};

/// A failure.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) kind: Kind,
    pub(super) message: String,
}

pub(super) type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    pub(super) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    /// One of the system's.
    pub(super) fn of(what: impl Display, source: impl Into<io::Error>) -> Self {
        let source = source.into();
        let kind = match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Kind::NotFound,
            _ => Kind::Failed,
        };
        Self::new(kind, format!("{what}: {source}"))
    }

    pub(super) fn reply(self) -> Reply {
        Reply::Failed {
            kind: self.kind,
            message: self.message,
        }
    }
}

/// Saying what was tried.
pub(super) trait Trying<T> {
    /// The value, or a failure that says what was tried.
    fn trying(self, what: impl Display) -> Result<T>;
}

impl<T, E: Into<io::Error>> Trying<T> for std::result::Result<T, E> {
    fn trying(self, what: impl Display) -> Result<T> {
        self.map_err(|source| Failure::of(what, source))
    }
}
