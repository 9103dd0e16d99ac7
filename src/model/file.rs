//! Files and trees that a spec puts into a sandbox.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Digest, Mode, Owner, Place};

/// An absolute, normal path inside a sandbox: no `.`, no `..`, no doubled or closing `/`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GuestPath(String);

/// Why a text is not a path in a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidGuestPath(&'static str);

impl GuestPath {
    /// Checks a path.
    ///
    /// # Errors
    /// When it is not absolute, is `/` itself, has a `.` or `..` part, an empty part, a control character, or
    /// more than 4,095 bytes (Linux, `PATH_MAX`).
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidGuestPath> {
        let text = text.into();
        let Some(rest) = text.strip_prefix('/') else {
            return Err(InvalidGuestPath("a path in a sandbox starts with `/`"));
        };
        if rest.is_empty() {
            return Err(InvalidGuestPath("the root folder itself cannot be named here"));
        }
        if text.len() > 4_095 {
            return Err(InvalidGuestPath("a path has at most 4095 bytes"));
        }
        if text.chars().any(char::is_control) {
            return Err(InvalidGuestPath("a path must not contain control characters"));
        }
        for part in rest.split('/') {
            match part {
                "" => return Err(InvalidGuestPath("a path has no doubled or closing `/`")),
                "." | ".." => return Err(InvalidGuestPath("a path in a sandbox has no `.` or `..` parts")),
                part if part.len() > 255 => return Err(InvalidGuestPath("a part of a path has at most 255 bytes")),
                _ => {}
            }
        }
        Ok(Self(text))
    }

    /// A path that is known to be good.
    #[must_use]
    pub(crate) fn trusted(text: String) -> Self {
        debug_assert!(Self::new(text.clone()).is_ok(), "{text}");
        Self(text)
    }

    /// The root folder: nothing can be put there, but it can be listed.
    #[must_use]
    pub fn root() -> Self {
        Self("/".to_owned())
    }

    /// A path that was found in a sandbox, taken as it is: it may have control characters in it. To be shown, and for
    /// nothing else.
    #[must_use]
    pub fn observed(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// A name that was found in a sandbox, as a path can say it: what is no text in it, and each control, stands as
    /// [`Self::UNSAYABLE`], and what is longer than a part may be is cut. Several names may be told as one.
    #[must_use]
    pub fn told(name: &[u8]) -> String {
        let text = String::from_utf8_lossy(name);
        let substitute = |character: char| match character.is_control() {
            true => Self::UNSAYABLE,
            false => character,
        };
        let mut told = String::with_capacity(text.len());
        for character in text.chars().map(substitute) {
            if told.len() + character.len_utf8() > 255 {
                break;
            }
            told.push(character);
        }
        told
    }

    /// What stands in a told name for what a path cannot say.
    pub const UNSAYABLE: char = char::REPLACEMENT_CHARACTER;

    /// Whether a name that was found may be another than the path says.
    #[must_use]
    pub fn is_told(&self) -> bool {
        self.0.contains(Self::UNSAYABLE)
    }

    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The folder that holds it; none where that is `/`.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let (parent, _) = self.0.rsplit_once('/')?;
        (!parent.is_empty()).then(|| Self(parent.to_owned()))
    }

    /// The path of `relative` below this one. `relative` must be normal, as the keys of [`Tree::entries`] are.
    #[must_use]
    pub fn join(&self, relative: &str) -> Self {
        Self::trusted(format!("{}/{relative}", self.0.trim_end_matches('/')))
    }

    /// What is left of this path below `ancestor`; none where it does not lie below it.
    #[must_use]
    pub fn below(&self, ancestor: &Self) -> Option<&str> {
        self.0.strip_prefix(ancestor.as_str())?.strip_prefix('/')
    }
}

impl GuestPath {
    /// Whether it is the other one or lies below it.
    #[must_use]
    pub fn lies_in(&self, other: &Self) -> bool {
        self == other || self.below(other).is_some()
    }
}

impl fmt::Display for GuestPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The bytes of a file, and where to get them when they are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// SHA-256 of all bytes.
    pub digest: Digest,
    /// How many there are.
    pub size: u64,
    /// The bytes, or the file of the spec's folder that holds them.
    pub data: Data,
}

/// Where bytes are.
#[derive(Clone, PartialEq, Eq)]
pub enum Data {
    /// Here: inline contents and small sources.
    Bytes(Arc<[u8]>),
    /// In a file on this machine, real path below the spec's root. Read again when it is written, and refused
    /// when its digest has moved.
    Path(PathBuf),
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "Bytes({})", bytes.len()),
            Self::Path(path) => write!(f, "Path({})", path.display()),
        }
    }
}

impl Content {
    /// Contents that are at hand.
    #[must_use]
    pub fn inline(bytes: impl Into<Arc<[u8]>>) -> Self {
        let bytes = bytes.into();
        Self {
            digest: Digest::of(&bytes),
            size: bytes.len() as u64,
            data: Data::Bytes(bytes),
        }
    }
}

/// When a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Whenever it differs.
    Always,
    /// Once, with the sandbox's first apply; then it is its user's.
    Create,
}

/// What a file should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileState {
    /// These bytes.
    Content(Content),
    /// The value of this variable of the caller's environment. Never shown, stored or logged.
    Secret(String),
    /// Not there.
    Absent,
}

/// A declared file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// What it should be.
    pub state: FileState,
    /// Permission bits.
    pub mode: Mode,
    /// Owner, defaults already filled in.
    pub owner: Owner,
    /// When it is written.
    pub when: When,
    /// Where the spec says so.
    pub at: Place,
}

/// One entry of a tree, as the source has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A regular file; its mode is 0755 where the source is executable by its owner, else 0644.
    File {
        /// Its bytes.
        content: Content,
        /// Permission bits.
        mode: Mode,
    },
    /// A folder, 0755.
    Directory,
    /// A symbolic link, copied as it is.
    Symlink(String),
}

/// A declared tree: a folder of the spec's, copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// What lies in it, by normal relative path (`a/b`), the root folder itself not included. Parents come
    /// before what they hold.
    pub entries: BTreeMap<String, Entry>,
    /// Owner of everything in it.
    pub owner: Owner,
    /// Whether what is not in the source goes.
    pub delete: bool,
    /// Patterns in gitignore syntax, as written: neither copied nor deleted.
    pub exclude: Vec<String>,
    /// Where the spec says so.
    pub at: Place,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guest_paths_are_absolute_and_normal() {
        assert!(GuestPath::new("/etc/motd").is_ok());
        for bad in ["", "etc", "/", "/a/", "/a//b", "/a/../b", "/./a", "/a\nb", "/a\0"] {
            assert!(GuestPath::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn below_needs_a_whole_part() {
        let path = |text: &str| GuestPath::new(text).expect(text);
        assert_eq!(path("/a/b/c").below(&path("/a")), Some("b/c"));
        assert_eq!(path("/ab").below(&path("/a")), None);
        assert_eq!(path("/a").below(&path("/a")), None);
        assert_eq!(path("/a").parent(), None);
        assert_eq!(path("/a/b").parent(), Some(path("/a")));
    }
}
