//! One at a time: two applies of one environment, and what becomes of locks whose holders are gone.

use std::sync::Arc;
use std::time::Duration;

use sbx_apply::apply::Holder;
use sbx_apply::backend::memory::Memory;
use sbx_apply::backend::{Backend as _, ErrorKind, KeepNotes as _, ReadNotes as _};
use sbx_apply::model::{EnvironmentName, InstanceName, Note, NoteKey};
use tokio::time::sleep;

use crate::support::fault::{Fault, Faulty};
use crate::support::program::{DEAD, NOW, Run, process, program, program_at, program_on};

const TWO: &str = "tests/scenarios/replace/before.kdl";
const NEXT: &str = "tests/scenarios/replace/after.kdl";

fn demo() -> EnvironmentName {
    EnvironmentName::new("demo").expect("a name")
}

/// A lock that somebody took a minute ago and is to renew within the next.
pub(crate) fn lock(pid: u32) -> Holder {
    Holder {
        process: process("alice", pid),
        doing: "apply".to_owned(),
        since: NOW - 60,
        until: NOW + 30,
        left: false,
    }
}

fn elsewhere(mut holder: Holder) -> Holder {
    holder.process.realm = Some("elsewhere".to_owned());
    holder
}

fn note(holder: &Holder) -> Note {
    Note::new(serde_json::to_string(holder).expect("JSON")).expect("a note")
}

async fn locked(holder: &Holder) -> Memory {
    let memory = Memory::new();
    take(&memory, holder).await;
    memory
}

/// Has somebody take the lock.
pub(crate) async fn take(memory: &Memory, holder: &Holder) {
    let made = memory.create_note(&demo(), NoteKey::Lock, &note(holder)).await;
    made.expect("makes a note");
}

async fn held(memory: &Memory) -> Option<Note> {
    memory.note(&demo(), NoteKey::Lock).await.expect("reads a note")
}

fn calls(memory: &Memory, name: &str) -> usize {
    memory.calls().get(name).copied().unwrap_or_default()
}

#[track_caller]
fn ended(run: &Run, code: u8) {
    assert_eq!(run.code, code, "{}\n{}", run.stdout, run.stderr);
}

#[tokio::test]
async fn whoever_comes_second_is_refused_and_told_who_was_first() {
    for arguments in [["apply", TWO, "--yes"], ["destroy", TWO, "--allow-data-loss"]] {
        let holder = lock(1);
        let memory = locked(&holder).await;
        let run = program(&memory, &arguments).await;
        ended(&run, 4);
        let expected = "error: the environment `demo` is locked by alice on here (process 1): apply for 1m\n\
                        hint: wait for it with --lock-timeout 5m; if you know that it is gone, --break-lock\n";
        assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("", expected));
        assert_eq!(memory.journal(), Vec::<String>::new());
        assert_eq!(held(&memory).await, Some(note(&holder)));
    }
}

#[tokio::test]
async fn what_only_reads_neither_locks_nor_minds_a_lock() {
    let memory = locked(&lock(1)).await;
    for (arguments, code) in [
        (&["plan", TWO][..], 0),
        (&["check", TWO], 2),
        (&["show", TWO], 0),
        (&["graph", TWO], 0),
    ] {
        ended(&program(&memory, arguments).await, code);
    }
    let notes = [
        "create_note",
        "replace_note",
        "take_over_note",
        "delete_note",
        "delete_notes",
    ];
    assert_eq!(
        notes.map(|call| calls(&memory, call)),
        [1, 0, 0, 0, 0],
        "the one of the test itself"
    );
}

#[tokio::test]
async fn an_apply_makes_its_lock_and_deletes_it() {
    let memory = Memory::new();
    for (arguments, code) in [
        (&["apply", TWO, "--yes"][..], 0),
        (&["apply", TWO, "--yes"], 0),
        (&["apply", NEXT, "--yes"], 4),
    ] {
        let before = memory.calls();
        ended(&program(&memory, arguments).await, code);
        let counts = [
            "note",
            "create_note",
            "replace_note",
            "take_over_note",
            "delete_note",
            "settle",
        ]
        .map(|call| calls(&memory, call) - before.get(call).copied().unwrap_or_default());
        assert_eq!(counts, [0, 1, 0, 0, 1, 0], "{arguments:?}");
        assert_eq!(held(&memory).await, None);
    }
}

#[tokio::test]
async fn the_lock_of_the_dead_is_taken_over_at_once() {
    let memory = locked(&lock(DEAD)).await;
    let run = program(&memory, &["apply", TWO, "--yes"]).await;
    ended(&run, 0);
    let said = "Took over the lock of demo from alice on here (process 404): it is no longer running.\n";
    assert!(run.stderr.starts_with(said), "{}", run.stderr);
    assert_eq!(calls(&memory, "settle"), 1, "what the dead have begun is awaited");
    assert_eq!(held(&memory).await, None);
}

#[tokio::test]
async fn a_lock_that_was_left_is_anybodys() {
    let mut holder = elsewhere(lock(1));
    holder.left = true;
    let memory = locked(&holder).await;
    let run = program(&memory, &["apply", TWO, "--yes"]).await;
    ended(&run, 0);
    assert!(run.stderr.contains("it was left unfinished"), "{}", run.stderr);
    assert_eq!(calls(&memory, "settle"), 1);
}

#[tokio::test]
async fn the_dead_elsewhere_may_live() {
    let memory = locked(&elsewhere(lock(DEAD))).await;
    ended(&program(&memory, &["apply", TWO, "--yes"]).await, 4);
}

#[tokio::test(start_paused = true)]
async fn an_expired_lock_is_taken_over_when_nobody_renews_it() {
    let holder = elsewhere(lock(1));
    let memory = locked(&holder).await;
    let begun = tokio::time::Instant::now();
    let run = program_at(&memory, &["apply", TWO, "--yes"], NOW + 31).await;
    ended(&run, 0);
    assert!(run.stderr.contains("has expired; looking"), "{}", run.stderr);
    assert!(begun.elapsed() >= Duration::from_secs(20), "{:?}", begun.elapsed());
    // A clock that is wrong by an hour is no reason to take a lock that is renewed.
    let memory = locked(&holder).await;
    let renew = async {
        let mut holder = holder.clone();
        for until in 1..9 {
            sleep(Duration::from_secs(15)).await;
            let old = note(&holder);
            holder.until = NOW + 30 + until * 15;
            memory
                .replace_note(&demo(), NoteKey::Lock, &old, &note(&holder))
                .await
                .expect("renews");
        }
        memory
            .delete_note(&demo(), NoteKey::Lock, &note(&holder))
            .await
            .expect("lets go");
        tokio::time::Instant::now()
    };
    let late = async {
        let run = program_at(&memory, &["apply", TWO, "--yes"], NOW + 3600).await;
        (run, tokio::time::Instant::now())
    };
    let (released, (run, done)) = tokio::join!(renew, late);
    ended(&run, 0);
    assert!(!run.stderr.contains("Took over"), "{}", run.stderr);
    assert!(done >= released);
}

#[tokio::test(start_paused = true)]
async fn two_at_once_do_not_interleave() {
    let memory = Memory::new();
    let slow = memory.clone().with_latency(Duration::from_secs(1));
    let other = ["apply", NEXT, "--yes", "--allow-data-loss"];
    let later = async |arguments: &[&str]| {
        sleep(Duration::from_secs(4)).await;
        program(&memory, arguments).await
    };
    let (first, second) = tokio::join!(program(&slow, &["apply", TWO, "--yes"]), later(&other));
    ended(&second, 4);
    ended(&first, 0);
    // With patience, it comes afterwards.
    ended(&program(&memory, &["destroy", TWO, "--allow-data-loss"]).await, 0);
    let _ = memory.take_journal();
    let patient = [&other[..], &["--lock-timeout", "10m"]].concat();
    let (first, second) = tokio::join!(program(&slow, &["apply", TWO, "--yes"]), later(&patient));
    ended(&first, 0);
    ended(&second, 0);
    assert!(
        second
            .stderr
            .starts_with("Waiting for bob on here (process 1), who works on demo ...\n"),
        "{}",
        second.stderr
    );
    let both = memory.take_journal();
    ended(&program(&memory, &["destroy", TWO, "--allow-data-loss"]).await, 0);
    let _ = memory.take_journal();
    ended(&program(&memory, &["apply", TWO, "--yes"]).await, 0);
    let alone = memory.take_journal();
    // What one sandbox does beside the other is open.
    let sorted = |calls: &[String]| {
        let mut calls = calls.to_vec();
        calls.sort();
        calls
    };
    let (first, second) = both.split_at(alone.len());
    assert_eq!(sorted(first), sorted(&alone), "the first, and then the second");
    assert!(!second.is_empty());
}

#[tokio::test(start_paused = true)]
async fn patience_has_an_end() {
    let holder = lock(1);
    let memory = locked(&Holder {
        until: NOW + 6000,
        ..holder
    })
    .await;
    let begun = tokio::time::Instant::now();
    let run = program(&memory, &["apply", TWO, "--yes", "--lock-timeout", "1m30s"]).await;
    ended(&run, 4);
    assert_eq!(begun.elapsed().as_secs(), 90);
    let looks = calls(&memory, "note");
    assert!((40..60).contains(&looks), "{looks} looks in 90 s");
    assert_eq!(calls(&memory, "create_note"), 2, "the test's own, and one");
}

#[tokio::test(start_paused = true)]
async fn a_long_apply_keeps_its_lock() {
    let memory = Memory::new();
    let slow = memory.clone().with_latency(Duration::from_secs(8));
    let watch = async {
        let mut untils = Vec::new();
        for _ in 0..5 {
            sleep(Duration::from_secs(17)).await;
            if let Some(note) = held(&memory).await {
                untils.push(Holder::read(&note).expect("a lock").until);
            }
        }
        ended(&program_at(&memory, &["apply", TWO, "--yes"], NOW + 85).await, 4);
        untils
    };
    let (run, untils) = tokio::join!(program(&slow, &["apply", TWO, "--yes"]), watch);
    ended(&run, 0);
    assert!(untils.len() >= 4 && untils.is_sorted_by(|a, b| a < b), "{untils:?}");
    let took = calls(&memory, "replace_note");
    assert!((4..40).contains(&took), "{took} renewals");
    assert_eq!(held(&memory).await, None);
}

#[tokio::test(start_paused = true)]
async fn whoever_loses_the_lock_leaves_at_once() {
    let memory = Memory::new();
    let slow = memory.clone().with_latency(Duration::from_secs(6));
    let breaker = async {
        sleep(Duration::from_secs(20)).await;
        // Whoever breaks a lock is believed, and here it is somebody who then does nothing for a while.
        let (old, new) = (held(&memory).await.expect("a lock"), note(&elsewhere(lock(2))));
        let taken = memory.take_over_note(&demo(), NoteKey::Lock, &old, &new).await;
        taken.expect("takes over");
        sleep(Duration::from_secs(30)).await;
        let begun = memory.take_journal();
        sleep(Duration::from_secs(300)).await;
        (begun, memory.take_journal(), new)
    };
    let (run, (begun, later, new)) = tokio::join!(program(&slow, &["apply", TWO, "--yes"]), breaker);
    ended(&run, 1);
    let said = "error: the lock of `demo` was lost, so nothing more was started: alice on here (process 2) has taken \
                it\nhint: apply again to go on from here\n";
    assert!(run.stderr.ends_with(said), "{}", run.stderr);
    assert!(
        run.stderr
            .contains("\nThe lock was lost: leaving at once, for somebody else may be at work.\n")
    );
    assert!(!begun.is_empty());
    assert_eq!(later, Vec::<String>::new());
    assert_eq!(held(&memory).await, Some(new), "the new holder's stays");
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_cannot_be_renewed_is_lost_before_it_expires() {
    let memory = Memory::new();
    let slow = memory.clone().with_latency(Duration::from_secs(6));
    // From the third change on, nothing gets through; what runs at the moment does.
    let faulty = Faulty::new(Arc::new(slow), 3, Fault::DeathBefore);
    let begun = tokio::time::Instant::now();
    let run = program_on(Arc::new(faulty), &["apply", TWO, "--yes"], NOW).await;
    assert_ne!(run.code, 0, "{}", run.stderr);
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn whoever_was_stopped_for_longer_than_the_lock_lasts_starts_nothing_on_waking() {
    for at in 1..12 {
        let memory = Memory::new();
        let slow = memory.clone().with_latency(Duration::from_secs(6));
        let stopped = async {
            sleep(Duration::from_secs(at * 5 + 1)).await;
            let (old, new) = (held(&memory).await.expect("a lock"), note(&elsewhere(lock(2))));
            let taken = memory.take_over_note(&demo(), NoteKey::Lock, &old, &new).await;
            taken.expect("takes over");
            let _ = memory.take_journal();
            // All timers have run out on waking, those of the work as well as those of the lock.
            tokio::time::advance(Duration::from_secs(100)).await;
            sleep(Duration::from_secs(300)).await;
            memory.take_journal()
        };
        let (run, later) = tokio::join!(program(&slow, &["apply", TWO, "--yes"]), stopped);
        ended(&run, 1);
        assert_eq!(later, Vec::<String>::new(), "stopped after {} s", at * 5 + 1);
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_was_stopped_and_missed_by_nobody_goes_on() {
    let memory = Memory::new();
    let slow = memory.clone().with_latency(Duration::from_secs(6));
    let stopped = async {
        sleep(Duration::from_secs(21)).await;
        tokio::time::advance(Duration::from_secs(100)).await;
    };
    let (run, ()) = tokio::join!(program(&slow, &["apply", TWO, "--yes"]), stopped);
    ended(&run, 0);
    assert_eq!(held(&memory).await, None);
}

#[tokio::test(start_paused = true)]
async fn whoever_breaks_a_lock_waits_until_its_owner_has_noticed() {
    for at in [3, 17, 18, 19, 20] {
        let memory = Memory::new();
        // Nothing lasts: only hearing of it can keep the first one from its next step.
        let slow = memory.clone().with_latency(Duration::from_millis(900));
        let breaker = async {
            sleep(Duration::from_secs(at)).await;
            let _ = memory.take_journal();
            let forced = ["apply", NEXT, "--yes", "--allow-data-loss", "--break-lock"];
            let broken = tokio::time::Instant::now();
            let run = program(&memory, &forced).await;
            (run, broken.elapsed())
        };
        let first = async {
            let many = "tests/locking/many.kdl";
            let run = program(&slow, &["apply", many, "--yes", "--parallel", "1"]).await;
            (run, tokio::time::Instant::now())
        };
        let begun = tokio::time::Instant::now();
        let ((first, ended_at), (second, took)) = tokio::join!(first, breaker);
        ended(&first, 1);
        ended(&second, 0);
        let left = ended_at.duration_since(begun).as_secs_f64() - at as f64;
        assert!(left < 4.0, "at {at}: the first one left {left} s after");
        assert!(took >= Duration::from_secs(4), "and the second waited: {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn force_takes_the_lock_of_the_living() {
    let memory = locked(&lock(1)).await;
    let run = program(&memory, &["apply", TWO, "--yes", "--break-lock"]).await;
    ended(&run, 0);
    let said = "Took over the lock of demo from alice on here (process 1): by force, and waited 4 s for them to notice. \
                Were they stopped, or cut off, they may go on for up to 4 s once they wake up.\n";
    assert!(run.stderr.starts_with(said), "{}", run.stderr);
    // And one that makes no sense, which nothing else takes.
    for (arguments, code) in [
        (&["apply", TWO, "--yes"][..], 4),
        (&["apply", TWO, "--yes", "--lock-timeout", "1s"], 4),
        (&["apply", TWO, "--yes", "--break-lock"], 0),
    ] {
        let odd = Note::new("written by version 7").expect("a note");
        let _ = memory.create_note(&demo(), NoteKey::Lock, &odd).await;
        let run = program(&memory, arguments).await;
        ended(&run, code);
        assert!(
            code == 0 || run.stderr.contains("this version cannot read who"),
            "{}",
            run.stderr
        );
    }
}

#[tokio::test]
async fn destroying_ends_all_notes_and_applying_spares_those_of_others() {
    let memory = Memory::new();
    let key = Note::new("a key").expect("a note");
    let made = memory.create_note(&demo(), NoteKey::SecretKey, &key).await;
    made.expect("makes a note");
    ended(&program(&memory, &["apply", TWO, "--yes"]).await, 0);
    let kept = async || memory.note(&demo(), NoteKey::SecretKey).await.expect("reads");
    assert_eq!(kept().await, Some(key));
    ended(&program(&memory, &["destroy", TWO, "--allow-data-loss"]).await, 0);
    assert_eq!((kept().await, held(&memory).await), (None, None));
}

#[tokio::test]
async fn a_failed_apply_lets_go_and_an_unheard_one_leaves_the_lock() {
    let memory = Memory::new();
    memory.make_foreign("demo-base").expect("makes");
    ended(&program(&memory, &["apply", TWO, "--yes"]).await, 4);
    assert_eq!(held(&memory).await, None);
    memory
        .delete(&InstanceName::observed("demo-base"))
        .await
        .expect("deletes");
    let failing = Faulty::new(Arc::new(memory.clone()), 3, Fault::Before(ErrorKind::Failed));
    ended(&program_on(Arc::new(failing), &["apply", TWO, "--yes"], NOW).await, 1);
    assert_eq!(held(&memory).await, None);
    let unheard = Faulty::new(Arc::new(memory.clone()), 3, Fault::After);
    ended(&program_on(Arc::new(unheard), &["apply", TWO, "--yes"], NOW).await, 1);
    let left = held(&memory).await.as_ref().and_then(Holder::read).expect("a lock");
    assert!(left.left, "{left:?}");
    ended(&program(&memory, &["apply", TWO, "--yes"]).await, 0);
    assert_eq!(calls(&memory, "settle"), 1);
}

#[tokio::test]
async fn a_fault_at_any_call_leaves_a_lock_that_the_next_apply_gets() {
    let faults = [
        Fault::Before(ErrorKind::Unreachable),
        Fault::Before(ErrorKind::Failed),
        Fault::Within,
        Fault::After,
        Fault::DeathBefore,
        Fault::DeathWithin,
        Fault::DeathAfter,
    ];
    let mut struck = 0;
    for fault in faults {
        for at in 1.. {
            let memory = Memory::new();
            let faulty = Arc::new(Faulty::new(Arc::new(memory.clone()), at, fault));
            let run = program_on(faulty.clone(), &["apply", TWO, "--yes"], NOW).await;
            if !faulty.has_struck() {
                ended(&run, 0);
                break;
            }
            struck += 1;
            // The process that died is dead; the others have ended, too.
            if let Some(found) = held(&memory).await {
                let mut holder = Holder::read(&found).expect("a lock");
                holder.process.pid = DEAD;
                let marked = memory
                    .replace_note(&demo(), NoteKey::Lock, &found, &note(&holder))
                    .await;
                marked.expect("replaces");
            }
            let next = program(&memory, &["apply", TWO, "--yes"]).await;
            ended(&next, 0);
            assert_eq!(held(&memory).await, None, "{fault:?} at {at}");
            assert_eq!(memory.names(), ["demo-base", "demo-other"]);
            let again = program(&memory, &["plan", TWO, "--detailed-exitcode"]).await;
            ended(&again, 0);
        }
    }
    assert!(struck > 50, "{struck} faults");
}
