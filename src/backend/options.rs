//! What the calls take and give.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use super::{Error, ErrorKind};
use crate::model::{EnvironmentName, GuestPath, InstanceName, Mode, Owner};

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
    /// How long it may take; for ever when none. Past that it is killed with all that it has started, and the
    /// call fails with a timeout.
    pub timeout: Option<Duration>,
}

/// A moment to come.
pub type Moment<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// Where a command's streams lead. What is none is `/dev/null`.
#[derive(Default)]
pub struct Streams<'a> {
    /// What it reads.
    pub stdin: Option<Box<dyn AsyncRead + Send + Unpin + 'a>>,
    /// Where its output goes.
    pub stdout: Option<Box<dyn AsyncWrite + Send + Unpin + 'a>>,
    /// Where its errors go.
    pub stderr: Option<Box<dyn AsyncWrite + Send + Unpin + 'a>>,
    /// When this has come, the command is ended with all that it has started, and the call fails.
    pub until: Option<Moment<'a>>,
}

/// Comes back when the moment has come, with the failure of what it was to end.
pub(super) async fn ended(until: Option<Moment<'_>>) -> Error {
    match until {
        Some(until) => until.await,
        None => std::future::pending().await,
    }
    Error::new(ErrorKind::Failed, "it was ended")
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
    /// What it wrote to its standard output: the first [`Output::KEPT`] bytes.
    pub stdout: Vec<u8>,
    /// What it wrote to its standard error: the first [`Output::KEPT`] bytes.
    pub stderr: Vec<u8>,
}

impl Output {
    /// So many bytes of each stream are kept: 1 MiB. The rest is read, so that the command does not stand still,
    /// and dropped. Whoever wants all of it gives streams.
    pub const KEPT: usize = 1 << 20;
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
}

impl ConsoleOpts {
    /// The program and its arguments: a login shell, of the image's, where none was named.
    pub(super) fn words(&self) -> Vec<String> {
        const SHELL: [&str; 3] = [
            "/bin/sh",
            "-c",
            "if [ -x /bin/bash ]; then exec /bin/bash -l; else exec /bin/sh -l; fi",
        ];
        match self.command.is_empty() {
            true => SHELL.map(str::to_owned).to_vec(),
            false => self.command.clone(),
        }
    }
}

/// The caller's end of an interactive session.
pub struct Terminal<'a> {
    /// What is typed. Its end is not the session's.
    pub input: Box<dyn AsyncRead + Send + Unpin + 'a>,
    /// Where everything is shown.
    pub output: Box<dyn AsyncWrite + Send + Unpin + 'a>,
    /// Columns and rows, at the start and as they change.
    pub size: watch::Receiver<(u16, u16)>,
    /// When this has come, the session is ended with all that it has started, and the call fails.
    pub until: Option<Moment<'a>>,
}

impl fmt::Debug for Terminal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Terminal")
            .field("size", &*self.size.borrow())
            .finish_non_exhaustive()
    }
}

/// One entry of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// Absolute path, as it was found; what is no UTF-8 in it is replaced by U+FFFD.
    pub path: GuestPath,
    /// Bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: Mode,
    /// Whether it is a folder.
    pub is_dir: bool,
}
