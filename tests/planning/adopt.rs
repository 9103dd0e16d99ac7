//! Taking over what somebody else has made.

use sbx_apply::backend::memory::Memory;
use sbx_apply::model::{Labels, Status};

use super::{program_with, run};
use crate::support::program::{NOW, Run};

const SPEC: &str = "\
sandbox \"base\" { image \"debian/12\"; cpu 2; env A=\"1\"; \
 file \"/etc/motd\" content=\"ours\"; file \"/etc/seed\" content=\"seed\" when=\"create\"; \
 run \"go\" command=\"echo ran >> /etc/ran\"; }\n\
sandbox \"task\" count=2 { clone-from \"base\"; }\n";

async fn adopt(memory: &Memory, spec: &str, sandbox: &str, instance: &str, code: u8) -> Run {
    let run = program_with(memory, &["adopt", "-", sandbox, instance], spec).await;
    assert_eq!(run.code, code, "{sandbox} {instance}\n{}{}", run.stdout, run.stderr);
    run
}

#[tokio::test]
async fn an_adopted_instance_keeps_all_that_it_has_and_what_differs_is_pending() {
    let memory = Memory::new();
    memory.make_foreign("web").expect("is free");
    memory
        .edit("web", |machine| {
            machine.cpu = Some("4".to_owned());
            machine.write("/etc/seed", "grown")?;
            machine.write("/etc/theirs", "theirs")
        })
        .expect("edits");
    let before = memory.machine("web").expect("is there");
    let adopted = adopt(&memory, SPEC, "base", "web", 0).await;
    assert!(
        adopted.stdout.starts_with("web is now the sandbox base of demo."),
        "{}",
        adopted.stdout
    );
    assert_eq!(memory.take_journal(), ["relabel web"]);
    let after = memory.machine("web").expect("is there");
    assert_eq!(
        (&after.root, &after.env, &after.config, after.status),
        (&before.root, &before.env, &before.config, before.status),
        "nothing but labels"
    );
    assert_eq!(after.labels.get(Labels::INSTANCE), Some("web"));
    let plan = program_with(&memory, &["plan", "-", "--detailed-exitcode", "--target", "base"], SPEC).await;
    assert_eq!(plan.code, 2, "{}{}", plan.stdout, plan.stderr);
    for text in ["cpu: 4 → 2 (pending)", "env:A: (none) → 1 (pending)", "file /etc/motd"] {
        assert!(plan.stdout.contains(text), "{text}\n{}", plan.stdout);
    }
    for text in ["replace", "run go", "/etc/seed", "drift"] {
        assert!(!plan.stdout.contains(text), "{text}\n{}", plan.stdout);
    }
    // Its disk is somebody's: making it anew needs consent.
    let other = SPEC.replacen("debian/12", "debian/13", 1);
    let apply = program_with(&memory, &["apply", "-", "--target", "base"], &other).await;
    assert_eq!(apply.code, 4, "{}{}", apply.stdout, apply.stderr);
    run(&memory, "apply", SPEC, 0).await;
    run(&memory, "plan", SPEC, 0).await;
    let machine = memory.machine("web").expect("keeps its name");
    assert_eq!(machine.read("/etc/seed"), Some(b"grown".to_vec()));
    assert_eq!(
        (machine.read("/etc/ran"), machine.read("/etc/theirs").is_some()),
        (None, true)
    );
    assert_eq!(memory.names(), ["demo-task-1", "demo-task-2", "web"]);
    // Once more is no more.
    let _ = memory.take_journal();
    let again = adopt(&memory, SPEC, "base", "web", 0).await;
    assert!(again.stdout.contains("is already"), "{}", again.stdout);
    assert_eq!(memory.journal(), Vec::<String>::new());
}

#[tokio::test]
async fn who_adopts_what_is_older_than_its_ttl_is_told() {
    let memory = Memory::new();
    memory.set_time(NOW - 7_200);
    memory.make_foreign("web").expect("is free");
    let spec = "sandbox \"web\" { image \"debian/12\"; ttl \"1h\"; }";
    let said = "it is 2h old, and its ttl is 1h: once that is applied, `gc` deletes it";
    let adopted = adopt(&memory, spec, "web", "web", 0).await;
    assert_eq!(adopted.stderr, format!("Mind: {said}.\n"));
    let plan = run(&memory, "plan", spec, 2).await;
    assert!(plan.stdout.contains(&format!("web: {said}")), "{}", plan.stdout);
    let younger = "sandbox \"web\" { image \"debian/12\"; ttl \"3h\"; }";
    assert_eq!(adopt(&memory, younger, "web", "web", 0).await.stderr, "");
    let plan = run(&memory, "plan", younger, 2).await;
    assert!(!plan.stdout.contains("To know"), "{}", plan.stdout);
}

#[tokio::test]
async fn a_step_that_is_added_later_runs() {
    let memory = Memory::new();
    memory.make_foreign("web").expect("is free");
    let spec = "sandbox \"web\" { image \"debian/12\"; run \"one\" command=\"echo one >> /etc/ran\"; MORE }";
    adopt(&memory, &spec.replace("MORE", ""), "web", "web", 0).await;
    run(
        &memory,
        "apply",
        &spec.replace("MORE", "run \"two\" command=\"echo two >> /etc/ran\";"),
        0,
    )
    .await;
    let ran = memory.machine("web").and_then(|machine| machine.read("/etc/ran"));
    assert_eq!(ran, Some(b"two\n".to_vec()));
}

#[tokio::test]
async fn the_name_that_is_taken_is_adopted_as_the_refusal_says() {
    let memory = Memory::new();
    memory.make_foreign("demo-web").expect("is free");
    let spec = "sandbox \"web\" { image \"debian/12\"; }";
    let refused = run(&memory, "plan", spec, 4).await;
    let words: String = refused.stderr.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        words.contains("sbx-apply adopt SPEC web demo-web"),
        "{}",
        refused.stderr
    );
    adopt(&memory, spec, "web", "demo-web", 0).await;
    run(&memory, "plan", spec, 0).await;
    // What another environment owns is not offered.
    let other = program_with(
        &memory,
        &["plan", "-", "--environment", "demo-web"],
        "sandbox \"a\" { image \"debian/12\"; }",
    )
    .await;
    assert_eq!(other.code, 0, "{}", other.stderr);
}

#[tokio::test]
async fn what_is_somebodys_is_refused() {
    let memory = Memory::new();
    run(&memory, "apply", SPEC, 0).await;
    let apply = program_with(&memory, &["apply", "-", "--environment", "other"], SPEC).await;
    assert_eq!(apply.code, 0, "{}", apply.stderr);
    memory.make_foreign("web").expect("is free");
    memory.delete_by_hand("demo-task-2").expect("deletes");
    let _ = memory.take_journal();
    for (sandbox, instance, text) in [
        (
            "task-2",
            "other-base",
            "it is the sandbox `base` of the environment `other`",
        ),
        (
            "task-2",
            "demo-base",
            "it is the sandbox `base` of the environment `demo`",
        ),
        ("base", "web", "has an instance already: `demo-base`"),
    ] {
        let refused = adopt(&memory, SPEC, sandbox, instance, 4).await;
        let words: String = refused.stderr.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains(text), "{text}\n{}", refused.stderr);
    }
    memory.make_foreign("demo-task-2").expect("is free");
    memory.delete_by_hand("demo-task-1").expect("deletes");
    let refused = adopt(&memory, SPEC, "task-1", "demo-task-2", 4).await;
    assert!(
        refused.stderr.contains("the sandbox `task-2` will need"),
        "{}",
        refused.stderr
    );
    assert_eq!(memory.journal(), Vec::<String>::new());
}

#[tokio::test]
async fn unknown_names_come_with_those_that_are_known() {
    let memory = Memory::new();
    memory.make_foreign("web").expect("is free");
    for (sandbox, instance, text) in [
        ("bose", "web", "no sandbox is named `bose`, did you mean `base`?"),
        ("task", "web", "name the one, such as task-1"),
        ("base", "wep", "no instance is named `wep`, did you mean `web`?"),
        ("base", "\u{1b}[2J", "there are: web"),
    ] {
        let refused = adopt(&memory, SPEC, sandbox, instance, 1).await;
        assert!(refused.stderr.contains(text), "{text}\n{}", refused.stderr);
        assert!(!refused.stderr.contains('\u{1b}'), "{}", refused.stderr);
    }
    assert_eq!(memory.journal(), Vec::<String>::new());
}

#[tokio::test]
async fn a_hand_made_copy_is_adopted_without_what_its_labels_said() {
    let memory = Memory::new();
    let spec = "sandbox \"one\" { image \"debian/12\"; protect true; ttl \"1h\"; }\n\
                sandbox \"two\" { image \"debian/12\"; state \"stopped\"; }";
    let one = spec.lines().next().expect("a line");
    run(&memory, "apply", one, 0).await;
    memory.copy_by_hand("demo-one", "copy").expect("copies");
    adopt(&memory, spec, "two", "copy", 0).await;
    let copy = memory.machine("copy").expect("is there");
    assert_eq!(
        (copy.labels.get(Labels::PROTECT), copy.labels.get(Labels::TTL)),
        (None, None)
    );
    assert_eq!(copy.status, Status::Stopped);
    run(&memory, "plan", spec, 0).await;
}
