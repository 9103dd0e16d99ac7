//! A base that changes under a chain of clones, on a real daemon.

use std::process::Command;

use crate::support::daemon::{self, Daemon};
use crate::support::program::Run;

/// Runs the program as a process of its own: its sessions with the daemon end with it, as a user's do. Inside the test
/// they would stay open while the daemon's own client is waited for, and the daemon waits for them.
fn program(arguments: &[&str]) -> Run {
    let output = Command::new(env!("CARGO_BIN_EXE_sbx-apply"))
        .args(arguments)
        .env_clear()
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

/// An environment of one test.
struct Story {
    daemon: Daemon,
    environment: String,
    folder: tempfile::TempDir,
}

impl Story {
    fn begin(name: &str) -> Option<Self> {
        Some(Self {
            daemon: daemon::find()?,
            environment: format!("{name}-{}", std::process::id()),
            folder: tempfile::tempdir().expect("a folder"),
        })
    }

    /// Runs a command on a chain: `base`, `middle` of its snapshot, `leaf` of middle's, and `kept`, which stays.
    fn run(&self, command: &str, flags: &[&str], text: &str, code: u8) -> Run {
        let spec = format!(
            r#"environment "{}"
            backend "incus"
            sandbox "base" {{
                image "busybox"
                file "/etc/text" content="{text}"
                run "copy" command="cat /etc/text > /root/copy" on-change="/etc/text"
                state "stopped"
                snapshot "ready"
            }}
            sandbox "middle" {{
                clone-from "base" snapshot="ready" on-stale="replace"
                file "/etc/middle" content="middle"
                state "stopped"
                snapshot "done"
            }}
            sandbox "leaf" {{ clone-from "middle" snapshot="done" on-stale="replace"; }}
            sandbox "kept" {{ clone-from "middle" snapshot="done"; state "stopped"; }}
            "#,
            self.environment
        );
        let path = self.folder.path().join("sbx.kdl");
        std::fs::write(&path, spec).expect("writes");
        let (spec, socket) = (path.display().to_string(), self.daemon.socket.display().to_string());
        let words = [&[command, &spec], flags, &["--socket", &socket]].concat();
        let run = program(&words);
        assert_eq!(run.code, code, "{words:?}\n{}\n{}", run.stdout, run.stderr);
        run
    }

    fn incus(&self, arguments: &[&str]) -> String {
        let output = Command::new("incus")
            .args(arguments)
            .env("INCUS_SOCKET", &self.daemon.socket)
            .stdin(std::process::Stdio::null())
            .output()
            .expect("the incus client is installed with the daemon");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "incus {arguments:?}: {error}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn instance(&self, sandbox: &str) -> String {
        format!("{}-{sandbox}", self.environment)
    }

    fn file(&self, sandbox: &str, path: &str) -> String {
        self.incus(&["file", "pull", &format!("{}{path}", self.instance(sandbox)), "-"])
    }

    /// What the set-up step of the base has left in each sandbox, and its file.
    fn texts(&self) -> Vec<(String, String)> {
        let texts = ["base", "middle", "leaf", "kept"].map(|sandbox| {
            let [file, copy] = ["/etc/text", "/root/copy"].map(|path| self.file(sandbox, path));
            (file, copy)
        });
        texts.to_vec()
    }
}

impl Drop for Story {
    fn drop(&mut self) {
        // Also after a failed assertion: the daemon is shared.
        let socket = self.daemon.socket.display().to_string();
        let environment = ["--environment", &self.environment, "--backend", "incus"];
        program(
            &[
                &["destroy"],
                &environment[..],
                &["--allow-data-loss", "--socket", &socket],
            ]
            .concat(),
        );
    }
}

fn same(text: &str) -> (String, String) {
    (text.to_owned(), text.to_owned())
}

#[test]
fn a_chain_of_clones_is_made_anew_in_one_apply() {
    let Some(story) = Story::begin("chain") else { return };
    story.run("apply", &[], "one", 0);
    assert_eq!(story.texts(), vec![same("one"); 4]);
    story.run("check", &[], "one", 0);

    // What the daemon keeps of a snapshot tells its recipe, so that nothing else has to be kept.
    let base = story.instance("base");
    let hand = |text: &str| {
        let file = story.folder.path().join("hand");
        std::fs::write(&file, text).expect("writes");
        story.incus(&["file", "push", &file.display().to_string(), &format!("{base}/etc/text")]);
    };
    hand("by hand");
    let check = story.run("check", &[], "one", 3);
    assert!(
        !check.stdout.contains("stale"),
        "drift makes nothing stale: {}",
        check.stdout
    );

    // The base has drifted and changes: its snapshot is taken of what is declared.
    let plan = story.run("plan", &["--detailed-exitcode"], "two", 3);
    for text in [
        "+ snapshot ready  (stale: file /etc/text, run copy) [data loss]",
        "-/+ middle  replace  (stale: its source has other files and other set-up steps) [data loss]",
        "-/+ leaf  replace  (stale: its source has a changed source of its own) [data loss]",
        "· kept  none  (stale: its source has a changed source of its own)",
    ] {
        assert!(plan.stdout.contains(text), "{text}: {}", plan.stdout);
    }
    story.run("apply", &[], "two", 4);
    story.run("apply", &["--allow-data-loss"], "two", 0);
    assert_eq!(story.texts(), [same("two"), same("two"), same("two"), same("one")]);
    let check = story.run("check", &[], "two", 0);
    assert!(check.stdout.contains("1 stale clone stays"), "{}", check.stdout);
    let show = story.run("show", &[], "two", 0);
    let stale: Vec<&str> = show.stdout.lines().filter(|line| line.contains("  source  ")).collect();
    assert!(stale.len() == 1 && stale[0].starts_with("kept "), "{}", show.stdout);
}

#[test]
fn what_a_kill_left_between_delete_and_create_is_made_good() {
    let Some(story) = Story::begin("killed") else {
        return;
    };
    story.run("apply", &[], "one", 0);
    // A snapshot that is gone makes no clone stale.
    story.incus(&["snapshot", "delete", &story.instance("base"), "ready"]);
    let plan = story.run("plan", &[], "one", 0);
    assert!(plan.stdout.contains("+ snapshot ready  (it is gone"), "{}", plan.stdout);
    assert!(!plan.stdout.contains("stale"), "{}", plan.stdout);
    // The stale snapshot and a stale clone went, and nothing came after them.
    story.incus(&["delete", "--force", &story.instance("leaf")]);
    story.run("apply", &["--allow-data-loss"], "two", 0);
    assert_eq!(story.texts(), [same("two"), same("two"), same("two"), same("one")]);
    story.run("check", &[], "two", 0);
}

#[test]
fn a_snapshot_of_that_name_that_is_not_ours_is_refused() {
    let Some(story) = Story::begin("foreign") else {
        return;
    };
    story.run("apply", &[], "one", 0);
    let base = story.instance("base");
    story.incus(&["snapshot", "delete", &base, "ready"]);
    story.incus(&["snapshot", "create", &base, "ready"]);
    let plan = story.run("plan", &[], "two", 1);
    assert!(plan.stderr.contains("did not take"), "{}", plan.stderr);
}

#[test]
fn an_image_that_is_not_there_costs_nothing() {
    let Some(story) = Story::begin("typo") else {
        return;
    };
    let spec = |image: &str| {
        let path = story.folder.path().join("one.kdl");
        let text = format!(
            "environment \"{}\"\nsandbox \"one\" {{ image \"{image}\"; state \"stopped\"; }}",
            story.environment
        );
        std::fs::write(&path, text).expect("writes");
        path.display().to_string()
    };
    let socket = story.daemon.socket.display().to_string();
    let apply = |image: &str| {
        program(&[
            "apply",
            &spec(image),
            "--backend",
            "incus",
            "--socket",
            &socket,
            "--allow-data-loss",
        ])
    };
    assert_eq!(apply("busybox").code, 0);
    let refused = apply("local:bosybux");
    assert_eq!(refused.code, 1, "{}", refused.stderr);
    assert!(refused.stderr.contains("plan::image-missing"), "{}", refused.stderr);
    assert!(
        story
            .incus(&["list", "--format", "csv", "--columns", "n"])
            .contains(&story.instance("one"))
    );
}
