//! Commands that work inside one sandbox, with the simulated backend: which sandbox, what passes through, how they
//! end.

use sbx_apply::backend::memory::Memory;
use sbx_apply::backend::{ExecOpts, Output};
use sbx_apply::model::{Capabilities, Status};
use serde_json::Value;

use crate::support::program::{NOW, Run, hold, program, program_reading};

const SPEC: &str = "environment \"demo\"\n\
    sandbox \"base\" { image \"debian/12\"; state \"stopped\"; file \"/etc/made\" content=\"made\"; snapshot \"ready\"; }\n\
    sandbox \"task\" count=2 { clone-from \"base\" snapshot=\"ready\"; user \"dev\" uid=1500; env A=\"spec\"; }\n\
    sandbox \"safe\" { image \"debian/12\"; protect true; run \"go\" command=\"true\"; }\n";

struct Place {
    memory: Memory,
    folder: tempfile::TempDir,
}

impl Place {
    /// The spec, applied.
    async fn applied() -> Self {
        let place = Self::new(SPEC);
        place.ends(&["apply", "SPEC", "-q"], 0).await;
        let _ = place.memory.take_journal();
        place
    }

    fn new(text: &str) -> Self {
        let memory = Memory::new();
        memory.set_time(NOW - 100);
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("sbx.kdl"), text).expect("writes");
        Self { memory, folder }
    }

    async fn reads(&self, words: &[&str], variables: &[(&str, &str)], stdin: &[u8], code: u8) -> Run {
        let spec = self.folder.path().join("sbx.kdl").display().to_string();
        let given: Vec<&str> = words
            .iter()
            .map(|word| if *word == "SPEC" { &spec } else { *word })
            .collect();
        let run = program_reading(&self.memory, &given, variables, stdin).await;
        assert_eq!(run.code, code, "{words:?}\n{}\n{}", run.stdout, run.stderr);
        run
    }

    async fn ends(&self, words: &[&str], code: u8) -> Run {
        self.reads(words, &[], b"", code).await
    }
}

fn hook(_: &mut sbx_apply::backend::memory::Machine, opts: &ExecOpts) -> Option<Output> {
    (opts.command[0] == "tell").then(|| Output {
        code: opts.command[1].parse().expect("a code"),
        stdout: format!("{:?} {:?}\n", opts.account, opts.env).into_bytes(),
        stderr: b"\x1b[1mas it is\xff".to_vec(),
    })
}

#[tokio::test]
async fn codes_and_streams_pass_through() {
    let place = Place::applied().await;
    place.memory.on_exec(hook);
    for code in [0_u8, 1, 2, 4, 125, 137, 255] {
        let told = code.to_string();
        let run = place.ends(&["exec", "SPEC", "task-1", "--", "tell", &told], code).await;
        assert!(
            run.stdout.contains("name: \"dev\"") && run.stdout.contains("uid: 1500"),
            "{}",
            run.stdout
        );
        assert_eq!(
            run.stderr, "\u{1b}[1mas it is\u{fffd}",
            "nothing is stripped, and nothing added"
        );
    }
    let run = place
        .ends(&["exec", "SPEC", "task-1", "--root", "--", "tell", "0"], 0)
        .await;
    assert!(run.stdout.contains("name: \"root\""), "{}", run.stdout);
    let run = place.ends(&["exec", "SPEC", "safe", "--", "tell", "0"], 0).await;
    assert!(
        run.stdout.contains("name: \"root\""),
        "no user was declared: {}",
        run.stdout
    );
    let bytes: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
    let run = place
        .reads(&["exec", "SPEC", "task-2", "--", "sh", "-c", "cat"], &[], &bytes, 0)
        .await;
    assert!(run.bytes == bytes, "{} bytes", run.bytes.len());
}

#[tokio::test]
async fn variables_are_handed_on_by_name() {
    let place = Place::applied().await;
    place.memory.on_exec(hook);
    let words = [
        "exec", "SPEC", "task-1", "--env", "TOKEN", "--env", "B=x=y", "--", "tell", "0",
    ];
    let run = place
        .reads(&words, &[("TOKEN", "s3cret"), ("OTHER", "no")], b"", 0)
        .await;
    assert!(
        run.stdout.contains("{\"B\": \"x=y\", \"TOKEN\": \"s3cret\"}"),
        "{}",
        run.stdout
    );
    let run = place.ends(&words, 125).await;
    assert!(
        run.stderr.contains("--env TOKEN: the variable is not set here"),
        "{}",
        run.stderr
    );
    assert_eq!(run.stdout, "");
    place
        .ends(&["exec", "SPEC", "task-1", "--env", "=x", "--", "tell", "0"], 125)
        .await;
    let journal = place.memory.journal().join("\n");
    assert!(!journal.contains("s3cret"));
}

#[tokio::test]
async fn who_is_meant_is_told() {
    let place = Place::applied().await;
    place.memory.make_foreign("demo-other").expect("is free");
    place.memory.copy_by_hand("demo-safe", "demo-copy").expect("copies");
    let _ = place.memory.take_journal();
    for (sandbox, code, told) in [
        ("tusk-1", 125, "did you mean `task-1`?"),
        ("task", 125, "name one of task-1, task-2"),
        ("zzz", 125, "there are: base, task-1, task-2, safe"),
        ("NO", 125, "no sandbox is named `NO`"),
        ("base", 125, "`base` does not run: it is stopped"),
        (
            "other",
            4,
            "`demo-other` is an instance that this environment does not own",
        ),
        (
            "copy",
            4,
            "`demo-copy` is an instance that this environment does not own",
        ),
    ] {
        let run = place.ends(&["exec", "SPEC", sandbox, "--", "true"], code).await;
        assert!(run.stderr.contains(told), "{sandbox}: {}", run.stderr);
        let code = if code == 125 { 1 } else { code };
        if sandbox != "base" {
            for words in [
                &["file", "read", "SPEC", sandbox, "/etc/made"][..],
                &["file", "write", "SPEC", sandbox, "/etc/made"],
                &["file", "list", "SPEC", sandbox, "/etc"],
                &["file", "delete", "SPEC", sandbox, "/etc/made"],
                &["snapshot", "list", "SPEC", sandbox],
                &["snapshot", "create", "SPEC", sandbox, "new"],
                &["snapshot", "delete", "SPEC", sandbox, "ready", "--allow-data-loss"],
                &["snapshot", "restore", "SPEC", sandbox, "ready", "--allow-data-loss"],
            ] {
                let run = place.ends(words, code).await;
                assert!(run.stderr.contains(told), "{words:?}: {}", run.stderr);
            }
        }
    }
    assert_eq!(
        place.memory.journal(),
        Vec::<String>::new(),
        "nothing is done to anybody"
    );
    let run = place.ends(&["exec", "SPEC", "--", "true"], 125).await;
    assert!(run.stderr.contains("what is wanted here is SANDBOX"), "{}", run.stderr);
    // Options may stand between the words, and do not hide that there are too few or too many.
    place
        .ends(&["file", "list", "SPEC", "safe", "--recursive", "/etc"], 0)
        .await;
    for words in [
        &["file", "list", "SPEC", "--recursive", "safe", "/etc", "/root"][..],
        &["file", "list", "--recursive", "safe"],
    ] {
        let run = place.ends(words, 1).await;
        assert!(
            run.stderr.contains("what is wanted here is SANDBOX PATH"),
            "{}",
            run.stderr
        );
    }
    // Found by its labels, whatever the spec says now.
    place
        .ends(&["exec", "SPEC", "--environment", "demo", "safe", "--", "true"], 0)
        .await;
    let fewer: String = SPEC.lines().take(3).map(|line| format!("{line}\n")).collect();
    std::fs::write(place.folder.path().join("sbx.kdl"), fewer).expect("writes");
    place.ends(&["exec", "SPEC", "safe", "--", "true"], 0).await;
}

#[tokio::test]
async fn what_is_not_made_yet_is_told() {
    let place = Place::new(SPEC);
    let run = place.ends(&["exec", "SPEC", "task-1", "--", "true"], 125).await;
    assert!(
        run.stderr.contains("there is no such sandbox yet") && run.stderr.contains("sbx-apply apply"),
        "{}",
        run.stderr
    );
    let run = place.ends(&["console", "SPEC", "task-1"], 125).await;
    assert!(run.stderr.contains("a console needs a terminal"), "{}", run.stderr);
}

#[tokio::test]
async fn root_means_two_things() {
    let place = Place::applied().await;
    let folder = place.folder.path().display().to_string();
    place
        .ends(&["--root", &folder, "exec", "SPEC", "safe", "--root", "--", "true"], 0)
        .await;
    place.ends(&["plan", "SPEC", "--root", &folder], 0).await;
    place.ends(&["--root", &folder, "plan", "SPEC"], 0).await;
    place
        .ends(&["snapshot", "list", "SPEC", "safe", "--root", &folder], 0)
        .await;
    for words in [
        &["--root", "/nowhere", "exec", "SPEC", "safe", "--", "true"][..],
        &["exec", "--root", "SPEC", "safe", "--", "true"],
    ] {
        let code = if words[0] == "exec" { 0 } else { 125 };
        place.ends(words, code).await;
    }
    place.ends(&["plan", "SPEC", "--root", "/nowhere"], 1).await;
}

#[tokio::test]
async fn bytes_go_in_and_out() {
    let place = Place::applied().await;
    let bytes: Vec<u8> = (0..100_000_u32).map(|n| (n % 253) as u8).collect();
    place
        .reads(&["file", "write", "SPEC", "base", "/srv/new/bytes"], &[], &bytes, 0)
        .await;
    let run = place.ends(&["file", "read", "SPEC", "base", "/srv/new/bytes"], 0).await;
    assert!(run.bytes == bytes && run.stderr.is_empty(), "{}", run.stderr);
    let run = place
        .ends(
            &["file", "read", "SPEC", "base", "/srv/new/bytes", "--max-bytes", "10"],
            0,
        )
        .await;
    assert_eq!(run.bytes, bytes[..10]);
    assert_eq!(
        run.stderr,
        "Truncated: these are the first 10 bytes of `/srv/new/bytes`.\n"
    );
    let run = place
        .ends(
            &[
                "file",
                "read",
                "SPEC",
                "base",
                "/srv/new/bytes",
                "--max-bytes",
                "100000",
            ],
            0,
        )
        .await;
    assert!(run.bytes == bytes && run.stderr.is_empty(), "{}", run.stderr);
    for (path, told) in [
        ("/srv/new", "not a regular file"),
        ("/none", "no such file"),
        ("etc", "starts with `/`"),
    ] {
        let run = place.ends(&["file", "read", "SPEC", "base", path], 1).await;
        assert!(run.stderr.contains(told), "{path}: {}", run.stderr);
    }
}

#[tokio::test]
async fn a_file_keeps_its_mode_and_owner_and_a_new_one_gets_the_users() {
    let place = Place::applied().await;
    let listed = async |path: &str| {
        let run = place.ends(&["file", "list", "SPEC", "task-1", path, "--json"], 0).await;
        let listing: Value = serde_json::from_str(&run.stdout).expect("JSON");
        listing["entries"].clone()
    };
    let write = async |words: &[&str]| {
        let all = [&["file", "write", "SPEC", "task-1"], words].concat();
        place.reads(&all, &[], b"text", 0).await;
        place.memory.take_journal().join("\n")
    };
    let journal = write(&["/home/dev/notes"]).await;
    assert!(journal.contains("/home/dev/notes 0644 1500:1500"), "{journal}");
    let journal = write(&["/srv/notes"]).await;
    assert!(journal.contains("/srv/notes 0644 0:0"), "{journal}");
    let journal = write(&["/srv/tool", "--mode", "0750", "--owner", "7:8"]).await;
    assert!(journal.contains("/srv/tool 0750 7:8"), "{journal}");
    let journal = write(&["/srv/tool"]).await;
    assert!(journal.contains("/srv/tool 0750 7:8"), "{journal}");
    let journal = write(&["/srv/tool", "--owner", "9"]).await;
    assert!(journal.contains("/srv/tool 0750 9:9"), "{journal}");
    assert_eq!(listed("/srv").await[1]["mode"], "0750");
    for words in [
        &["/srv"][..],
        &["/srv/x", "--mode", "8"],
        &["/srv/x", "--owner", "dev"],
        &["/a/../b"],
    ] {
        let all = [&["file", "write", "SPEC", "task-1"], words].concat();
        place.reads(&all, &[], b"text", 1).await;
    }
    let spec = place
        .reads(&["file", "write", "-", "task-1", "/srv/x"], &[], b"text", 1)
        .await;
    assert!(
        spec.stderr.contains("cannot be the spec and the file's content"),
        "{}",
        spec.stderr
    );
}

#[tokio::test]
async fn folders_are_listed_and_deleted_with_a_flag() {
    let place = Place::applied().await;
    place
        .reads(&["file", "write", "SPEC", "base", "/srv/a/deep"], &[], b"12345", 0)
        .await;
    place
        .reads(&["file", "write", "SPEC", "base", "/srv/b"], &[], b"", 0)
        .await;
    let run = place
        .ends(&["file", "list", "SPEC", "base", "/srv/", "--recursive"], 0)
        .await;
    let expected = "\
MODE  SIZE  PATH
0755     -  /srv/a/
0644     5  /srv/a/deep
0644     0  /srv/b
";
    assert_eq!(run.stdout, expected);
    let run = place.ends(&["file", "list", "SPEC", "base", "/"], 0).await;
    assert!(run.stdout.contains("  /srv/\n"), "{}", run.stdout);
    let run = place.ends(&["file", "list", "SPEC", "base", "/srv", "--json"], 0).await;
    let listing: Value = serde_json::from_str(&run.stdout).expect("JSON");
    assert_eq!(listing["format_version"], "1");
    assert_eq!(listing["entries"][1]["size"], 0);
    let run = place.ends(&["file", "delete", "SPEC", "base", "/srv/a"], 1).await;
    assert!(run.stderr.contains("--recursive"), "{}", run.stderr);
    place
        .ends(&["file", "delete", "SPEC", "base", "/srv/a", "--recursive"], 0)
        .await;
    place.ends(&["file", "delete", "SPEC", "base", "/srv/b"], 0).await;
    let run = place.ends(&["file", "list", "SPEC", "base", "/srv"], 0).await;
    assert_eq!(run.stdout, "/srv is empty.\n");
    place.ends(&["file", "delete", "SPEC", "base", "/srv/b"], 1).await;
}

#[tokio::test]
async fn snapshots_are_listed_with_what_there_is_to_know() {
    let place = Place::applied().await;
    place.ends(&["snapshot", "create", "SPEC", "base", "more"], 0).await;
    place
        .memory
        .edit("demo-base", |machine| {
            let theirs = machine.snapshots["ready"].clone();
            machine.snapshots.insert("theirs".to_owned(), theirs);
            machine.snapshots.get_mut("theirs").expect("is there").labels = Default::default();
            Ok(())
        })
        .expect("edits");
    let run = place.ends(&["snapshot", "list", "SPEC", "base", "--json"], 0).await;
    let shown: Value = serde_json::from_str(&run.stdout).expect("JSON");
    let row = |label: &str| {
        let rows = shown["snapshots"].as_array().expect("a list");
        rows.iter().find(|row| row["label"] == label).expect("is there").clone()
    };
    assert_eq!(row("ready")["needed_by"], serde_json::json!(["task-1", "task-2"]));
    assert_eq!(
        (row("ready")["declared"].clone(), row("more")["declared"].clone()),
        (true.into(), false.into())
    );
    assert_eq!(
        (row("ready")["ours"].clone(), row("theirs")["ours"].clone()),
        (true.into(), false.into())
    );
    assert!(row("ready")["created_at"].is_u64());
    let run = place.ends(&["snapshot", "list", "SPEC", "base"], 0).await;
    assert!(
        run.stdout.contains("declared, cloned to task-1, task-2\n"),
        "{}",
        run.stdout
    );
    assert!(run.stdout.contains("not ours\n"), "{}", run.stdout);
    let run = place.ends(&["snapshot", "list", "SPEC", "task-1"], 0).await;
    assert_eq!(run.stdout, "task-1 has no snapshots.\n");
    let run = place
        .ends(
            &["snapshot", "delete", "SPEC", "base", "theirs", "--allow-data-loss"],
            4,
        )
        .await;
    assert!(run.stderr.contains("was not taken by this tool"), "{}", run.stderr);
}

#[tokio::test]
async fn deleting_what_others_were_cloned_from_needs_consent() {
    let place = Place::applied().await;
    place.ends(&["snapshot", "create", "SPEC", "base", "more"], 0).await;
    place.ends(&["snapshot", "delete", "SPEC", "base", "more"], 0).await;
    let _ = place.memory.take_journal();
    let run = place
        .ends(&["snapshot", "delete", "SPEC", "base", "ready", "--yes"], 4)
        .await;
    assert!(
        run.stderr.contains("is needed to make task-1, task-2 again"),
        "{}",
        run.stderr
    );
    assert_eq!(place.memory.journal(), Vec::<String>::new());
    let run = place
        .ends(&["snapshot", "delete", "SPEC", "base", "ready", "--allow-data-loss"], 0)
        .await;
    assert!(run.stderr.contains("the next apply takes it again"), "{}", run.stderr);
    let run = place.ends(&["snapshot", "delete", "SPEC", "base", "ready"], 1).await;
    assert!(run.stderr.contains("has no snapshot `ready`"), "{}", run.stderr);
}

#[tokio::test]
async fn restoring_loses_data_and_brings_the_record_back() {
    let place = Place::applied().await;
    place.ends(&["snapshot", "create", "SPEC", "task-1", "before"], 0).await;
    let run = place.ends(&["snapshot", "create", "SPEC", "task-1", "before"], 1).await;
    assert!(run.stderr.contains("has a snapshot `before` already"), "{}", run.stderr);
    // The spec moves on, and is applied.
    let more = SPEC.replace(
        "env A=",
        "run \"late\" command=\"true\"; file \"/etc/late\" content=\"x\"; env A=",
    );
    std::fs::write(place.folder.path().join("sbx.kdl"), more).expect("writes");
    place.ends(&["apply", "SPEC", "-q"], 0).await;
    place.ends(&["check", "SPEC"], 0).await;
    let _ = place.memory.take_journal();
    let run = place
        .ends(&["snapshot", "restore", "SPEC", "task-1", "before", "--yes"], 4)
        .await;
    assert!(run.stderr.contains("loses what is on its disk now"), "{}", run.stderr);
    assert_eq!(place.memory.journal(), Vec::<String>::new());
    place
        .ends(
            &["snapshot", "restore", "SPEC", "task-1", "before", "--allow-data-loss"],
            0,
        )
        .await;
    // What the disk lacks of the spec is pending, the step that has to run again included; and nothing is drift.
    let run = place.ends(&["check", "SPEC"], 2).await;
    assert!(
        run.stdout.contains("run late") && run.stdout.contains("file /etc/late"),
        "{}",
        run.stdout
    );
    place.ends(&["apply", "SPEC", "-q"], 0).await;
    place.ends(&["check", "SPEC"], 0).await;
}

#[tokio::test]
async fn what_is_protected_is_not_restored() {
    let place = Place::applied().await;
    place.ends(&["snapshot", "create", "SPEC", "safe", "one"], 0).await;
    let _ = place.memory.take_journal();
    let run = place
        .ends(&["snapshot", "restore", "SPEC", "safe", "one", "--allow-data-loss"], 4)
        .await;
    assert!(run.stderr.contains("`safe` is protected"), "{}", run.stderr);
    assert_eq!(place.memory.journal(), Vec::<String>::new());
    // By its label alone, when the spec no longer says so.
    let spec = SPEC.replace("protect true;", "");
    std::fs::write(place.folder.path().join("sbx.kdl"), spec).expect("writes");
    place
        .ends(&["snapshot", "restore", "SPEC", "safe", "one", "--allow-data-loss"], 4)
        .await;
}

#[tokio::test]
async fn a_backend_without_snapshots_says_so() {
    let mut place = Place::applied().await;
    let able = Capabilities {
        able: Default::default(),
        ..sbx_apply::backend::Observe::capabilities(&place.memory).clone()
    };
    place.memory = place.memory.clone().with_capabilities(able);
    let run = place.ends(&["snapshot", "create", "SPEC", "safe", "one"], 1).await;
    assert!(run.stderr.contains("error:"), "{}", run.stderr);
}

#[tokio::test]
async fn one_at_a_time_changes_snapshots() {
    let place = Place::applied().await;
    hold(&place.memory, "demo").await;
    for words in [
        &["snapshot", "create", "SPEC", "safe", "one"][..],
        &["snapshot", "delete", "SPEC", "base", "ready", "--allow-data-loss"],
        &["snapshot", "restore", "SPEC", "base", "ready", "--allow-data-loss"],
    ] {
        let run = place.ends(words, 4).await;
        assert!(run.stderr.contains("is locked by"), "{words:?} {}", run.stderr);
    }
}

#[tokio::test]
async fn what_is_frozen_takes_no_commands() {
    let place = Place::applied().await;
    let frozen = place.memory.edit("demo-safe", |machine| {
        machine.status = Status::Frozen;
        Ok(())
    });
    frozen.expect("is there");
    let run = place.ends(&["exec", "SPEC", "safe", "--", "true"], 125).await;
    assert!(run.stderr.contains("it is frozen"), "{}", run.stderr);
    assert!(
        run.stderr.contains("`sbx-apply apply` lets them go on"),
        "{}",
        run.stderr
    );
}

#[tokio::test]
async fn doctor_tells_what_answers() {
    let memory = Memory::new();
    let run = program(&memory, &["doctor", "--backend", "local"]).await;
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stdout.ends_with("Sandboxes can be made here.\n"), "{}", run.stdout);
    let run = program(&memory, &["doctor", "--backend", "local", "--json"]).await;
    let found: Value = serde_json::from_str(&run.stdout).expect("JSON");
    assert_eq!(
        (&found["usable"], &found["format_version"]),
        (&true.into(), &"1".into())
    );
    assert!(
        found["capabilities"]
            .as_array()
            .expect("a list")
            .iter()
            .any(|one| one["name"] == "clone-from-snapshot")
    );
    let run = program(&memory, &["doctor", "--backend", "nothing"]).await;
    assert_eq!(run.code, 1);
}
