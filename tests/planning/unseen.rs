//! Backends that reach the files of running sandboxes only.

use sbx_apply::backend::Observe as _;
use sbx_apply::backend::memory::Memory;
use sbx_apply::model::{Capability, Status};

use super::run;

fn memory() -> Memory {
    let memory = Memory::new();
    let mut capabilities = memory.capabilities().clone();
    capabilities.able.remove(&Capability::FilesWhenStopped);
    memory.with_capabilities(capabilities)
}

/// The same where policies can stand inside only.
fn fenced() -> Memory {
    let memory = memory();
    let mut capabilities = memory.capabilities().clone();
    capabilities.able.remove(&Capability::EgressHost);
    capabilities.able.remove(&Capability::EgressNone);
    capabilities.able.insert(Capability::EgressGuest);
    memory.with_capabilities(capabilities)
}

fn spec(state: &str, content: &str) -> String {
    format!(
        "sandbox \"one\" {{ image \"debian/12\"; state \"{state}\"; user \"dev\" uid=1001; \
         file \"/etc/conf\" content=\"{content}\"; }}"
    )
}

fn content(memory: &Memory) -> String {
    let text = memory.machine("demo-one").and_then(|machine| machine.read("/etc/conf"));
    String::from_utf8(text.unwrap_or_default()).expect("text")
}

#[tokio::test]
async fn a_sandbox_that_is_to_be_stopped_runs_while_its_files_are_written() {
    let memory = memory();
    run(&memory, "apply", &spec("stopped", "1"), 0).await;
    let machine = memory.machine("demo-one").expect("is there");
    assert_eq!((machine.status, content(&memory).as_str()), (Status::Stopped, "1"));
    let plan = run(&memory, "plan", &spec("stopped", "1"), 0).await;
    assert!(plan.stdout.contains("its files were not looked at"), "{}", plan.stdout);
    // What was last applied counts, so an edit of the spec is seen, and nothing else.
    let change = |machine: &mut sbx_apply::backend::memory::Machine| {
        machine.write("/etc/conf", "by hand")?;
        Ok(())
    };
    memory.edit("demo-one", change).expect("edits");
    run(&memory, "plan", &spec("stopped", "1"), 0).await;
    run(&memory, "plan", &spec("stopped", "2"), 2).await;
    run(&memory, "apply", &spec("stopped", "2"), 0).await;
    let machine = memory.machine("demo-one").expect("is there");
    assert_eq!((machine.status, content(&memory).as_str()), (Status::Stopped, "2"));
    run(&memory, "plan", &spec("stopped", "2"), 0).await;
    // Where it runs, it is looked at.
    run(&memory, "apply", &spec("running", "2"), 0).await;
    memory.edit("demo-one", change).expect("edits");
    run(&memory, "plan", &spec("running", "2"), 3).await;
    run(&memory, "apply", &spec("running", "2"), 0).await;
    assert_eq!(content(&memory), "2");
}

/// Rules inside are files too, so it has to run for them; they come before whatever else is put in.
#[tokio::test]
async fn rules_inside_come_right_after_the_start() {
    let memory = fenced();
    // Where it can only be inside, it need not be said.
    let spec = |state: &str, more: &str| {
        format!(
            "sandbox \"one\" {{ image \"debian/12\"; state \"{state}\"; egress {{ mode \"none\"; }}; \
             file \"/etc/conf\" content=\"1\"; run \"mine\" command=\"true\"; {more} }}"
        )
    };
    run(&memory, "apply", &spec("stopped", ""), 0).await;
    let place = |journal: &[String], what: &str| {
        let found = journal.iter().position(|entry| entry.contains(what));
        found.unwrap_or_else(|| panic!("{what}: {journal:?}"))
    };
    let order = |journal: &[String]| {
        [
            "start demo-one",
            "egress demo-one sandbox/one inside",
            "/etc/conf",
            "exec demo-one",
        ]
        .map(|what| place(journal, what))
    };
    let journal = memory.take_journal();
    assert!(order(&journal).is_sorted(), "{journal:?}");
    run(&memory, "plan", &spec("stopped", ""), 0).await;
    // One that is lifted, of a sandbox that stays stopped, needs a start as well.
    let lifted = spec("stopped", "").replace("egress { mode \"none\"; }; ", "");
    run(&memory, "apply", &lifted, 0).await;
    let journal = memory.take_journal();
    let order = ["start demo-one", "egress demo-one unrestricted", "stop demo-one"].map(|what| place(&journal, what));
    assert!(order.is_sorted(), "{journal:?}");
    assert_eq!(memory.machine("demo-one").expect("is there").status, Status::Stopped);
    // What the rules need comes before them.
    let memory = fenced();
    run(
        &memory,
        "apply",
        &spec("running", "file \"/usr/sbin/nft\" content=\"\"; "),
        0,
    )
    .await;
    let journal = memory.take_journal();
    let order = [
        "start demo-one",
        "/usr/sbin/nft",
        "egress demo-one sandbox/one inside",
        "exec demo-one",
    ];
    assert!(order.map(|what| place(&journal, what)).is_sorted(), "{journal:?}");
}
