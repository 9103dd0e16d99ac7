//! Accepted drift: what it holds back, how long it lasts, and that it is told.

use sbx_apply::backend::memory::Memory;
use sbx_apply::model::{Mode, Owner};

use super::{program_with, run};

/// A sandbox with a file and a step that runs again when the file's contents change, and one after it.
fn spec(content: &str, ignore: &str) -> String {
    format!(
        "sandbox \"one\" {{ image \"debian/12\"; file \"/etc/conf\" content=\"{content}\"; \
         run \"first\" command=\"echo first >> /etc/ran\"; \
         run \"reload\" command=\"echo reload >> /etc/ran\" on-change=\"/etc/conf\"; \
         run \"last\" command=\"echo last >> /etc/ran\"; {ignore} }}"
    )
}

fn ran(memory: &Memory) -> String {
    let text = memory.machine("demo-one").and_then(|machine| machine.read("/etc/ran"));
    String::from_utf8(text.unwrap_or_default()).expect("text")
}

#[tokio::test]
async fn a_step_waits_for_contents_that_are_accepted_as_they_are() {
    let memory = Memory::new();
    run(&memory, "apply", &spec("1", ""), 0).await;
    let before = ran(&memory);
    let ignoring = ["--ignore", "one/file:/etc/conf"];
    let apply = program_with(&memory, &[&["apply", "-"], &ignoring[..]].concat(), &spec("2", "")).await;
    assert_eq!(apply.code, 0, "{}", apply.stderr);
    assert!(
        apply.stdout.contains("one: run:reload.digest: ") && apply.stdout.contains("it waits for contents"),
        "{}",
        apply.stdout
    );
    assert_eq!(ran(&memory), before, "neither the step nor the one after it");
    // Once nothing is held back any more, both run, after the file is written.
    run(&memory, "apply", &spec("2", ""), 0).await;
    assert_eq!(ran(&memory), format!("{before}reload\nlast\n"));
    run(&memory, "plan", &spec("2", ""), 0).await;
}

#[tokio::test]
async fn a_tree_holds_its_step_back_too() {
    let memory = Memory::new();
    let spec = |source: &str| {
        format!(
            "sandbox \"one\" {{ image \"debian/12\"; tree \"/srv/app\" source=\"{source}\"; \
             run \"build\" command=\"echo built >> /etc/ran\" on-change=\"/srv/app\"; }}"
        )
    };
    run(&memory, "apply", &spec("app"), 0).await;
    let ignoring = ["check", "-", "--ignore", "one/tree:/srv/app"];
    let check = program_with(&memory, &ignoring, &spec("app/static")).await;
    assert_eq!(check.code, 0, "{}{}", check.stdout, check.stderr);
    run(&memory, "plan", &spec("app/static"), 2).await;
}

#[tokio::test]
async fn a_hand_edit_that_is_accepted_holds_no_step_back() {
    let memory = Memory::new();
    run(&memory, "apply", &spec("1", ""), 0).await;
    memory
        .edit("demo-one", |machine| machine.write("/etc/conf", "by hand"))
        .expect("edits");
    let changed = spec("1", "ignore \"file:/etc/conf\";").replace("echo last", "echo later");
    run(&memory, "apply", &changed, 0).await;
    assert!(ran(&memory).ends_with("later\n"), "{}", ran(&memory));
    let machine = memory.machine("demo-one").expect("is there");
    assert_eq!(machine.read("/etc/conf"), Some(b"by hand".to_vec()));
}

#[tokio::test]
async fn what_is_accepted_is_told_with_its_reason_and_what_has_expired_with_its_day() {
    let memory = Memory::new();
    // The tests' moment lies in January 2027.
    let kept = "ignore \"file:/etc/conf\" until=\"2027-01-31\" reason=\"rewritten by `the VPN`\";";
    let over = "ignore \"file:/etc/conf\" until=\"2027-01-01\" reason=\"rewritten\";";
    run(&memory, "apply", &spec("1", ""), 0).await;
    memory
        .edit("demo-one", |machine| machine.write("/etc/conf", "by hand"))
        .expect("edits");
    for (ignore, code, said) in [
        (kept, 0, " until 2027-01-31: rewritten by `the VPN`"),
        (over, 3, "`ignore \"file:/etc/conf\"` expired: it held until 2027-01-01"),
    ] {
        let check = program_with(&memory, &["check", "-"], &spec("1", ignore)).await;
        assert_eq!(check.code, code, "{}{}", check.stdout, check.stderr);
        assert!(check.stdout.contains(said), "{}", check.stdout);
        let check = program_with(&memory, &["check", "-", "--json"], &spec("1", ignore)).await;
        let document: serde_json::Value = serde_json::from_str(&check.stdout).expect("JSON");
        assert_eq!(check.code, code);
        if code == 0 {
            let accepted = &document["accepted"][0];
            assert_eq!(accepted["path"], "file:/etc/conf.content");
            assert_eq!(
                (&accepted["origin"], &accepted["until"]),
                (&"drift".into(), &"2027-01-31".into())
            );
            assert_eq!(accepted["reason"], "rewritten by `the VPN`");
            assert_eq!(document["summary"]["drift"], 0);
        } else {
            let notice = document["notices"][0]["text"].as_str().expect("a notice");
            assert!(notice.contains("2027-01-01"), "{notice}");
        }
        let check = program_with(&memory, &["check", "-", "--markdown"], &spec("1", ignore)).await;
        assert_eq!(check.code, code);
        assert!(
            check
                .stdout
                .contains(if code == 0 { "2027-01-31" } else { "2027-01-01" }),
            "{}",
            check.stdout
        );
    }
}

#[tokio::test]
async fn an_accepted_mode_stays_when_the_contents_are_written() {
    let memory = Memory::new();
    run(&memory, "apply", &spec("1", ""), 0).await;
    let (mode, owner) = (Mode::of_bits(0o600), Owner { uid: 7, gid: 8 });
    memory
        .edit("demo-one", |machine| machine.attributes("/etc/conf", mode, owner))
        .expect("edits");
    let ignore = "ignore \"file:/etc/conf.mode\"; ignore \"file:/etc/conf.owner\";";
    run(&memory, "apply", &spec("2", ignore), 0).await;
    let found = memory
        .machine("demo-one")
        .and_then(|machine| machine.found("/etc/conf"));
    let found = found.expect("is there");
    assert_eq!((found.mode, found.owner), (mode, owner));
    run(&memory, "plan", &spec("2", ignore), 0).await;
    // Held back no more, it is drift.
    run(&memory, "plan", &spec("2", ""), 3).await;
}

#[tokio::test]
async fn what_left_the_spec_and_is_accepted_goes_once_it_is_not() {
    let memory = Memory::new();
    let spec = |file: &str| format!("sandbox \"one\" {{ image \"debian/12\"; env A=\"1\"; {file} }}");
    let without = |file: &str| spec(file).replace("env A=\"1\";", "");
    run(
        &memory,
        "apply",
        &spec("file \"/etc/made\" content=\"x\" mode=\"0600\";"),
        0,
    )
    .await;
    let ignore = "ignore \"file:/etc/made\"; ignore \"env:A\";";
    run(&memory, "apply", &without(ignore), 0).await;
    run(&memory, "plan", &without(ignore), 0).await;
    let machine = || memory.machine("demo-one").expect("is there");
    assert!(machine().read("/etc/made").is_some() && machine().env.contains_key("A"));
    run(&memory, "apply", &without(""), 0).await;
    assert!(machine().read("/etc/made").is_none() && machine().env.is_empty());
}
