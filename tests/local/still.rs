//! A snapshot of a running sandbox holds it still. A tool that is killed meanwhile leaves it so, and the next one lets it go on.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::daemon::skipped;
use crate::support::namespaces;

/// An environment of the test's own, by the program itself. It goes with the test, also with one that fails.
pub(super) struct Spec {
    folder: tempfile::TempDir,
}

impl Spec {
    pub(super) fn new(environment: &str, sandboxes: &str) -> Self {
        let folder = tempfile::tempdir_in(namespaces::folder()).expect("a folder");
        let text = format!("environment \"{environment}\"\n{sandboxes}\n");
        fs::write(folder.path().join("sbx.kdl"), text).expect("writes");
        Self { folder }
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sbx-apply"));
        command.args(arguments).current_dir(self.folder.path()).env_clear();
        command.env("SBX_LOCAL_STATE", self.state()).stdin(Stdio::null());
        command
    }

    /// Runs the program, and gives what it says.
    #[track_caller]
    pub(super) fn run(&self, arguments: &[&str], code: i32) -> String {
        let output = self.command(arguments).output().expect("runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}{errors}");
        said
    }
}

impl Drop for Spec {
    fn drop(&mut self) {
        let _ = self.command(&["destroy", "--allow-data-loss"]).output();
    }
}

/// Until a condition holds, or it has taken too long.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < end, "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn what_a_killed_tool_has_left_standing_goes_on() {
    let spec = Spec::new("still", "sandbox \"one\" { image \"host\"; }");
    spec.run(&["apply", "--yes"], 0);
    // Enough to copy that there is time to come in between; and something that moves.
    let work = "head -c 300000000 /dev/zero | tr '\\0' x > /root/large; \
                (while true; do date +%s%N > /root/.now; mv /root/.now /root/now; sleep 0.02; done) >/dev/null 2>&1 &";
    spec.run(&["exec", "one", "--", "sh", "-c", work], 0);
    let note = spec.state().join("sandboxes/still-one/still");
    let now = || spec.run(&["file", "read", "one", "/root/now"], 0);
    let moves = || {
        let before = now();
        until("it moves", || now() != before);
    };
    moves();
    let killed = (0..20).any(|attempt| {
        let label = format!("killed-{attempt}");
        let mut taking = spec
            .command(&["snapshot", "create", "one", &label])
            .spawn()
            .expect("starts");
        until("it is held still", || {
            note.exists() || taking.try_wait().is_ok_and(|ended| ended.is_some())
        });
        taking.kill().expect("runs");
        taking.wait().expect("ends");
        note.exists()
    });
    if !killed {
        skipped("a tool that is killed while a sandbox stands still: this file system copies too fast");
        return;
    }
    let plan = spec.run(&["plan", "--detailed-exitcode"], 3);
    assert!(plan.contains("one"), "{plan}");
    let refused = spec.run(&["exec", "one", "--", "true"], 125);
    assert_eq!(refused, "");
    spec.run(&["apply", "--yes"], 0);
    moves();
    spec.run(&["plan", "--detailed-exitcode"], 0);
    // And what is not killed lets go by itself.
    spec.run(&["snapshot", "create", "one", "whole"], 0);
    assert!(!note.exists());
    moves();
}
