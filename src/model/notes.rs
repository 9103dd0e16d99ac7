//! What is kept of an environment itself, apart from its instances.

use std::fmt;

/// A note on an environment, of some key: a short text that stands on the backend, so that everybody who works on
/// the environment sees the same: who applies to it at the moment, for one.
#[derive(Clone, PartialEq, Eq)]
pub struct Note(String);

impl Note {
    /// The longest that a text may be for every backend to keep it, in bytes.
    pub const LONGEST: usize = 4096;

    /// The longest that it may be for those that keep the records of mounts, which on TrueNAS there are none of.
    pub const LARGEST: usize = 1 << 20;

    /// A note; none for a text that some backend could not give back as it was: it is one line, has something on
    /// it, no control characters, and at most [`Self::LARGEST`] bytes.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Option<Self> {
        let text = text.into();
        let good = !text.is_empty() && text.len() <= Self::LARGEST && !text.contains(char::is_control);
        good.then_some(Self(text))
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Not its text: that may be a key to secrets.
impl fmt::Debug for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Note")
    }
}

/// What a note is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NoteKey {
    /// Who works on the environment at the moment.
    Lock,
    /// With what its secrets are hashed.
    SecretKey,
    /// With what a backend that reaches sandboxes by SSH opens its own.
    SshKey,
    /// What of the spec's own files sandboxes could write to when it was last applied.
    SpecFiles,
}

impl NoteKey {
    /// A word of `[a-z-]`, for a backend to name it by.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lock => "lock",
            Self::SecretKey => "secret-key",
            Self::SshKey => "ssh-key",
            Self::SpecFiles => "spec-files",
        }
    }
}
