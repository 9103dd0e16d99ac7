//! What a backend is asked to do, as data: plans hold it, backends carry it out.

use std::collections::BTreeMap;

use super::{Bytes, Content, GuestPath, Labels, Memory, Mode, Owner};

/// A new instance. Everything the copy of another would inherit is overridden by what stands here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CreateOpts {
    /// Its name.
    pub name: String,
    /// Image, as the spec writes it. Needed by `create`, ignored by `clone_from`.
    pub image: Option<String>,
    /// CPUs; the backend's default when none.
    pub cpu: Option<u32>,
    /// Bound on memory; the backend's default when none.
    pub memory: Option<Memory>,
    /// Size of the root disk; the backend's default when none.
    pub disk: Option<Bytes>,
    /// Environment variables.
    pub env: BTreeMap<String, String>,
    /// Backend settings.
    pub config: BTreeMap<String, String>,
    /// Labels.
    pub labels: Labels,
    /// Cluster member or `@group`.
    pub target: Option<String>,
    /// Create only: do not start it, provision it or wait for it.
    pub bare: bool,
}

/// Changes of an instance's settings. In every map, `Some` sets and `None` unsets; what is not named stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// CPUs.
    pub cpu: Option<Option<u32>>,
    /// Bound on memory.
    pub memory: Option<Option<Memory>>,
    /// Size of the root disk. Never smaller than it was.
    pub disk: Option<Option<Bytes>>,
    /// Environment variables.
    pub env: BTreeMap<String, Option<String>>,
    /// Backend settings.
    pub config: BTreeMap<String, Option<String>>,
    /// Labels.
    pub labels: BTreeMap<String, Option<String>>,
}

impl Changes {
    /// Whether nothing would change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether nothing but labels would change: no setting that anybody else could have edited.
    #[must_use]
    pub fn only_labels(&self) -> bool {
        Self {
            labels: BTreeMap::new(),
            ..self.clone()
        }
        .is_empty()
    }
}

/// One change below an instance's root. A batch of them is done in order, in one session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileChange {
    /// A regular file with these bytes, mode and owner, put in place by renaming. What stood there goes: a
    /// link itself, never what it leads to; a folder with all that it holds. Missing parents are made 0755
    /// with the same owner; existing ones are left alone.
    Write {
        /// Where.
        path: GuestPath,
        /// What.
        content: Content,
        /// Permission bits.
        mode: Mode,
        /// Owner; what the backend gives new files where there is none.
        owner: Option<Owner>,
    },
    /// A folder with this mode and owner. One that is there gets them; anything else that stood there goes.
    Directory {
        /// Where.
        path: GuestPath,
        /// Permission bits.
        mode: Mode,
        /// Owner.
        owner: Owner,
    },
    /// A symbolic link. What stood there goes.
    Symlink {
        /// Where.
        path: GuestPath,
        /// What it leads to, as it is.
        target: String,
        /// Owner of missing parents, and of the link itself where the backend can.
        owner: Owner,
    },
    /// Another mode and owner for the regular file that is there.
    Attributes {
        /// Where.
        path: GuestPath,
        /// Permission bits.
        mode: Mode,
        /// Owner.
        owner: Owner,
    },
    /// Nothing: what stands there goes, a folder with all that it holds, a link itself. No error where there
    /// is nothing.
    Remove {
        /// Where.
        path: GuestPath,
    },
}

impl FileChange {
    /// The path it concerns.
    #[must_use]
    pub fn path(&self) -> &GuestPath {
        match self {
            Self::Write { path, .. }
            | Self::Directory { path, .. }
            | Self::Symlink { path, .. }
            | Self::Attributes { path, .. }
            | Self::Remove { path } => path,
        }
    }
}
