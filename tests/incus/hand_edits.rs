//! For every field of the language that this backend carries out: what somebody changes by hand, with the daemon's own
//! client, shows as drift of just that field, and an apply repairs just that.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use sbx_apply::apply::observe;
use sbx_apply::backend::Sandboxes;
use sbx_apply::model::{Desired, Live};
use sbx_apply::spec::{Request, load};
use serde_json::Value;

use crate::support::daemon::{self, Daemon};
use crate::support::program::{Run, real_program};

const SPEC: &str = r#"
environment "ENVIRONMENT"
backend "incus"
sandbox "one" {
    image "busybox"
    cpu 1; memory "256MiB"; disk "1GiB"
    env KEPT="1" OTHER="2"
    config { limits.processes "500"; security.guestapi "true"; }
    user "dev" uid=1500
    protect true
    ttl "24h"
    file "/etc/conf" content="conf\n" mode="0640" owner=7 group=8
    file "/etc/none" absent=true
    file "/home/dev/.seed" content="seed\n" when="create"
    tree "/srv/app" source="app" delete=true { exclude "*.log"; }
    tree "/srv/kept" source="app"
    run "first" command="true"
    run "second" command="true"
    snapshot "ready"
}
sandbox "off" { image "busybox"; state "stopped"; }
"#;

/// What a hand does.
#[derive(Debug, Clone, Copy)]
enum Hand {
    /// A command for the guest's shell, as root.
    Guest(&'static str),
    /// The client's arguments; `ONE` and `OFF` stand for the instances.
    Client(&'static [&'static str]),
    /// An edit of the last-applied record: what is replaced, and by what.
    Record(&'static str, &'static str),
}

/// What it comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comes {
    /// These fields, and no other, drifted; an apply repairs them.
    Drift(&'static [&'static str]),
    /// The record is the live state of this: it shows as a pending change.
    Pending(&'static [&'static str]),
    /// It is nobody's business.
    Nothing,
    /// It is drift of this, and cannot be undone: an error says so.
    Error(&'static str),
}

use Comes::{Drift, Error, Nothing, Pending};
use Hand::{Client, Guest, Record};

/// A field of the language, what a hand does to it, and what that comes to.
const CASES: &[(&str, Hand, Comes)] = &[
    (
        "cpu",
        Client(&["config", "set", "ONE", "limits.cpu=2"]),
        Drift(&["cpu"]),
    ),
    (
        "cpu, unset",
        Client(&["config", "unset", "ONE", "limits.cpu"]),
        Drift(&["cpu"]),
    ),
    (
        "memory",
        Client(&["config", "set", "ONE", "limits.memory=50%"]),
        Drift(&["memory"]),
    ),
    (
        "disk, unset",
        Client(&["config", "device", "unset", "ONE", "root", "size"]),
        Drift(&["disk"]),
    ),
    (
        "disk, smaller",
        Client(&["config", "device", "set", "ONE", "root", "size=512MiB"]),
        Drift(&["disk"]),
    ),
    (
        "disk, larger",
        Client(&["config", "device", "set", "ONE", "root", "size=2GiB"]),
        Error("cannot shrink"),
    ),
    (
        "env",
        Client(&["config", "set", "ONE", "environment.KEPT=9"]),
        Drift(&["env:KEPT"]),
    ),
    (
        "env, unset",
        Client(&["config", "unset", "ONE", "environment.OTHER"]),
        Drift(&["env:OTHER"]),
    ),
    (
        "env, another's",
        Client(&["config", "set", "ONE", "environment.THEIRS=1"]),
        Nothing,
    ),
    (
        "config",
        Client(&["config", "set", "ONE", "limits.processes=9"]),
        Drift(&["config:limits.processes"]),
    ),
    (
        "config, unset",
        Client(&["config", "unset", "ONE", "security.guestapi"]),
        Drift(&["config:security.guestapi"]),
    ),
    (
        "config, another's",
        Client(&["config", "set", "ONE", "limits.cpu.priority=3"]),
        Nothing,
    ),
    (
        "protect",
        Client(&["config", "unset", "ONE", "user.sbx-apply.protect"]),
        Drift(&["protect"]),
    ),
    (
        "ttl",
        Client(&["config", "set", "ONE", "user.sbx-apply.ttl=2d"]),
        Drift(&["ttl"]),
    ),
    (
        "ttl, unset",
        Client(&["config", "unset", "ONE", "user.sbx-apply.ttl"]),
        Drift(&["ttl"]),
    ),
    ("state, stopped", Client(&["stop", "--force", "ONE"]), Drift(&["power"])),
    ("state, frozen", Client(&["pause", "ONE"]), Drift(&["power"])),
    ("state, running", Client(&["start", "OFF"]), Drift(&["power"])),
    (
        "snapshot",
        Client(&["snapshot", "delete", "ONE", "ready"]),
        Drift(&["snapshot:ready.exists"]),
    ),
    (
        "snapshot, another's",
        Client(&["snapshot", "create", "ONE", "theirs"]),
        Nothing,
    ),
    ("user", Guest("sed -i /^dev:/d /etc/passwd"), Drift(&["user"])),
    (
        "file content",
        Guest("echo by hand > /etc/conf"),
        Drift(&["file:/etc/conf.content"]),
    ),
    (
        "file mode",
        Guest("chmod 0600 /etc/conf"),
        Drift(&["file:/etc/conf.mode"]),
    ),
    (
        "file mode, setuid",
        Guest("chmod 4640 /etc/conf"),
        Drift(&["file:/etc/conf.mode"]),
    ),
    (
        "file owner",
        Guest("chown 9:8 /etc/conf"),
        Drift(&["file:/etc/conf.owner"]),
    ),
    (
        "file group",
        Guest("chown 7:9 /etc/conf"),
        Drift(&["file:/etc/conf.owner"]),
    ),
    (
        "file, removed",
        Guest("rm /etc/conf"),
        Drift(&["file:/etc/conf.content"]),
    ),
    (
        "file, a link",
        Guest("rm /etc/conf; ln -s /etc/passwd /etc/conf"),
        Drift(&["file:/etc/conf.content"]),
    ),
    (
        "file, a pipe",
        Guest("rm /etc/conf; mkfifo /etc/conf"),
        Drift(&["file:/etc/conf.content"]),
    ),
    (
        "file absent",
        Guest("echo x > /etc/none"),
        Drift(&["file:/etc/none.content"]),
    ),
    ("file when=create", Guest("echo mine > /home/dev/.seed"), Nothing),
    (
        "tree content",
        Guest("echo by hand > /srv/app/sub/page"),
        Drift(&["tree:/srv/app.sub/page"]),
    ),
    (
        "tree mode",
        Guest("chmod 0644 /srv/app/start"),
        Drift(&["tree:/srv/app.start"]),
    ),
    (
        "tree owner",
        Guest("chown 5:5 /srv/app/start"),
        Drift(&["tree:/srv/app.start"]),
    ),
    (
        "tree, removed",
        Guest("rm /srv/kept/start"),
        Drift(&["tree:/srv/kept.start"]),
    ),
    (
        "tree link",
        Guest("ln -sfn /etc /srv/app/link"),
        Drift(&["tree:/srv/app.link"]),
    ),
    (
        "tree folder",
        Guest("rm -r /srv/app/sub; ln -s /etc /srv/app/sub"),
        Drift(&["tree:/srv/app.sub", "tree:/srv/app.sub/page"]),
    ),
    (
        "tree, its own folder",
        Guest("rm -r /srv/kept; ln -s /etc /srv/kept"),
        Drift(&[
            "tree:/srv/kept",
            "tree:/srv/kept.link",
            "tree:/srv/kept.start",
            "tree:/srv/kept.sub",
            "tree:/srv/kept.sub/page",
        ]),
    ),
    (
        "tree delete",
        Guest("echo x > /srv/app/extra"),
        Drift(&["tree:/srv/app.extra"]),
    ),
    (
        "tree delete, a folder",
        Guest("mkdir -p /srv/app/more/deep"),
        Drift(&["tree:/srv/app.more", "tree:/srv/app.more/deep"]),
    ),
    ("tree exclude", Guest("echo x > /srv/app/x.log"), Nothing),
    ("tree without delete", Guest("echo x > /srv/kept/extra"), Nothing),
    (
        "run",
        Record(r#""second":{"digest":""#, r#""second":{"digest":"0"#),
        Pending(&["run:second.digest"]),
    ),
    (
        "run, the first of two",
        Record(r#""first":{"digest":""#, r#""first":{"digest":"0"#),
        Pending(&["run:first.digest"]),
    ),
    (
        "the record of a file",
        Record(r#""mode":"0640""#, r#""mode":"0600""#),
        Nothing,
    ),
    (
        "the first apply's mark",
        Client(&["config", "unset", "ONE", "user.sbx-apply.complete"]),
        Nothing,
    ),
];

/// Fields that the language has and this backend does not carry out: refused when they are planned.
const REFUSED: [&str; 4] = ["egress", "mount", "volume", "port"];

struct World {
    daemon: Daemon,
    environment: String,
    spec: String,
    /// Kept as long as the world is.
    _folder: tempfile::TempDir,
    backend: std::sync::Arc<dyn Sandboxes>,
}

impl World {
    async fn new(daemon: Daemon) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let app = folder.path().join("app");
        std::fs::create_dir_all(app.join("sub")).expect("makes");
        std::fs::write(app.join("sub/page"), "page\n").expect("writes");
        std::fs::write(app.join("start"), "#!/bin/sh\n").expect("writes");
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(app.join("start"), executable).expect("sets");
        std::os::unix::fs::symlink("start", app.join("link")).expect("links");
        let environment = format!("hand-{}", std::process::id());
        let path = folder.path().join("sbx.kdl");
        std::fs::write(&path, SPEC.replace("ENVIRONMENT", &environment)).expect("writes");
        Self {
            backend: daemon::open(&daemon).await.expect("opens"),
            spec: path.display().to_string(),
            daemon,
            environment,
            _folder: folder,
        }
    }

    async fn run(&self, arguments: &[&str], code: u8) -> Run {
        let socket = self.daemon.socket.display().to_string();
        let words = [&arguments[..1], &[&self.spec], &arguments[1..], &["--socket", &socket]].concat();
        let run = real_program(&words, &[]).await;
        assert_eq!(run.code, code, "{arguments:?}\n{}\n{}", run.stdout, run.stderr);
        run
    }

    fn desired(&self) -> Desired {
        load(&Request::file(Path::new(&self.spec))).expect("a spec").desired
    }

    fn incus(&self, arguments: &[&str]) -> String {
        let name = |word: &&str| match *word {
            "ONE" => format!("{}-one", self.environment),
            "OFF" => format!("{}-off", self.environment),
            word => word.to_owned(),
        };
        let output = Command::new("incus")
            .args(arguments.iter().map(name))
            .env("INCUS_SOCKET", &self.daemon.socket)
            .stdin(std::process::Stdio::null())
            .output()
            .expect("the incus client is installed with the daemon");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "incus {arguments:?}: {error}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn does(&self, hand: Hand) {
        match hand {
            Guest(script) => drop(self.incus(&["exec", "ONE", "-T", "--", "sh", "-ec", script])),
            Client(arguments) => drop(self.incus(arguments)),
            Record(from, to) => {
                let key = "user.sbx-apply.applied";
                let record = self.incus(&["config", "get", "ONE", key]);
                let edited = record.trim_end().replacen(from, to, 1);
                assert_ne!(edited, record.trim_end(), "{record}");
                self.incus(&["config", "set", "ONE", &format!("{key}={edited}")]);
            }
        }
    }

    /// All that a plan is made from, without what a new snapshot may have otherwise.
    async fn live(&self) -> Live {
        let desired = self.desired();
        let selected = desired.sandboxes.keys().cloned().collect();
        let mut live = observe(&*self.backend, &desired, &selected).await.expect("observes");
        for kept in live.instances.values_mut().flat_map(|live| live.snapshots.values_mut()) {
            (kept.snapshot.size, kept.snapshot.created_at) = (None, None);
        }
        live
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Also after a failed assertion: the daemon is shared.
        for name in ["one", "off"] {
            let _ = Command::new("incus")
                .args(["delete", "--force", &format!("{}-{name}", self.environment)])
                .env("INCUS_SOCKET", &self.daemon.socket)
                .output();
        }
    }
}

/// The fields that a check names, with their origins, ordered.
fn named(run: &Run) -> Vec<(String, String)> {
    let document: Value = serde_json::from_str(&run.stdout).expect("JSON");
    let changes = document["changes"].as_array().expect("changes");
    let fields = changes
        .iter()
        .flat_map(|change| change["fields"].as_array().expect("fields"));
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let mut named: Vec<_> = fields
        .map(|field| (text(&field["path"]), text(&field["origin"])))
        .collect();
    named.sort();
    named
}

#[tokio::test(flavor = "multi_thread")]
async fn every_field_that_a_hand_changes_is_named_and_repaired_alone() {
    let Some(daemon) = daemon::find() else { return };
    let world = World::new(daemon).await;
    world.run(&["apply", "-q"], 0).await;
    let mut table = String::new();
    for (field, hand, comes) in CASES {
        let before = world.live().await;
        world.does(*hand);
        let (code, expected): (u8, Vec<_>) = match comes {
            Drift(fields) => (
                3,
                fields
                    .iter()
                    .map(|field| ((*field).to_owned(), "drift".to_owned()))
                    .collect(),
            ),
            Pending(fields) => (
                2,
                fields
                    .iter()
                    .map(|field| ((*field).to_owned(), "pending".to_owned()))
                    .collect(),
            ),
            Nothing => (0, Vec::new()),
            Error(_) => (1, vec![("disk".to_owned(), "drift".to_owned())]),
        };
        let check = world.run(&["check", "--json"], code).await;
        assert_eq!(named(&check), expected, "{field}: {hand:?}");
        let repaired = match comes {
            Drift(_) | Pending(_) => {
                let apply = world.run(&["apply", "-q"], 0).await;
                assert_eq!(world.live().await, before, "{field}: {}", apply.stdout);
                "repaired, nothing else touched"
            }
            Error(said) => {
                assert!(check.stderr.contains(said), "{field}: {}", check.stderr);
                world.incus(&["config", "device", "set", "ONE", "root", "size=1GiB"]);
                "an error says why it stays"
            }
            Nothing => {
                // Records and marks are put right in silence; what is somebody else's stays.
                let edited = world.live().await;
                world.run(&["apply", "-q"], 0).await;
                let after = world.live().await;
                assert!(after == edited || after == before, "{field}");
                "not ours, left alone"
            }
        };
        let _ = writeln!(table, "  {field:<24} exit {code}  {repaired}");
        assert_eq!(named(&world.run(&["check", "--json"], 0).await), []);
    }
    let drifts = CASES.iter().filter(|(_, _, comes)| matches!(comes, Drift(_))).count();
    let text = format!(
        "hand edits: {} cases, {drifts} drifts found and repaired\n{table}  not carried out here: {}\n",
        CASES.len(),
        REFUSED.join(", ")
    );
    let _ = std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes());
}

#[test]
fn no_case_is_there_twice() {
    let names: BTreeSet<&str> = CASES.iter().map(|(name, _, _)| *name).collect();
    assert_eq!(names.len(), CASES.len());
}
