//! Where the program makes real sandboxes, for tests of the whole of it on more than one backend.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use sbx_apply::backend::local::Local;
use sbx_apply::backend::{Sandboxes, Settings};

use super::daemon::{self, Daemon};
use super::namespaces;
use super::program::Run;

/// A backend that is really there.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    /// An Incus daemon.
    Incus(Daemon),
    /// This machine, with a state folder of the test's own.
    Local(Arc<Folder>),
}

/// A state folder, which goes when nobody needs it any more.
#[derive(Debug)]
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn state(&self) -> PathBuf {
        self.0.path().join("state")
    }
}

impl Place {
    /// The daemon that the tests may use, if any.
    pub(crate) fn incus() -> Option<Self> {
        daemon::find().map(Self::Incus)
    }

    /// This machine.
    pub(crate) fn local() -> Option<Self> {
        let folder = tempfile::tempdir_in(namespaces::folder()).expect("a folder");
        Some(Self::Local(Arc::new(Folder(folder))))
    }

    /// The name of the backend.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Incus(_) => "incus",
            Self::Local(_) => "local",
        }
    }

    /// An image with a shell and the usual programs.
    pub(crate) fn image(&self) -> &'static str {
        match self {
            Self::Incus(_) => "busybox",
            Self::Local(_) => "host",
        }
    }

    /// The variables by which the program finds it.
    pub(crate) fn variables(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Incus(daemon) => vec![("SBX_SOCKET", daemon.socket.display().to_string())],
            Self::Local(folder) => vec![("SBX_LOCAL_STATE", folder.state().display().to_string())],
        }
    }

    /// Runs the program as a process of its own, with nothing of the caller's environment.
    pub(crate) fn run(&self, arguments: &[&str]) -> Run {
        let output = Command::new(env!("CARGO_BIN_EXE_sbx-apply"))
            .args(arguments)
            .env_clear()
            .envs(self.variables())
            .stdin(Stdio::null())
            .output()
            .expect("the program starts");
        Run {
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            bytes: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            code: output
                .status
                .code()
                .and_then(|code| code.try_into().ok())
                .unwrap_or(255),
        }
    }

    /// The backend, without the program.
    pub(crate) async fn open(&self) -> Arc<dyn Sandboxes> {
        match self {
            Self::Incus(daemon) => daemon::open(daemon).await.expect("a daemon that listens can be opened"),
            Self::Local(folder) => {
                let settings = Settings::from([("state".to_owned(), folder.state().display().to_string())]);
                let program = Path::new(env!("CARGO_BIN_EXE_sbx-apply"));
                Arc::new(Local::open(&settings, program).expect("opens"))
            }
        }
    }
}

/// Makes a test of each check on each of these backends, where it is there.
macro_rules! on_both {
    ($($check:ident,)+) => {
        mod on_local {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $check() {
                if let Some(place) = crate::support::place::Place::local() {
                    super::$check(place).await;
                }
            })+
        }

        mod on_incus {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $check() {
                if let Some(place) = crate::support::place::Place::incus() {
                    super::$check(place).await;
                }
            })+
        }
    };
}
pub(crate) use on_both;
