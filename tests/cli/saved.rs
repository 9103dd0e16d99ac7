//! Plans in files: exactly what was looked at is done, or nothing is, and what moved is named.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use sbx_apply::backend::memory::{Machine, Memory};
use sbx_apply::model::Status;
use sbx_apply::view::json;
use serde_json::Value;

use crate::support::program::{NOW, Run, program, program_at};

const SPEC: &str = r#"
environment "demo"
variable "cpus" default="1"
include "more.kdl"
sandbox "base" {
    image "debian/12"
    cpu "${cpus}"
    file "/etc/tool" source="tool"
    file "/etc/inline" content="not to be kept"
    tree "/srv/app" source="app" delete=true { exclude "*.log"; }
    run "go" command="echo ran >> /etc/ran"
    state "stopped"
    snapshot "ready"
}
"#;

const MORE: &str = r#"
sandbox "task" count=2 { clone-from "base" snapshot="ready"; file "/etc/task" content="task"; }
"#;

/// A folder with a spec and its sources, and a backend.
struct World {
    folder: tempfile::TempDir,
    memory: Memory,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let world = Self {
            folder,
            memory: Memory::new(),
        };
        world.write("sbx.kdl", SPEC);
        world.write("more.kdl", MORE);
        world.write("tool", "#!/bin/sh\n");
        world.write("app/start", "start\n");
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("makes");
        fs::write(path, text).expect("writes");
    }

    async fn run(&self, arguments: &[&str], code: u8) -> Run {
        self.run_at(arguments, NOW, code).await
    }

    /// Words that start with `@` are files of the folder.
    async fn run_at(&self, arguments: &[&str], now: u64, code: u8) -> Run {
        let words: Vec<String> = arguments
            .iter()
            .map(|word| match word.strip_prefix('@') {
                Some(name) => self.path(name).display().to_string(),
                None => (*word).to_owned(),
            })
            .collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let run = program_at(&self.memory, &words, now).await;
        assert_eq!(run.code, code, "{arguments:?}\n{}\n{}", run.stdout, run.stderr);
        run
    }

    async fn plan(&self, more: &[&str]) {
        let words = [&["plan", "@sbx.kdl", "--out", "@plan.json"], more].concat();
        self.run(&words, 0).await;
    }

    fn document(&self) -> Value {
        serde_json::from_str(&fs::read_to_string(self.path("plan.json")).expect("a plan")).expect("JSON")
    }

    /// Applies the kept plan, which must be refused before anything is written. Gives what was said.
    async fn refused(&self, code: u8) -> String {
        let journal = self.memory.journal();
        let run = self.run(&["apply", "@plan.json", "--allow-data-loss"], code).await;
        assert_eq!(self.memory.journal(), journal, "{}", run.stderr);
        run.stderr
    }

    fn edit(&self, name: &str, change: impl FnOnce(&mut Machine)) {
        let edited = self.memory.edit(name, |machine| {
            change(machine);
            Ok(())
        });
        edited.expect("there is such an instance");
    }
}

#[tokio::test]
async fn a_kept_plan_is_applied_once() {
    let world = World::new();
    let planned = world.run(&["plan", "@sbx.kdl", "--out", "@plan.json"], 0).await;
    assert!(planned.stderr.contains("does exactly this"), "{}", planned.stderr);
    let mode = fs::metadata(world.path("plan.json"))
        .expect("is there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let text = fs::read_to_string(world.path("plan.json")).expect("text");
    for content in ["not to be kept", "#!/bin/sh", "start\\n", "echo ran"] {
        assert!(!text.contains(content), "no contents are kept: {content}");
    }
    let inputs = &world.document()["saved"]["inputs"];
    for name in ["sbx.kdl", "more.kdl", "tool", "app"] {
        let named = |input: &Value| {
            input["path"]
                .as_str()
                .is_some_and(|path| Path::new(path).ends_with(name))
        };
        assert!(inputs.as_array().expect("inputs").iter().any(named), "{name}: {inputs}");
    }
    let applied = world.run(&["apply", "@plan.json"], 0).await;
    let shown = |run: &Run| run.stdout.lines().next().map(str::to_owned);
    assert_eq!(shown(&planned), shown(&applied));
    world.run(&["check", "@sbx.kdl"], 0).await;
    let said = world.refused(4).await;
    assert!(
        said.contains("base: it was not there") && said.contains("task-2: it was not there"),
        "{said}"
    );
}

#[tokio::test]
async fn a_plan_without_changes_is_applied_too() {
    let world = World::new();
    world.run(&["apply", "@sbx.kdl"], 0).await;
    world.plan(&[]).await;
    let _ = world.memory.take_journal();
    world.run(&["apply", "@plan.json"], 0).await;
    assert_eq!(world.memory.journal(), Vec::<String>::new());
}

#[tokio::test]
async fn whatever_has_moved_is_named_and_nothing_is_done() {
    type Move = fn(&World);
    let moves: [(&str, Move, &str); 16] = [
        (
            "the spec",
            |w| w.write("sbx.kdl", &SPEC.replace("echo ran", "echo run")),
            "sbx.kdl has changed",
        ),
        (
            "an include",
            |w| w.write("more.kdl", &format!("{MORE}\n")),
            "more.kdl has changed",
        ),
        (
            "a spec that is none any more",
            |w| w.write("sbx.kdl", "sandbox {"),
            "sbx.kdl has changed",
        ),
        ("a source", |w| w.write("tool", "other"), "tool has changed"),
        (
            "a source that is gone",
            |w| fs::remove_file(w.path("tool")).expect("removes"),
            "\"tool\" does not exist",
        ),
        ("a file in a folder", |w| w.write("app/more", "more"), "app has changed"),
        (
            "a limit",
            |w| w.edit("demo-base", |m| m.cpu = Some("7".to_owned())),
            "base: cpu has changed",
        ),
        (
            "a file's content",
            |w| w.edit("demo-task-1", |m| m.write("/etc/task", "by hand").expect("writes")),
            "task-1: file:/etc/task.content has changed",
        ),
        (
            "power",
            |w| w.edit("demo-task-2", |m| m.status = Status::Stopped),
            "task-2: power has changed",
        ),
        (
            "a snapshot",
            |w| w.edit("demo-base", |m| drop(m.snapshots.remove("ready"))),
            "base: snapshot:ready.exists is gone",
        ),
        (
            "an instance",
            |w| w.memory.delete_by_hand("demo-task-1").expect("deletes"),
            "task-1: it is gone",
        ),
        (
            "a tree's entry",
            |w| w.edit("demo-base", |m| m.remove("/srv/app/start").expect("removes")),
            "base: tree:/srv/app.start is gone",
        ),
        (
            "what lies beside a tree's entries",
            |w| w.edit("demo-base", |m| m.write("/srv/app/extra", "x").expect("writes")),
            "base: tree /srv/app",
        ),
        (
            "what was written down",
            |w| w.edit("demo-base", |m| drop(m.labels.0.remove("complete"))),
            "base: its record of the last apply has changed",
        ),
        (
            "another that is ours",
            |w| {
                w.memory.copy_by_hand("demo-task-1", "demo-task-3").expect("copies");
                w.edit("demo-task-3", |m| {
                    m.labels.0.insert("instance".to_owned(), "demo-task-3".to_owned());
                    m.labels.0.insert("sandbox".to_owned(), "task-3".to_owned());
                });
            },
            "task-3: it was not there",
        ),
        (
            "somebody who took a name",
            |w| w.edit("demo-task-2", |m| m.labels.0.clear()),
            "task-2: it is gone",
        ),
    ];
    for (what, make, said) in moves {
        let world = World::new();
        world.run(&["apply", "@sbx.kdl"], 0).await;
        world.edit("demo-base", |machine| machine.env.clear());
        world.write("more.kdl", &MORE.replace("content=\"task\"", "content=\"next\""));
        world.plan(&[]).await;
        make(&world);
        let told = world.refused(4).await;
        assert!(told.contains(said), "{what}: {told}");
        assert!(told.contains("the plan no longer fits; nothing was done"), "{told}");
    }
}

#[tokio::test]
async fn what_changes_with_time_alone_is_noticed() {
    let world = World::new();
    let ignoring = SPEC.replace("cpu ", "ignore \"cpu\" until=\"2027-01-15\"; cpu ");
    world.write("sbx.kdl", &ignoring);
    world.run(&["apply", "@sbx.kdl"], 0).await;
    world.edit("demo-base", |machine| machine.cpu = Some("5".to_owned()));
    world.plan(&[]).await;
    let late = world.run_at(&["apply", "@plan.json"], NOW + 86_400, 4).await;
    assert!(late.stderr.contains("base: sandbox\n"), "{}", late.stderr);
    world.run(&["apply", "@plan.json"], 0).await;
}

#[tokio::test]
async fn what_is_no_whole_plan_of_this_version_is_an_error() {
    let world = World::new();
    world.plan(&[]).await;
    let good = fs::read_to_string(world.path("plan.json")).expect("a plan");
    let printed = world.run(&["plan", "@sbx.kdl", "--json"], 0).await.stdout;
    let version = format!("\"version\": \"{}\"", env!("CARGO_PKG_VERSION"));
    for (text, said) in [
        (
            good.replace("create from image debian/12", "create from image evil/12"),
            "edited or damaged",
        ),
        (good.replace("\"prune\": false", "\"prune\": true"), "edited or damaged"),
        (
            good.replace(&version, "\"version\": \"99.0.0\""),
            "was made by version 99.0.0",
        ),
        (
            good.replacen("\"format_version\": \"1\"", "\"format_version\": \"2\"", 1),
            "format version \"2\"",
        ),
        (good[..good.len() / 2].to_owned(), "is no kept plan"),
        (printed, "it does not say what it was made from"),
        ("[]".to_owned(), "it does not say what it was made from"),
        (String::new(), "is no kept plan"),
    ] {
        assert_ne!(text, good);
        world.write("plan.json", &text);
        let told = world.refused(1).await;
        assert!(told.contains(said), "{said}: {told}");
    }
    // Whoever seals what he wrote does not get further: nothing that is done comes from the file.
    let mut forged: Value = serde_json::from_str(&good).expect("JSON");
    forged["steps"][0]["title"] = "create from image evil/12".into();
    forged["saved"]["digest"] = "".into();
    let digest = sbx_apply::model::Digest::of(forged.to_string().as_bytes());
    forged["saved"]["digest"] = digest.as_str().into();
    world.write("plan.json", &forged.to_string());
    let told = world.refused(4).await;
    assert!(told.contains("the steps of the plan"), "{told}");
}

#[tokio::test]
async fn how_it_was_made_is_how_it_is_applied() {
    let world = World::new();
    world
        .plan(&["--var", "cpus=3", "--environment", "other", "--target", "base"])
        .await;
    for contradiction in [
        &["--prune"][..],
        &["--target", "task"],
        &["--var", "cpus=2"],
        &["--environment", "demo"],
        &["--backend", "incus"],
        &["--ignore", "base/cpu"],
        &["--pool", "p"],
    ] {
        let words = [&["apply", "@plan.json"], contradiction].concat();
        let told = world.run(&words, 1).await.stderr;
        assert!(
            told.contains("is not what this plan was made with"),
            "{contradiction:?}: {told}"
        );
    }
    world
        .run(&["apply", "@plan.json", "--target", "base", "--var", "cpus=3"], 0)
        .await;
    assert_eq!(world.memory.names(), ["other-base"]);
    assert_eq!(
        world.memory.machine("other-base").expect("is there").cpu.as_deref(),
        Some("3")
    );
    // What is pruned when it was made with that, is.
    world.run(&["apply", "@sbx.kdl"], 0).await;
    world.write(
        "more.kdl",
        "sandbox \"task\" count=1 { clone-from \"base\" snapshot=\"ready\"; }",
    );
    world.plan(&["--prune"]).await;
    world.run(&["apply", "@plan.json"], 0).await;
    assert_eq!(world.memory.names(), ["demo-base", "demo-task-1", "other-base"]);
}

#[tokio::test]
async fn consent_is_asked_for_as_ever() {
    let world = World::new();
    world.run(&["apply", "@sbx.kdl"], 0).await;
    world.write("sbx.kdl", &SPEC.replace("debian/12", "debian/13"));
    world.plan(&[]).await;
    let told = world.run(&["apply", "@plan.json", "--yes"], 4).await.stderr;
    assert!(told.contains("--allow-data-loss"), "{told}");
}

#[tokio::test]
async fn only_an_older_plan_is_written_over() {
    let world = World::new();
    world.plan(&[]).await;
    world.plan(&["--prune"]).await;
    assert_eq!(world.document()["saved"]["options"]["prune"], true);
    world.write("other.json", "{\"mine\": true}");
    fs::create_dir(world.path("folder.json")).expect("makes");
    for (out, said) in [
        ("@other.json", "is no kept plan"),
        ("@folder.json", "is no kept plan"),
        ("@plan.txt", "does not end in .json"),
    ] {
        let told = world.run(&["plan", "@sbx.kdl", "--out", out], 1).await.stderr;
        assert!(told.contains(said), "{out}: {told}");
    }
    assert_eq!(
        fs::read_to_string(world.path("other.json")).expect("text"),
        "{\"mine\": true}"
    );
    world.run(&["plan", "-", "--out", "@new.json"], 1).await;
    assert!(!world.path("new.json").exists());
    // What cannot be applied is not kept.
    world.memory.make_foreign("demo-base").expect("is free");
    world.run(&["plan", "@sbx.kdl", "--out", "@new.json"], 4).await;
    assert!(!world.path("new.json").exists());
}

#[tokio::test]
async fn documents_are_as_the_schema_says() {
    let world = World::new();
    let schema = jsonschema::validator_for(&json::plan_schema()).expect("a schema");
    world
        .plan(&["--var", "cpus=2", "--ignore", "base/cpu", "--target", "base"])
        .await;
    let kept = world.document();
    assert!(schema.is_valid(&kept), "{:?}", schema.iter_errors(&kept).next());
    let run = program(
        &world.memory,
        &["check", &world.path("sbx.kdl").display().to_string(), "--json"],
    )
    .await;
    let check: Value = serde_json::from_str(&run.stdout).expect("JSON");
    assert!(schema.is_valid(&check), "{:?}", schema.iter_errors(&check).next());
    assert_eq!((run.code, &check["probes"]), (2, &Value::Array(Vec::new())));
    assert!(check.get("saved").is_none());
}
