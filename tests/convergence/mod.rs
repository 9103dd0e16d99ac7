//! Properties: whatever the spec and whatever was there, a plan right after an apply is empty; what somebody
//! changes by hand shows as drift of just that, and is repaired; and every fault on the way is made good by the
//! next apply.

mod generate;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use sbx_apply::apply::{Claim, Clock, Failure, Interrupt, LockError, Report, apply, keep_key, observe, scope_of};
use sbx_apply::backend::memory::Memory;
use sbx_apply::backend::{ReadNotes as _, Sandboxes};
use sbx_apply::model::{
    Desired, Digest, FileState, GuestPath, Kind, Live, NoteKey, OnStale, Origin as Source, Sandbox, Status,
};
use sbx_apply::plan::{Action, Options, Origin, Plan, Reason, plan};
use tokio::sync::watch;

use crate::support::fault::Faulty;
use crate::support::program::{DEAD, NOW, process, program};

async fn planned(backend: &dyn Sandboxes, desired: &Desired, options: &Options) -> (Live, Plan) {
    let selected = desired.sandboxes.keys().cloned().collect();
    let live = observe(backend, desired, &selected).await.expect("observes");
    let plan = plan(desired, &live, backend.capabilities(), options).expect("no targets");
    (live, plan)
}

async fn applied(backend: &dyn Sandboxes, desired: &Desired, options: &Options) -> (Plan, Report) {
    let (live, plan) = planned(backend, desired, options).await;
    assert!(plan.graph().order().is_ok(), "a cycle among steps");
    let (_keep, interrupt) = watch::channel(Interrupt::None);
    if let Err(error) = keep_key(backend, desired, &live, &plan).await {
        let failure = Failure {
            step: plan.steps[0].id.clone(),
            error: error.into(),
            marks: Vec::new(),
        };
        let nothing = Report {
            failed: vec![failure],
            ..Report::default()
        };
        return (plan, nothing);
    }
    let report = apply(&plan, Some(desired), &live, backend, 4, interrupt, |_| {}).await;
    (plan, report)
}

/// How many cases there are of each property: what `PROPTEST_CASES` says, or 300.
fn cases() -> u32 {
    let said = std::env::var("PROPTEST_CASES").ok();
    said.and_then(|text| text.parse().ok()).unwrap_or(300)
}

/// Applies as a process of that number would, from the lock to letting go of it, or as far as it gets.
async fn under_lock(backend: Arc<dyn Sandboxes>, desired: &Desired, pid: u32) -> Result<Report, LockError> {
    let claim = Claim {
        process: &process("bob", pid),
        is_alive: &|process| process.pid != DEAD,
        clock: Clock::new(|| NOW),
        doing: "apply",
        patience: Duration::ZERO,
        by_force: false,
        on_wait: &|_, _| (),
    };
    let lock = claim.lock(&backend, &desired.environment, &scope_of(desired)).await?;
    let selected = desired.sandboxes.keys().cloned().collect();
    let work = async {
        let live = observe(&*backend, desired, &selected).await?;
        let plan = plan(desired, &live, backend.capabilities(), &PRUNE()).expect("no targets");
        let (_keep, interrupt) = watch::channel(Interrupt::None);
        Ok::<_, LockError>(apply(&plan, Some(desired), &live, &*backend, 4, interrupt, |_| {}).await)
    };
    let report = lock.during(|| (), work).await?;
    lock.release(report.all_has_ended()).await?;
    Ok(report)
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(future)
}

/// Applies, and requires that it works, that what was cloned has what its source declares, and that a fresh plan has
/// neither changes nor steps; only clones that may stay stale are told of.
async fn settles(memory: &Memory, desired: &Desired, options: &Options) -> Result<(), TestCaseError> {
    let (plan, report) = applied(memory, desired, options).await;
    prop_assert!(plan.refusals.is_empty(), "{:?}", plan.refusals);
    prop_assert!(report.is_complete(), "{:?}", report.failed);
    for change in plan.changes.iter().filter(|change| change.kind == Kind::Sandbox) {
        if matches!(change.action, Action::Create | Action::Replace) {
            is_a_copy(memory, desired, &desired.sandboxes[&change.sandbox])?;
        }
    }
    let (_, again) = planned(memory, desired, options).await;
    for change in &again.changes {
        prop_assert!(!change.counts(), "after an apply: {:#?}", change);
        let origin = &desired.sandboxes[&change.sandbox].origin;
        let may_stay = matches!(
            origin,
            Source::Clone {
                on_stale: OnStale::Keep,
                ..
            }
        );
        prop_assert!(
            may_stay && change.reason == Reason::Stale,
            "after an apply: {:#?}",
            change
        );
    }
    prop_assert!(again.steps.is_empty(), "after an apply: {:#?}", again.steps);
    Ok(())
}

/// A clone that was just made has the files that its source declares, but for those that it declares itself.
fn is_a_copy(memory: &Memory, desired: &Desired, clone: &Sandbox) -> Result<(), TestCaseError> {
    let Some(source) = clone.source() else { return Ok(()) };
    let source = &desired.sandboxes[source];
    for (path, file) in &source.files {
        if !path.as_str().starts_with("/etc/") || !generate::is_checked(source, path, file) {
            continue;
        }
        if let FileState::Content(content) = &file.state
            && !clone.files.contains_key(path)
        {
            let found = read(memory, &format!("demo-{}", clone.name), path);
            prop_assert_eq!(found.map(|bytes| Digest::of(&bytes)), Some(content.digest.clone()));
        }
    }
    Ok(())
}

const PRUNE: fn() -> Options = || Options {
    prune: true,
    ..Options::default()
};

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_plan_after_an_apply_is_empty_for_every_spec_and_every_next_one(
        first in generate::desired(),
        second in generate::desired(),
    ) {
        run(async {
            let memory = generate::backend();
            settles(&memory, &first, &PRUNE()).await?;
            settles(&memory, &second, &PRUNE()).await?;
            let wanted = second.sandboxes.len();
            prop_assert_eq!(memory.names().len(), wanted, "what left the spec is pruned");
            Ok(())
        })?;
    }

    #[test]
    fn a_fault_anywhere_is_made_good_by_the_next_apply(
        first in generate::desired(),
        second in generate::desired(),
        nth in 1_usize..40,
        fault in generate::fault(),
    ) {
        run(async {
            let memory = generate::backend();
            settles(&memory, &first, &PRUNE()).await?;
            let faulty = Faulty::new(Arc::new(memory.clone()), nth, fault);
            applied(&faulty, &second, &PRUNE()).await;
            settles(&memory, &second, &PRUNE()).await?;
            prop_assert_eq!(memory.names().len(), second.sandboxes.len(), "nothing orphaned");
            Ok(())
        })?;
    }

    #[test]
    fn a_fault_anywhere_under_the_lock_is_made_good_by_whoever_comes_next(
        first in generate::desired(),
        second in generate::desired(),
        nth in 1_usize..40,
        fault in generate::fault(),
    ) {
        run(async {
            let memory = generate::backend();
            settles(&memory, &first, &PRUNE()).await?;
            let faulty = Faulty::new(Arc::new(memory.clone()), nth, fault);
            let _ = under_lock(Arc::new(faulty), &second, DEAD).await;
            let report = under_lock(Arc::new(memory.clone()), &second, 1).await;
            let report = report.map_err(|error| TestCaseError::fail(error.to_string()))?;
            prop_assert!(report.is_complete(), "{:?}", report.failed);
            let note = memory.note(&second.environment, NoteKey::Lock).await;
            prop_assert_eq!(note.expect("reads"), None, "let go");
            settles(&memory, &second, &PRUNE()).await?;
            prop_assert_eq!(memory.names().len(), second.sandboxes.len(), "nothing orphaned");
            Ok(())
        })?;
    }

    #[test]
    fn what_a_hand_changes_is_drift_of_just_that(desired in generate::desired(), pick in any::<prop::sample::Index>()) {
        run(async {
            let memory = generate::backend();
            settles(&memory, &desired, &PRUNE()).await?;
            let sandbox = pick.get(&desired.sandboxes.values().cloned().collect::<Vec<_>>()).clone();
            let name = format!("{}-{}", desired.environment, sandbox.name);
            let mut files = sandbox.files.iter();
            let file = files.find(|(path, file)| generate::is_checked(&sandbox, path, file)).map(|(path, _)| path.clone());
            let edited = match (&file, sandbox.cpu.is_some()) {
                (Some(path), _) => {
                    memory.edit(&name, |machine| machine.write(path.as_str(), "by hand")).expect("edits");
                    (Kind::File, path.to_string())
                }
                (None, true) => {
                    memory.edit(&name, |machine| { machine.cpu = Some("63".to_owned()); Ok(()) }).expect("edits");
                    (Kind::Sandbox, String::new())
                }
                (None, false) => {
                    memory.edit(&name, |machine| {
                        machine.status = match machine.status {
                            Status::Running => Status::Stopped,
                            _ => Status::Running,
                        };
                        Ok(())
                    }).expect("edits");
                    (Kind::Power, String::new())
                }
            };
            let (_, plan) = planned(&memory, &desired, &PRUNE()).await;
            prop_assert_eq!(plan.changes.len(), 1, "{:#?}", plan.changes);
            let change = &plan.changes[0];
            prop_assert_eq!(&change.sandbox, &sandbox.name);
            prop_assert_eq!((change.kind, change.name.clone()), edited);
            prop_assert!(change.fields.iter().all(|field| field.origin == Origin::Drift), "{:#?}", change.fields);
            prop_assert_eq!(change.reason, Reason::LiveChanged);
            settles(&memory, &desired, &PRUNE()).await?;
            if let Some(path) = file {
                prop_assert!(read(&memory, &name, &path) != Some(b"by hand".to_vec()), "repaired");
            }
            Ok(())
        })?;
    }

    #[test]
    fn a_base_that_changes_takes_its_clones_along_as_far_as_they_want(
        first in generate::desired(),
        pick in any::<prop::sample::Index>(),
        struck in any::<bool>(),
        nth in 1_usize..20,
        fault in generate::fault(),
    ) {
        run(async {
            let memory = generate::backend();
            settles(&memory, &first, &PRUNE()).await?;
            let base = pick.get(&first.sandboxes.keys().cloned().collect::<Vec<_>>()).clone();
            let second = generate::marked(&first, &base);
            let (_, plan) = planned(&memory, &second, &PRUNE()).await;
            // What follows it, by hand: sources come before their clones in these specs.
            let mut following = BTreeSet::from([base.clone()]);
            for sandbox in second.sandboxes.values() {
                let fate = plan.changes.iter().find(|change| change.sandbox == sandbox.name && change.kind == Kind::Sandbox);
                let fate = fate.map(|change| (change.action, change.reason));
                let is_stale = sandbox.source().is_some_and(|source| following.contains(source));
                let replace = matches!(sandbox.origin, Source::Clone { on_stale: OnStale::Replace, .. });
                let expected = match (is_stale, replace) {
                    (false, _) => None,
                    (true, true) => Some((Action::Replace, Reason::Stale)),
                    (true, false) => Some((Action::None, Reason::Stale)),
                };
                prop_assert_eq!(fate, expected, "{}", sandbox.name);
                if is_stale && replace {
                    following.insert(sandbox.name.clone());
                }
            }
            if struck {
                let faulty = Faulty::new(Arc::new(memory.clone()), nth, fault);
                applied(&faulty, &second, &PRUNE()).await;
            }
            settles(&memory, &second, &PRUNE()).await?;
            for sandbox in second.sandboxes.values() {
                let machine = memory.machine(&format!("demo-{}", sandbox.name)).expect("is there");
                let marked = following.contains(&sandbox.name);
                prop_assert_eq!(machine.read(generate::MARK).is_some(), marked, "{}", sandbox.name);
            }
            Ok(())
        })?;
    }

    #[test]
    fn what_is_exported_plans_empty_at_once(desired in generate::desired(), yaml in any::<bool>(), edited in any::<bool>()) {
        run(async {
            let memory = generate::backend();
            settles(&memory, &desired, &PRUNE()).await?;
            if edited {
                // Drift is what there is, and so what the spec says.
                let name = format!("demo-{}", desired.sandboxes.keys().next().expect("one"));
                memory.edit(&name, |machine| {
                    machine.cpu = Some("7".to_owned());
                    machine.env.insert("A".to_owned(), "${x} $${y}\"\\".to_owned());
                    machine.write("/etc/a", "by ${hand}\n")
                }).expect("edits");
            }
            let _ = memory.take_journal();
            let format = if yaml { "yaml" } else { "kdl" };
            let words = ["export", "--environment", "demo", "--backend", "local", "--format", format];
            let exported = program(&memory, &words).await;
            prop_assert_eq!(exported.code, 0, "{}", exported.stderr);
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join(format!("sbx.{format}"));
            std::fs::write(&path, &exported.stdout).expect("writes");
            let path = path.to_str().expect("a path");
            let plan = program(&memory, &["plan", path, "--detailed-exitcode", "-q"]).await;
            prop_assert_eq!(plan.code, 0, "{}\n{}\n{}", exported.stdout, plan.stdout, plan.stderr);
            prop_assert_eq!(memory.journal(), Vec::<String>::new());
            Ok(())
        })?;
    }

    #[test]
    fn planning_changes_nothing(first in generate::desired(), second in generate::desired()) {
        run(async {
            let memory = generate::backend();
            settles(&memory, &first, &PRUNE()).await?;
            let _ = memory.take_journal();
            planned(&memory, &second, &PRUNE()).await;
            prop_assert_eq!(memory.journal(), Vec::<String>::new());
            Ok(())
        })?;
    }
}

fn read(memory: &Memory, name: &str, path: &GuestPath) -> Option<Vec<u8>> {
    memory.machine(name)?.read(path.as_str())
}
