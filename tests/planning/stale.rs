//! Snapshots and clones that are older than what they were made from.

use sbx_apply::backend::memory::{KeptDisk, Memory};
use sbx_apply::model::Labels;
use serde_json::Value;

use super::{program_with, run};

const CLONE: &str = "sandbox \"task\" { clone-from \"base\" snapshot=\"ready\" on-stale=\"replace\"; }";

/// A base with a snapshot, and a clone of that.
fn spec(base: &str) -> String {
    format!("sandbox \"base\" {{ {base} snapshot \"ready\"; }}\n{CLONE}")
}

/// What a plan says is stale: sandbox, kind and action.
async fn stale(memory: &Memory, spec: &str) -> Vec<(String, String, String)> {
    let run = program_with(memory, &["plan", "-", "--json"], spec).await;
    let plan: Value = serde_json::from_str(&run.stdout).expect("JSON");
    let text = |change: &Value, key: &str| change[key].as_str().unwrap_or_default().to_owned();
    let changes = plan["changes"].as_array().expect("changes");
    let stale = changes.iter().filter(|change| change["reason"] == "stale");
    stale
        .map(|change| (text(change, "sandbox"), text(change, "kind"), text(change, "action")))
        .collect()
}

async fn apply(memory: &Memory, spec: &str) {
    let run = program_with(memory, &["apply", "-", "--allow-data-loss"], spec).await;
    assert_eq!(run.code, 0, "{spec}\n{}\n{}", run.stdout, run.stderr);
}

fn read(memory: &Memory, name: &str, path: &str) -> Option<String> {
    let bytes = memory.machine(name)?.read(path)?;
    Some(String::from_utf8(bytes).expect("text"))
}

#[tokio::test]
async fn each_ingredient_makes_stale_and_nothing_else_does() {
    let both = [("base", "snapshot", "snapshot"), ("task", "sandbox", "replace")];
    let run_before = "run \"a\" command=\"true\"; run \"b\" command=\"true\";";
    for (before, after, is_stale) in [
        ("file \"/a\" content=\"1\";", "file \"/a\" content=\"2\";", true),
        (
            "file \"/a\" content=\"1\";",
            "file \"/a\" content=\"1\" mode=\"0600\";",
            true,
        ),
        ("file \"/a\" content=\"1\";", "file \"/a\" content=\"1\" owner=1;", true),
        ("file \"/a\" content=\"1\";", "file \"/a\" absent=true;", true),
        ("file \"/a\" content=\"1\";", "", true),
        ("", "tree \"/srv\" source=\"app\";", true),
        (
            "tree \"/srv\" source=\"app\";",
            "tree \"/srv\" source=\"app/static\";",
            true,
        ),
        (
            "tree \"/srv\" source=\"app\";",
            "tree \"/srv\" source=\"app\" { exclude \"start\"; };",
            true,
        ),
        ("", "user \"dev\" uid=1234;", true),
        (run_before, "run \"a\" command=\"true\"; run \"b\" command=\":\";", true),
        (
            run_before,
            "run \"b\" command=\"true\"; run \"a\" command=\"true\";",
            true,
        ),
        (run_before, "run \"a\" command=\"true\";", true),
        (
            run_before,
            "run \"a\" command=\"true\" timeout=\"9m\"; run \"b\" command=\"true\";",
            false,
        ),
        (
            "file \"/a\" content=\"1\" when=\"create\";",
            "file \"/a\" content=\"2\" when=\"create\";",
            false,
        ),
        ("cpu 1;", "cpu 2; memory \"1GiB\"; disk \"20GiB\";", false),
        ("env A=\"1\";", "env A=\"2\";", false),
        (
            "config { limits.processes \"5\"; };",
            "config { limits.processes \"6\"; };",
            false,
        ),
        ("", "state \"stopped\";", false),
        ("", "ready { command \"true\"; };", false),
        ("", "protect true;", false),
        ("", "snapshot \"another\";", false),
    ] {
        let image = |rest: &str| spec(&format!("image \"debian/12\"; {rest}"));
        let memory = Memory::new();
        apply(&memory, &image(before)).await;
        assert_eq!(stale(&memory, &image(before)).await, [], "{before}");
        let found = stale(&memory, &image(after)).await;
        let found: Vec<_> = found.iter().map(|(a, b, c)| (&**a, &**b, &**c)).collect();
        assert_eq!(found, if is_stale { &both[..] } else { &[] }, "{before} → {after}");
        apply(&memory, &image(after)).await;
        assert_eq!(stale(&memory, &image(after)).await, [], "{after}");
    }
}

#[tokio::test]
async fn another_image_makes_the_clones_of_it_stale() {
    let memory = Memory::new().with_image("other", &[("/etc/other", "")]);
    apply(&memory, &spec("image \"debian/12\";")).await;
    let found = stale(&memory, &spec("image \"other\";")).await;
    assert_eq!(found, [("task".into(), "sandbox".into(), "replace".into())]);
    apply(&memory, &spec("image \"other\";")).await;
    assert!(
        read(&memory, "demo-task", "/etc/other").is_some(),
        "really from the new one"
    );
    run(&memory, "plan", &spec("image \"other\";"), 0).await;
}

#[tokio::test]
async fn a_missing_snapshot_is_taken_and_makes_nothing_stale() {
    let memory = Memory::new();
    let spec = spec("image \"debian/12\";");
    apply(&memory, &spec).await;
    memory
        .edit("demo-base", |machine| {
            machine.snapshots.clear();
            Ok(())
        })
        .expect("edits");
    let plan = run(&memory, "plan", &spec, 3).await;
    assert!(plan.stdout.contains("+ snapshot ready  (it is gone"), "{}", plan.stdout);
    assert!(!plan.stdout.contains("task"), "{}", plan.stdout);
    run(&memory, "apply", &spec, 0).await;
    run(&memory, "plan", &spec, 0).await;
}

#[tokio::test]
async fn a_base_that_drifted_is_repaired_before_its_snapshot_is_taken() {
    let memory = Memory::new();
    let with = |text: &str| {
        spec(&format!(
            "image \"debian/12\"; file \"/a\" content=\"1\"; file \"/b\" content=\"{text}\";"
        ))
    };
    apply(&memory, &with("1")).await;
    let drift = || {
        memory
            .edit("demo-base", |machine| machine.write("/a", "by hand"))
            .expect("edits");
    };
    drift();
    assert_eq!(stale(&memory, &with("1")).await, [], "drift is no news to a clone");
    run(&memory, "apply", &with("1"), 0).await;
    run(&memory, "plan", &with("1"), 0).await;
    drift();
    apply(&memory, &with("2")).await;
    assert_eq!(read(&memory, "demo-task", "/a").as_deref(), Some("1"));
    assert_eq!(read(&memory, "demo-task", "/b").as_deref(), Some("2"));
    run(&memory, "plan", &with("2"), 0).await;
}

#[tokio::test]
async fn a_base_that_fails_costs_no_clone_its_disk() {
    let memory = Memory::new();
    let with = |command: &str| spec(&format!("image \"debian/12\"; run \"go\" command=\"{command}\";"));
    apply(&memory, &with("true")).await;
    memory
        .edit("demo-task", |machine| machine.write("/work", "mine"))
        .expect("edits");
    let run_of = program_with(&memory, &["apply", "-", "--allow-data-loss"], &with("false")).await;
    assert_eq!(run_of.code, 1, "{}", run_of.stderr);
    assert_eq!(read(&memory, "demo-task", "/work").as_deref(), Some("mine"));
    assert!(
        memory
            .machine("demo-base")
            .expect("is there")
            .snapshots
            .contains_key("ready")
    );
    apply(&memory, &with(":")).await;
    assert_eq!(read(&memory, "demo-task", "/work"), None);
}

#[tokio::test]
async fn a_kill_between_delete_and_create_is_made_good() {
    let memory = Memory::new();
    let with = |text: &str| spec(&format!("image \"debian/12\"; file \"/a\" content=\"{text}\";"));
    apply(&memory, &with("1")).await;
    // After the stale snapshot went: the base is new already, and its clone old.
    memory
        .edit("demo-base", |machine| {
            machine.snapshots.clear();
            machine.write("/a", "2")
        })
        .expect("edits");
    assert_eq!(stale(&memory, &with("2")).await.len(), 1, "the clone, by its record");
    apply(&memory, &with("2")).await;
    assert_eq!(read(&memory, "demo-task", "/a").as_deref(), Some("2"));
    run(&memory, "plan", &with("2"), 0).await;
    // After the stale clone went.
    memory.delete_by_hand("demo-task").expect("deletes");
    run(&memory, "apply", &with("2"), 0).await;
    run(&memory, "plan", &with("2"), 0).await;
}

#[tokio::test]
async fn a_snapshot_that_nobody_was_cloned_from_is_taken_anew_without_asking() {
    let memory = Memory::new();
    let with = |text: &str| {
        format!("sandbox \"base\" {{ image \"debian/12\"; file \"/a\" content=\"{text}\"; snapshot \"ready\"; }}")
    };
    run(&memory, "apply", &with("1"), 0).await;
    let _ = memory.take_journal();
    run(&memory, "apply", &with("2"), 0).await;
    let journal = memory.take_journal();
    let snapshots: Vec<&String> = journal.iter().filter(|call| call.contains("snapshot")).collect();
    assert_eq!(snapshots.len(), 2, "{journal:?}");
    run(&memory, "plan", &with("2"), 0).await;
}

#[tokio::test]
async fn a_clone_that_stays_stale_keeps_its_own_clones_fresh() {
    let memory = Memory::new();
    let with = |text: &str| {
        format!(
            "sandbox \"base\" {{ image \"debian/12\"; file \"/a\" content=\"{text}\"; snapshot \"ready\"; }}\n\
             sandbox \"middle\" {{ clone-from \"base\" snapshot=\"ready\"; snapshot \"done\"; }}\n\
             sandbox \"leaf\" {{ clone-from \"middle\" snapshot=\"done\" on-stale=\"replace\"; }}"
        )
    };
    apply(&memory, &with("1")).await;
    apply(&memory, &with("2")).await;
    assert_eq!(read(&memory, "demo-leaf", "/a").as_deref(), Some("1"));
    let kept = [("middle".into(), "sandbox".into(), "none".into())];
    assert_eq!(stale(&memory, &with("2")).await, kept);
    run(&memory, "plan", &with("2"), 0).await;
    // What it was made from has come back.
    apply(&memory, &with("1")).await;
    assert_eq!(stale(&memory, &with("1")).await, []);
}

#[tokio::test]
async fn a_stale_snapshot_can_be_accepted() {
    let memory = Memory::new();
    let with = |text: &str| {
        spec(&format!(
            "image \"debian/12\"; file \"/a\" content=\"{text}\"; ignore \"snapshot:ready.recipe\";"
        ))
    };
    apply(&memory, &with("1")).await;
    run(&memory, "apply", &with("2"), 0).await;
    let plan = run(&memory, "plan", &with("2"), 0).await;
    assert!(plan.stdout.contains("snapshot:ready.recipe"), "{}", plan.stdout);
    assert_eq!(
        read(&memory, "demo-task", "/a").as_deref(),
        Some("1"),
        "its source is as it was"
    );
}

#[tokio::test]
async fn a_snapshot_that_is_not_ours_is_refused() {
    let memory = Memory::new();
    run(&memory, "apply", "sandbox \"base\" { image \"debian/12\"; }", 0).await;
    memory
        .edit("demo-base", |machine| {
            let kept = KeptDisk {
                labels: Labels::default(),
                created_at: 1,
                root: machine.root.clone(),
            };
            machine.snapshots.insert("ready".to_owned(), kept);
            Ok(())
        })
        .expect("edits");
    let plan = run(
        &memory,
        "plan",
        "sandbox \"base\" { image \"debian/12\"; snapshot \"ready\"; }",
        1,
    )
    .await;
    assert!(plan.stderr.contains("did not take"), "{}", plan.stderr);
}
