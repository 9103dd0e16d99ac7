//! What can go wrong at a backend.

use std::error::Error as StdError;
use std::fmt;

use crate::model::Field;

/// A backend's answer, or what went wrong.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The kinds of failure that callers tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// No such instance, snapshot, file or image.
    NotFound,
    /// The name is taken.
    AlreadyExists,
    /// Another operation is under way on it; worth trying again.
    Busy,
    /// Somebody else changed it in between; worth reading again.
    Conflict,
    /// This backend, or this version of it, cannot do that.
    Unsupported,
    /// The caller may not do that.
    Unauthorised,
    /// No connection; worth trying again.
    Unreachable,
    /// No answer in time.
    Timeout,
    /// The request itself is wrong.
    Invalid,
    /// Anything else the backend says.
    Failed,
}

impl ErrorKind {
    /// Whether the same call may succeed a moment later.
    #[must_use]
    pub fn is_transient(self) -> bool {
        matches!(self, Self::Busy | Self::Conflict | Self::Unreachable)
    }
}

/// Something that a sandbox was to have and that the backend does not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Objection {
    /// The field of the sandbox; none where it is one that no spec has.
    pub field: Option<Field>,
    /// What the backend says of it.
    pub words: String,
}

/// A failure at a backend: what was tried, of what kind, and what the backend said.
///
/// `Display` never contains the source: walk [`StdError::source`] for that.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    hint: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
    settled: bool,
    objections: Vec<Objection>,
}

impl Error {
    /// A failure. `message` says what was tried and what the backend answered: ``cannot start `demo-base`:
    /// the pool is full``.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            hint: None,
            source: None,
            settled: false,
            objections: Vec::new(),
        }
    }

    /// No such thing.
    #[must_use]
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// The backend cannot do that.
    #[must_use]
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, message)
    }

    /// The same with its cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The same with what to do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same of another kind.
    #[must_use]
    pub fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.kind = kind;
        self
    }

    /// The same, saying first what was tried: `what: message`.
    #[must_use]
    pub fn within(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// The same, where it is known that nothing of what was tried goes on.
    #[must_use]
    pub fn settled(mut self) -> Self {
        self.settled = true;
        self
    }

    /// The same, saying what of the sandbox the backend does not take.
    #[must_use]
    pub fn with_objections(mut self, objections: Vec<Objection>) -> Self {
        self.objections = objections;
        self
    }

    /// What of the sandbox the backend does not take, where it says so.
    #[must_use]
    pub fn objections(&self) -> &[Objection] {
        &self.objections
    }

    /// Whether what was tried may still be under way at the backend: no answer was heard, and nothing tells that it
    /// has ended.
    #[must_use]
    pub fn may_go_on(&self) -> bool {
        !self.settled && matches!(self.kind, ErrorKind::Timeout | ErrorKind::Unreachable)
    }

    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What to do about it, where there is something.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

/// The cause of a refusal to look into something that nobody has been in yet, where looking would change it.
#[derive(Debug, thiserror::Error)]
#[error("looking into it would change it: nobody has been in it yet")]
pub(super) struct Untouched;

/// Whether something was not looked into because nobody has been in it yet, and looking would change it.
#[must_use]
pub fn is_untouched(error: &Error) -> bool {
    StdError::source(error).is_some_and(|cause| cause.is::<Untouched>())
}

/// The cause of a refusal to look into an instance that has no disk: whoever made or deleted it was stopped in between.
#[derive(Debug, thiserror::Error)]
#[error("it has no disk: its making or its deletion was broken off")]
pub(super) struct NoDisk;

/// Whether an instance could not be looked into because it has no disk.
#[must_use]
pub fn has_no_disk(error: &Error) -> bool {
    StdError::source(error).is_some_and(|cause| cause.is::<NoDisk>())
}

/// Whether an error, or anything it was wrapped around, is a backend's not-found.
#[must_use]
pub fn is_not_found(error: &(dyn StdError + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error
            .downcast_ref::<Error>()
            .is_some_and(|error| error.kind == ErrorKind::NotFound)
        {
            return true;
        }
        next = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] Error);

    #[test]
    fn not_found_is_found_through_wrapping() {
        let missing = || Error::not_found("no instance `a`");
        assert!(is_not_found(&Outer(
            Error::new(ErrorKind::Failed, "middle").with_source(missing())
        )));
        assert!(!is_not_found(&Outer(Error::new(ErrorKind::Busy, "busy"))));
        assert_eq!(
            Error::new(ErrorKind::Failed, "middle")
                .with_source(missing())
                .to_string(),
            "middle"
        );
    }
}
