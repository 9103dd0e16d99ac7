//! The main job, whole, as a user runs it: the program against a real daemon, hand edits with the daemon's own
//! client, and nothing left behind. Once over the unix socket, once over HTTPS.

use std::path::Path;
use std::process::{Command, Output};

use crate::support::daemon::{self, Daemon};

const SPEC: &str = "examples/quickstart-incus.kdl";

/// The program and the daemon's client, for one environment.
struct User {
    daemon: Daemon,
    environment: String,
    /// Connection flags.
    connection: Vec<String>,
}

/// What a run of the program gave.
struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

impl std::fmt::Debug for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit {}\n{}\n{}", self.code, self.stdout, self.stderr)
    }
}

impl User {
    fn run(&self, command: &str, more: &[&str]) -> Ran {
        let output = Command::new(env!("CARGO_BIN_EXE_sbx-apply"))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args([command, SPEC, "--environment", &self.environment])
            .args(&self.connection)
            .args(more)
            .env_clear()
            .output()
            .expect("the program starts");
        ran(output)
    }

    fn apply(&self) -> Ran {
        let ran = self.run("apply", &["--yes"]);
        assert_eq!(ran.code, 0, "{ran:?}");
        ran
    }

    fn is_in_sync(&self) {
        let ran = self.run("plan", &["--detailed-exitcode"]);
        assert_eq!(
            (ran.code, ran.stdout.as_str()),
            (0, "No changes. The environment matches the spec.\n"),
            "{ran:?}"
        );
    }

    /// The daemon's own client.
    fn incus(&self, arguments: &[&str]) -> String {
        let output = Command::new("incus")
            .args(arguments)
            .env("INCUS_SOCKET", &self.daemon.socket)
            .output()
            .expect("the incus client is installed with the daemon");
        let ran = ran(output);
        assert_eq!(ran.code, 0, "incus {}: {ran:?}", arguments.join(" "));
        ran.stdout
    }

    fn instance(&self, sandbox: &str) -> String {
        format!("{}-{sandbox}", self.environment)
    }

    fn file(&self, sandbox: &str, path: &str) -> String {
        self.incus(&["file", "pull", &format!("{}{path}", self.instance(sandbox)), "-"])
    }

    /// Mode and owner of a file, as the guest sees them.
    fn stat(&self, sandbox: &str, path: &str) -> String {
        // The daemon's client loses the output of a command now and then on a busy machine.
        let ask = || self.incus(&["exec", &self.instance(sandbox), "--", "stat", "-c", "%a %u:%g", path]);
        let said = (0..5).map(|_| ask()).find(|said| !said.is_empty());
        said.unwrap_or_default().trim_end().to_owned()
    }

    /// Name and status of each instance, ordered.
    fn instances(&self) -> Vec<(String, String)> {
        let list = self.incus(&[
            "list",
            "--format",
            "csv",
            "--columns",
            "ns",
            &format!("^{}-", self.environment),
        ]);
        let mut rows: Vec<(String, String)> = list
            .lines()
            .filter_map(|line| line.split_once(','))
            .map(|(name, status)| (name.to_owned(), status.to_owned()))
            .collect();
        rows.sort();
        rows
    }
}

fn ran(output: Output) -> Ran {
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

impl Drop for User {
    fn drop(&mut self) {
        // Also after a failed assertion: the daemon is shared.
        let _ = self.run("destroy", &["--yes", "--allow-data-loss"]);
    }
}

fn the_whole_story(user: &User) {
    let planned = user.run("plan", &["--detailed-exitcode"]);
    assert_eq!(planned.code, 2, "{planned:?}");
    assert!(
        planned.stdout.contains("+ base  create from image busybox"),
        "{}",
        planned.stdout
    );
    assert_eq!(user.instances(), [], "a plan makes nothing");

    user.apply();
    let name = |sandbox| user.instance(sandbox);
    let running = "RUNNING".to_owned();
    assert_eq!(
        user.instances(),
        [
            (name("base"), "STOPPED".to_owned()),
            (name("task-1"), running.clone()),
            (name("task-2"), running.clone()),
            (name("task-3"), running),
        ]
    );
    assert_eq!(user.file("base", "/etc/motd"), "Made by sbx-apply.\n");
    assert_eq!(user.file("task-2", "/etc/task"), "one of three\n");
    assert_eq!(user.stat("task-2", "/etc/task"), "600 0:0");
    assert_eq!(user.stat("task-2", "/usr/local/bin/greet"), "755 0:0");
    assert!(
        user.file("task-3", "/var/lib/demo/greeting").starts_with("hello"),
        "the set-up step ran before the snapshot"
    );
    assert!(
        user.incus(&["snapshot", "list", &name("base"), "--format", "csv"])
            .starts_with("ready,")
    );
    user.is_in_sync();
    let again = user.apply();
    assert!(again.stdout.contains("No changes"), "{again:?}");

    drifts(user);

    let destroyed = user.run("destroy", &["--allow-data-loss"]);
    assert_eq!(destroyed.code, 0, "{destroyed:?}");
    assert_eq!(user.instances(), []);
}

/// Each hand edit shows as drift of just that, and is repaired.
fn drifts(user: &User) {
    /// A sandbox, what a hand does to it, and what a plan then shows.
    type Edit<'a> = (&'a str, &'a dyn Fn(), &'a [&'a str]);
    let edits: [Edit<'_>; 4] = [
        (
            "task-1",
            &|| {
                let path = format!("{}/etc/task", user.instance("task-1"));
                user.incus(&[
                    "file",
                    "push",
                    "Cargo.toml",
                    &path,
                    "--mode",
                    "0600",
                    "--uid",
                    "0",
                    "--gid",
                    "0",
                ]);
            },
            &["file /etc/task", "content: changed (drift)"],
        ),
        (
            "task-2",
            &|| {
                drop(user.incus(&[
                    "exec",
                    &user.instance("task-2"),
                    "--",
                    "chmod",
                    "666",
                    "/etc/worker.conf",
                ]));
            },
            &["file /etc/worker.conf", "mode: 0666 → 0644 (drift)"],
        ),
        (
            "task-3",
            &|| drop(user.incus(&["config", "set", &user.instance("task-3"), "limits.cpu=2"])),
            &["cpu: 2 → 1 (drift)"],
        ),
        (
            "task-1",
            &|| drop(user.incus(&["stop", "--force", &user.instance("task-1")])),
            &["▶ start  (the live system changed)"],
        ),
    ];
    for (sandbox, edit, shown) in edits {
        edit();
        let plan = user.run("plan", &["--detailed-exitcode"]);
        assert_eq!(plan.code, 3, "{plan:?}");
        for text in shown {
            assert!(plan.stdout.contains(text), "{text}: {}", plan.stdout);
        }
        let others = ["base", "task-1", "task-2", "task-3"]
            .into_iter()
            .filter(|other| *other != sandbox);
        for other in others {
            assert!(!plan.stdout.contains(other), "{other}: {}", plan.stdout);
        }
        user.apply();
        user.is_in_sync();
    }
}

fn user(name: &str, connection: impl Fn(&Daemon) -> Vec<String>) -> Option<User> {
    let daemon = daemon::find()?;
    let connection = connection(&daemon);
    Some(User {
        environment: format!("{name}-{}", std::process::id()),
        daemon,
        connection,
    })
}

#[test]
fn over_the_unix_socket() {
    let flags = |daemon: &Daemon| vec!["--socket".to_owned(), daemon.socket.to_string_lossy().into_owned()];
    if let Some(user) = user("quickstart", flags) {
        the_whole_story(&user);
    }
}

#[test]
fn over_https_with_a_pinned_certificate() {
    let flags = |daemon: &Daemon| {
        let folder = daemon.socket.parent().expect("a folder").join("client");
        let file = |name: &str| Path::new(&folder).join(name).to_string_lossy().into_owned();
        let url = std::env::var("SBX_TEST_HTTPS").expect("SBX_TEST_HTTPS comes with the daemon");
        [
            ("--url", url),
            ("--client-certificate", file("client.crt")),
            ("--client-key", file("client.key")),
            ("--server-certificate", file("server.crt")),
        ]
        .into_iter()
        .flat_map(|(flag, value)| [flag.to_owned(), value])
        .collect()
    };
    if let Some(user) = user("https", flags) {
        the_whole_story(&user);
    }
}
