//! What has outlived its ttl, at chosen moments.

use sbx_apply::backend::memory::Memory;
use sbx_apply::model::Labels;
use serde_json::Value;

use super::{program_with, program_with_at, run};
use crate::support::program::{NOW, Run, hold, program_at};

/// When the simulated instances are made, or a moment after.
const MADE: u64 = NOW;

const HOUR: u64 = 3_600;

fn spec(ttl: &str) -> String {
    format!(
        "sandbox \"base\" {{ image \"debian/12\"; {ttl} snapshot \"ready\"; }}\n\
         sandbox \"task\" {{ clone-from \"base\" snapshot=\"ready\"; {ttl} }}\n\
         sandbox \"kept\" {{ image \"debian/12\"; }}\n"
    )
}

async fn applied(spec: &str) -> Memory {
    let memory = Memory::new();
    memory.set_time(MADE);
    run(&memory, "apply", spec, 0).await;
    let _ = memory.take_journal();
    memory
}

async fn gc(memory: &Memory, spec: &str, now: u64) -> Run {
    let run = program_with_at(memory, &["gc", "-"], spec, now).await;
    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
    run
}

fn label(memory: &Memory, name: &str, key: &str, value: &str) {
    let edited = memory.edit(name, |machine| {
        machine.labels.0.insert(key.to_owned(), value.to_owned());
        Ok(())
    });
    edited.expect("is there");
}

fn deleted(memory: &Memory) -> Vec<String> {
    memory.take_journal()
}

#[tokio::test]
async fn what_has_outlived_its_ttl_goes_clones_first_and_the_next_apply_makes_it_again() {
    let spec = spec("ttl \"24h\";");
    let memory = applied(&spec).await;
    let early = gc(&memory, &spec, MADE + 24 * HOUR - 1).await;
    assert!(early.stdout.contains("Nothing to delete in demo."), "{}", early.stdout);
    assert_eq!(deleted(&memory), Vec::<String>::new());
    let late = gc(&memory, &spec, MADE + 25 * HOUR).await;
    assert_eq!(deleted(&memory), ["delete demo-task", "delete demo-base"]);
    for text in [
        "delete  (it has outlived its ttl) [data loss]",
        "task: its ttl of 1d ended 59m",
        "Deleted 2 sandboxes in",
    ] {
        assert!(late.stdout.contains(text), "{text}\n{}", late.stdout);
    }
    let again = gc(&memory, &spec, MADE + 25 * HOUR).await;
    assert!(again.stdout.contains("Nothing to delete"), "{}", again.stdout);
    // It is not forgotten: the spec still wants it, and its life begins anew.
    memory.set_time(MADE + 26 * HOUR);
    run(&memory, "apply", &spec, 0).await;
    assert_eq!(memory.names(), ["demo-base", "demo-kept", "demo-task"]);
    let _ = memory.take_journal();
    gc(&memory, &spec, MADE + 27 * HOUR).await;
    assert_eq!(deleted(&memory), Vec::<String>::new());
}

#[tokio::test]
async fn making_a_sandbox_anew_starts_its_ttl_again() {
    let with = |image: &str| format!("sandbox \"one\" {{ image \"{image}\"; ttl \"1h\"; }}");
    let memory = applied(&with("debian/12")).await;
    let memory = memory.with_image("other", &[]);
    memory.set_time(MADE + HOUR);
    let apply = program_with(&memory, &["apply", "-", "--allow-data-loss"], &with("other")).await;
    assert_eq!(apply.code, 0, "{}", apply.stderr);
    let _ = memory.take_journal();
    gc(&memory, &with("other"), MADE + HOUR + 60).await;
    assert_eq!(deleted(&memory), Vec::<String>::new());
}

#[tokio::test]
async fn a_ttl_changes_where_the_sandbox_is() {
    let memory = applied(&spec("")).await;
    let plan = run(&memory, "plan", &spec("ttl \"90m\";"), 2).await;
    assert!(plan.stdout.contains("ttl: (none) → 1h30m (pending)"), "{}", plan.stdout);
    assert!(!plan.stdout.contains("[restart]"), "{}", plan.stdout);
    run(&memory, "apply", &spec("ttl \"90m\";"), 0).await;
    let changed: Vec<_> = deleted(&memory)
        .into_iter()
        .filter(|entry| entry.contains("ttl"))
        .collect();
    assert_eq!(changed.len(), 2, "{changed:?}");
    assert!(
        changed.iter().all(|entry| entry.starts_with("configure")),
        "{changed:?}"
    );
    // Unset, it lives for ever.
    run(&memory, "apply", &spec(""), 0).await;
    let _ = memory.take_journal();
    gc(&memory, &spec(""), u64::MAX / 2).await;
    assert_eq!(deleted(&memory), Vec::<String>::new());
}

#[tokio::test]
async fn show_tells_what_is_left() {
    let spec = spec("ttl \"24h\";");
    let memory = applied(&spec).await;
    let shown = |text: &'static str, now: u64| {
        let (memory, spec) = (&memory, &spec);
        async move {
            let show = program_with_at(memory, &["show", "-"], spec, now).await;
            assert!(show.stdout.contains(text), "{text}\n{}", show.stdout);
        }
    };
    shown("EXPIRES", MADE + HOUR).await;
    shown("in 23h", MADE + HOUR + 1).await;
    shown("expired", MADE + 48 * HOUR).await;
    label(&memory, "demo-base", Labels::TTL, "\u{1b}[2Jsoon");
    shown("never, by `\\u{1b}[2Jsoon`", MADE + 48 * HOUR).await;
    let show = program_with_at(&memory, &["show", "-", "--json"], &spec, MADE + 25 * HOUR).await;
    let show: Value = serde_json::from_str(&show.stdout).expect("JSON");
    let of = |index: usize, key: &str| show["sandboxes"][index][key].clone();
    assert_eq!((of(0, "expires_in"), of(2, "ttl")), (Value::Null, Value::Null));
    assert!(of(1, "expires_in").as_i64().is_some_and(|left| left < -3_500), "{show}");
    assert_eq!(of(1, "ttl"), "1d");
    // Where nothing has one, there is no column for it.
    let memory = applied("sandbox \"one\" { image \"debian/12\"; }").await;
    let show = program_with(&memory, &["show", "-"], "sandbox \"one\" { image \"debian/12\"; }").await;
    assert!(!show.stdout.contains("EXPIRES"), "{}", show.stdout);
}

#[tokio::test]
async fn what_is_protected_or_says_nothing_stays_and_is_named() {
    let spec = spec("ttl \"24h\";");
    let memory = applied(&spec).await;
    label(&memory, "demo-task", Labels::PROTECT, "true");
    label(
        &memory,
        "demo-base",
        Labels::TTL,
        "99999999999999999999d\u{1b}]0;x\u{7}",
    );
    let ended = gc(&memory, &spec, u64::MAX / 2).await;
    assert_eq!(deleted(&memory), Vec::<String>::new());
    for text in [
        "task: kept: it has outlived its ttl of 1d, but it is protected",
        "base: kept: its ttl is `99999999999999999999d\\u{1b}]0;x\\u{7}`, which is no time",
        "Nothing to delete in demo.\n\nTo know:\n  · ",
    ] {
        assert!(ended.stdout.contains(text), "{text}\n{}", ended.stdout);
    }
}

#[tokio::test]
async fn others_are_left_alone_and_all_means_ours_alone() {
    let spec = spec("ttl \"24h\";");
    let memory = applied(&spec).await;
    let other = ["apply", "-", "--environment", "other", "-q"];
    let apply = program_with(&memory, &other, &spec).await;
    assert_eq!(apply.code, 0, "{}", apply.stderr);
    memory.make_foreign("theirs").expect("is free");
    label(&memory, "theirs", Labels::TTL, "1s");
    memory.copy_by_hand("demo-task", "copy").expect("copies");
    let _ = memory.take_journal();
    gc(&memory, &spec, u64::MAX / 2).await;
    assert_eq!(deleted(&memory), ["delete demo-task", "delete demo-base"]);
    assert!(memory.names().contains(&"other-task".to_owned()));
    // One environment is somebody's at the moment: the others have their turn.
    run(&memory, "apply", &spec, 0).await;
    let third = program_with(&memory, &["apply", "-", "--environment", "third", "-q"], &spec).await;
    assert_eq!(third.code, 0, "{}", third.stderr);
    let _ = memory.take_journal();
    hold(&memory, "demo").await;
    let all = program_at(&memory, &["gc", "--all", "--backend", "local"], u64::MAX / 2).await;
    assert_eq!(all.code, 4, "{}{}", all.stdout, all.stderr);
    assert!(all.stderr.contains("`demo` is locked by"), "{}", all.stderr);
    let mut gone = deleted(&memory);
    gone.sort();
    assert_eq!(
        gone,
        [
            "delete other-base",
            "delete other-task",
            "delete third-base",
            "delete third-task"
        ]
    );
    let left = memory.names();
    assert!(
        left.contains(&"theirs".to_owned()) && left.contains(&"copy".to_owned()),
        "{left:?}"
    );
    assert!(left.contains(&"demo-task".to_owned()), "{left:?}");
}

#[tokio::test]
async fn events_tell_programs_what_went_and_why() {
    let spec = spec("ttl \"24h\";");
    let memory = applied(&spec).await;
    let run = program_with_at(&memory, &["gc", "-", "--json"], &spec, u64::MAX / 2).await;
    assert_eq!(run.code, 0, "{}", run.stderr);
    let events: Vec<Value> = run
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let schema = jsonschema::validator_for(&sbx_apply::view::json::events_schema()).expect("a schema");
    events
        .iter()
        .for_each(|event| assert!(schema.is_valid(event), "{event}"));
    assert_eq!(events[0]["plan"]["changes"][0]["reason"], "expired");
    assert_eq!(events.last().expect("a summary")["done"], 2);
    let run = program_with_at(&memory, &["gc", "-", "--json"], &spec, u64::MAX / 2).await;
    assert!(run.stdout.contains("\"nothing_to_do\""), "{}", run.stdout);
}

#[tokio::test]
async fn of_two_that_claim_to_be_one_none_goes() {
    let memory = applied(&spec("ttl \"24h\";")).await;
    memory.copy_by_hand("demo-task", "copy").expect("copies");
    label(&memory, "copy", Labels::INSTANCE, "copy");
    let run = program_with_at(&memory, &["gc", "-"], &spec(""), u64::MAX / 2).await;
    assert_eq!(run.code, 4, "{}{}", run.stdout, run.stderr);
    assert!(run.stderr.contains("has two instances"), "{}", run.stderr);
    assert_eq!(deleted(&memory), Vec::<String>::new());
}

#[tokio::test]
async fn all_is_all_and_breaks_no_locks() {
    for word in [&["x.kdl"][..], &["--environment", "demo"], &["--break-lock"]] {
        let words = [&["gc", "--all"], word].concat();
        let run = program_at(&Memory::new(), &words, NOW).await;
        assert_eq!(run.code, 1, "{}", run.stdout);
    }
}
