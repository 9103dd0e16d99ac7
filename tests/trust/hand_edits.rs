//! For every field of the language that a backend carries out: what somebody changes by hand (with the daemon's own
//! client; in the files that keep local sandboxes) shows as drift of just that field, and an apply repairs just that.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use rustix::process::{Pid, Signal, kill_process};
use sbx_apply::apply::observe;
use sbx_apply::backend::Sandboxes;
use sbx_apply::model::{Desired, InstanceName, Live, Status};
use sbx_apply::spec::{Request, load};
use serde_json::Value;

use crate::conformance::fixture::shell;
use crate::support::daemon::{Daemon, skipped, tell};
use crate::support::place::{Place, on_both};
use crate::support::program::{Run, real_program};

const SPEC: &str = r#"
environment "ENVIRONMENT"
backend "BACKEND"
sandbox "one" {
    image "IMAGE"
    cpu 1; memory "256MiB"; DISK
    env KEPT="1" OTHER="2"
    config { limits.processes "500"; user.note "kept"; }
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
sandbox "off" { image "IMAGE"; state "stopped"; }
"#;

/// What a hand does.
#[derive(Debug, Clone, Copy)]
enum Hand {
    /// A command for the guest's shell, as root.
    Guest(&'static str),
    /// Arguments of the Incus client; `ONE` and `OFF` stand for the instances. What they mean is done to the files of
    /// local sandboxes, too.
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
        Client(&["config", "unset", "ONE", "user.note"]),
        Drift(&["config:user.note"]),
    ),
    (
        "config, another's",
        Client(&["config", "set", "ONE", "user.theirs=1"]),
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
    (
        "tree delete, odd names",
        Guest("cd /srv/app; printf x > \"$(printf 'e\\033[2Jv\\377')\"; ln -s /etc \"$(printf 'l\\nk')\""),
        Drift(&["tree:/srv/app.e\u{fffd}[2Jv\u{fffd}", "tree:/srv/app.l\u{fffd}k"]),
    ),
    (
        "tree delete, odd names that are told as one",
        Guest("cd /srv/app; for n in 1 2; do d=$(printf \"d\\00$n\"); mkdir \"$d\"; echo x > \"$d/x\"; done"),
        Drift(&["tree:/srv/app.d\u{fffd}", "tree:/srv/app.d\u{fffd}/x"]),
    ),
    (
        "tree exclude, in a folder of an odd name",
        Guest("cd /srv/app; d=$(printf 'caf\\351'); mkdir \"$d\"; echo x > \"$d/x.log\""),
        Nothing,
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

/// Fields whose hand edits are tried beside what else is tried of them, in `egress` and `workspace`.
const ELSEWHERE: [&str; 4] = ["egress", "mount", "volume", "port"];

/// What local sandboxes do not have.
const NOT_LOCAL: [&str; 4] = ["disk, unset", "disk, smaller", "disk, larger", "state, frozen"];

on_both! {
    every_field_that_a_hand_changes_is_named_and_repaired_alone,
}

struct World {
    place: Place,
    environment: String,
    spec: String,
    /// Kept as long as the world is.
    _folder: tempfile::TempDir,
    backend: Arc<dyn Sandboxes>,
}

impl World {
    async fn new(place: Place) -> Self {
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
        let disk = match place {
            Place::Incus(_) => "disk \"1GiB\"",
            Place::Local(_) => "",
        };
        let spec = SPEC
            .replace("ENVIRONMENT", &environment)
            .replace("BACKEND", place.name())
            .replace("IMAGE", place.image())
            .replace("DISK", disk);
        std::fs::write(&path, spec).expect("writes");
        Self {
            backend: place.open().await,
            spec: path.display().to_string(),
            place,
            environment,
            _folder: folder,
        }
    }

    async fn run(&self, arguments: &[&str], code: u8) -> Run {
        let words = [&arguments[..1], &[&self.spec], &arguments[1..]].concat();
        let run = match &self.place {
            Place::Incus(daemon) => {
                let socket = daemon.socket.display().to_string();
                real_program(&[&words[..], &["--socket", &socket]].concat(), &[]).await
            }
            Place::Local(_) => self.place.run(&words),
        };
        assert_eq!(run.code, code, "{arguments:?}\n{}\n{}", run.stdout, run.stderr);
        run
    }

    fn desired(&self) -> Desired {
        load(&Request::file(Path::new(&self.spec))).expect("a spec").desired
    }

    fn instance(&self, word: &str) -> InstanceName {
        InstanceName::observed(format!("{}-{}", self.environment, word.to_lowercase()))
    }

    fn incus(&self, daemon: &Daemon, arguments: &[&str]) -> String {
        let name = |word: &&str| match *word {
            "ONE" | "OFF" => self.instance(word).to_string(),
            word => word.to_owned(),
        };
        let output = Command::new("incus")
            .args(arguments.iter().map(name))
            .env("INCUS_SOCKET", &daemon.socket)
            .stdin(std::process::Stdio::null())
            .output()
            .expect("the incus client is installed with the daemon");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "incus {arguments:?}: {error}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    async fn does(&self, hand: Hand) {
        let folder = match &self.place {
            Place::Incus(daemon) => return self.does_on_incus(daemon, hand),
            Place::Local(folder) => folder,
        };
        let sandbox = |word: &str| folder.state().join("sandboxes").join(self.instance(word).as_str());
        match hand {
            Guest(script) => {
                let output = self
                    .backend
                    .output(&self.instance("ONE"), &shell(script))
                    .await
                    .expect("runs");
                assert_eq!(output.code, 0, "{script}: {}", String::from_utf8_lossy(&output.stderr));
            }
            Client(["config", "set", word, pair]) => {
                let (key, value) = pair.split_once('=').expect("a pair");
                set(&sandbox(word), key, Some(value));
            }
            Client(["config", "unset", word, key]) => set(&sandbox(word), key, None),
            Client(["stop", "--force", word]) => {
                let run = read(&sandbox(word).join("run.json"));
                let pid = run["pid"]
                    .as_i64()
                    .and_then(|pid| i32::try_from(pid).ok())
                    .and_then(Pid::from_raw);
                kill_process(pid.expect("a number"), Signal::KILL).expect("runs");
                // Only its parent, this machine's first process, can wait for it.
                while self.backend.get(&self.instance(word)).await.expect("is there").status == Status::Running {
                    tokio::time::sleep(std::time::Duration::from_millis(2)).await;
                }
            }
            Client(["start", word]) => self.backend.start(&self.instance(word)).await.expect("starts"),
            Client(["snapshot", "delete", word, label]) => {
                let deleted = self.backend.delete_snapshot(&self.instance(word), label).await;
                deleted.expect("deletes");
            }
            Client(["snapshot", "create", word, label]) => {
                let taken = self.backend.create_snapshot(&self.instance(word), label).await;
                taken.expect("takes");
            }
            Client(other) => panic!("nobody has said what {other:?} means here"),
            Record(from, to) => {
                let mut record = read(&sandbox("ONE").join("record.json"));
                let applied = &mut record["labels"]["applied"];
                *applied = edited(applied.as_str().expect("a text"), from, to).into();
                write(&sandbox("ONE").join("record.json"), &record);
            }
        }
    }

    fn does_on_incus(&self, daemon: &Daemon, hand: Hand) {
        match hand {
            Guest(script) => drop(self.incus(daemon, &["exec", "ONE", "-T", "--", "sh", "-ec", script])),
            Client(arguments) => drop(self.incus(daemon, arguments)),
            Record(from, to) => {
                let record = self.incus(daemon, &["config", "get", "ONE", APPLIED]);
                let edited = edited(record.trim_end(), from, to);
                self.incus(daemon, &["config", "set", "ONE", &format!("{APPLIED}={edited}")]);
            }
        }
    }

    /// All that a plan is made from, without what a new snapshot may have otherwise.
    async fn live(&self) -> Live {
        let desired = self.desired();
        let selected = desired.sandboxes.keys().cloned().collect();
        let mut live = observe(&*self.backend, &desired, &selected).await.expect("observes");
        // Those of other environments come and go meanwhile.
        live.spec_records
            .retain(|environment, _| *environment == desired.environment);
        live.host_mounts.retain(|name, _| live.instances.contains_key(name));
        for kept in live.instances.values_mut().flat_map(|live| live.snapshots.values_mut()) {
            (kept.snapshot.size, kept.snapshot.created_at) = (None, None);
        }
        live
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Also after a failed assertion: a daemon is shared, and what runs goes on.
        let environment = ["--environment", &self.environment, "--backend", self.place.name()];
        let text = std::fs::read_to_string(&self.spec).expect("reads");
        std::fs::write(&self.spec, text.replace("protect true", "protect false")).expect("writes");
        self.place.run(&["apply", &self.spec, "-q"]);
        self.place
            .run(&[&["destroy"], &environment[..], &["--allow-data-loss"]].concat());
    }
}

/// The label with the last-applied record, as Incus calls it.
const APPLIED: &str = "user.sbx-apply.applied";

fn edited(record: &str, from: &str, to: &str) -> String {
    let edited = record.replacen(from, to, 1);
    assert_ne!(edited, record);
    edited
}

fn read(file: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(file).expect("reads")).expect("JSON")
}

fn write(file: &Path, value: &Value) {
    std::fs::write(file, value.to_string()).expect("writes");
}

/// Changes what is kept of a local sandbox, by the name that Incus has for it.
fn set(sandbox: &Path, key: &str, value: Option<&str>) {
    let file = sandbox.join("record.json");
    let mut record = read(&file);
    let (place, key, value) = match key {
        "limits.cpu" => (
            &mut record,
            "cpu",
            value.map(|value| value.parse::<u32>().expect("a number").into()),
        ),
        "limits.memory" => (&mut record, "memory", value.map(Value::from)),
        key => match key.strip_prefix("environment.") {
            Some(name) => (&mut record["env"], name, value.map(Value::from)),
            None => match key.strip_prefix("user.sbx-apply.") {
                Some(label) => (&mut record["labels"], label, value.map(Value::from)),
                None => (&mut record["config"], key, value.map(Value::from)),
            },
        },
    };
    let place = place.as_object_mut().expect("an object");
    match value {
        Some(value) => place.insert(key.to_owned(), value),
        None => place.remove(key),
    };
    write(&file, &record);
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

async fn every_field_that_a_hand_changes_is_named_and_repaired_alone(place: Place) {
    let is_local = matches!(place, Place::Local(_));
    if is_local && !rustix::process::geteuid().is_root() {
        skipped("hand edits of local sandboxes: limits and owners are root's alone here");
        return;
    }
    let world = World::new(place).await;
    world.run(&["apply", "-q"], 0).await;
    let mut table = String::new();
    for (field, hand, comes) in CASES {
        if is_local && NOT_LOCAL.contains(field) {
            continue;
        }
        let before = world.live().await;
        world.does(*hand).await;
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
                world
                    .does(Client(&["config", "device", "set", "ONE", "root", "size=1GiB"]))
                    .await;
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
    tell(&format!(
        "hand edits on {}: {} cases\n{table}  elsewhere: {}",
        world.place.name(),
        table.lines().count(),
        ELSEWHERE.join(", ")
    ));
}

#[test]
fn no_case_is_there_twice() {
    let names: BTreeSet<&str> = CASES.iter().map(|(name, _, _)| *name).collect();
    assert_eq!(names.len(), CASES.len());
}
