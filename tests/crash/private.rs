//! A daemon of a test's own, that may be killed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::daemon::{self, Daemon};
use crate::support::place::Place;

/// Stopped, with all that is in it, when it goes.
pub(super) struct Private {
    folder: PathBuf,
    _keep: tempfile::TempDir,
}

impl Private {
    /// Starts one. The one that is shared may not be killed; where there is none, there shall be none.
    pub(super) fn start() -> Option<Self> {
        daemon::find()?;
        let keep = tempfile::tempdir_in("/var/tmp").expect("a folder");
        let private = Self {
            folder: keep.path().join("d"),
            _keep: keep,
        };
        private.script("start");
        Some(private)
    }

    pub(super) fn daemon(&self) -> Daemon {
        Daemon {
            socket: self.folder.join("unix.socket"),
        }
    }

    pub(super) fn place(&self) -> Place {
        Place::Incus(self.daemon())
    }

    /// Kills it, and starts it again. What runs in it goes on.
    pub(super) fn restart(&self) {
        self.script("restart");
    }

    /// Removes a file of the daemon's own.
    pub(super) fn remove(&self, path: &str) {
        fs::remove_file(self.folder.join(path)).expect("a file");
    }

    /// Waits until none of its helpers is left that serve files and hold disks open: 15 s after the last was asked.
    ///
    /// # Panics
    /// When they stay for minutes.
    pub(super) fn without_helpers(&self) {
        let deadline = Instant::now() + Duration::from_secs(180);
        while self.has_helpers() {
            assert!(Instant::now() < deadline, "helpers that serve files stay");
            thread::sleep(Duration::from_millis(200));
        }
    }

    fn has_helpers(&self) -> bool {
        let mark = format!("INCUS_DIR={}", self.folder.display());
        let processes = fs::read_dir("/proc").expect("processes").flatten();
        // One that has ended since has nothing to read any more.
        let words = |path: PathBuf| fs::read(path).unwrap_or_default();
        processes.map(|entry| entry.path()).any(|process| {
            let arguments = words(process.join("cmdline"));
            let is_helper = arguments.split(|byte| *byte == 0).nth(1) == Some(b"forkfile");
            is_helper
                && words(process.join("environ"))
                    .split(|byte| *byte == 0)
                    .any(|word| word == mark.as_bytes())
        })
    }

    fn script(&self, verb: &str) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/incus/daemon");
        let status = Command::new(script).arg(verb).arg(&self.folder).status();
        assert!(status.expect("a shell").success(), "{verb}");
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        self.script("stop");
    }
}
