//! What the calls take and give.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::model::{Bytes, Content, EnvironmentName, GuestPath, InstanceName, Labels, Memory, Mode, Owner};

/// A backend's settings: flat, by the backend's own keys.
pub type Settings = BTreeMap<String, String>;

/// Which instances an observation is about: those labelled with the environment, and whatever holds one of
/// the names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// The environment; every environment when none.
    pub environment: Option<EnvironmentName>,
    /// Names that the spec wants to use.
    pub names: BTreeSet<InstanceName>,
}

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

/// How to stop an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Ask it to shut down, and end it when it has not after this long.
    Clean(Duration),
    /// End it at once.
    Force,
}

/// As whom a command runs, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Numeric ids.
    pub owner: Owner,
    /// Value of `HOME`, and the folder it starts in.
    pub home: String,
    /// Value of `USER`.
    pub name: String,
}

impl Account {
    /// Root.
    #[must_use]
    pub fn root() -> Self {
        Self {
            owner: Owner::ROOT,
            home: "/root".to_owned(),
            name: "root".to_owned(),
        }
    }
}

/// A command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecOpts {
    /// The program and its arguments; no shell in between.
    pub command: Vec<String>,
    /// As whom.
    pub account: Account,
    /// Environment variables, over those of the sandbox.
    pub env: BTreeMap<String, String>,
    /// How long it may take; for ever when none. Past that it is killed, and the call fails with a timeout.
    pub timeout: Option<Duration>,
}

/// Where a command's streams lead. What is none is `/dev/null`.
#[derive(Default)]
pub struct Streams<'a> {
    /// What it reads.
    pub stdin: Option<Box<dyn AsyncRead + Send + Unpin + 'a>>,
    /// Where its output goes.
    pub stdout: Option<Box<dyn AsyncWrite + Send + Unpin + 'a>>,
    /// Where its errors go.
    pub stderr: Option<Box<dyn AsyncWrite + Send + Unpin + 'a>>,
}

impl fmt::Debug for Streams<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streams")
            .field("stdin", &self.stdin.is_some())
            .field("stdout", &self.stdout.is_some())
            .field("stderr", &self.stderr.is_some())
            .finish()
    }
}

/// What a command said, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Exit code; 128 + the signal's number where one ended it.
    pub code: i32,
    /// All it wrote to its standard output.
    pub stdout: Vec<u8>,
    /// All it wrote to its standard error.
    pub stderr: Vec<u8>,
}

/// An interactive session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsoleOpts {
    /// The program and its arguments; a login shell when empty.
    pub command: Vec<String>,
    /// As whom.
    pub account: Account,
    /// Environment variables, over those of the sandbox.
    pub env: BTreeMap<String, String>,
    /// Columns and rows at the start.
    pub size: (u16, u16),
}

/// One entry of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// Absolute path.
    pub path: GuestPath,
    /// Bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: Mode,
    /// Whether it is a folder.
    pub is_dir: bool,
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
