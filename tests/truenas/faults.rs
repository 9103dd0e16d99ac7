//! What goes wrong on the way is survived: the program applies a spec while the simulated system misbehaves, finds
//! nothing to do afterwards, and has hurt nobody.

use std::time::Duration;

use super::sim::{Cut, Dialect, Knobs, Login, Sim};
use super::whole::Program;
use crate::support::daemon::tell;

const SPEC: &str = r#"
environment "NAME"
backend "truenas"
sandbox "base" {
    image "debian/bookworm"
    file "/etc/motd" content="hello\n"
    run "prepare" command="sleep 4; echo done > /srv/done"
    snapshot "ready"
}
sandbox "task" count=2 { clone-from "base" snapshot="ready"; file "/etc/task" content="a task\n"; }
"#;

/// What is true after an apply, whatever happened during it.
async fn is_whole(program: &Program<'_>, sim: &Sim, what: &str) {
    program.does(&["plan", "--detailed-exitcode"], 0).await;
    program.does(&["destroy", "--yes", "--allow-data-loss"], 0).await;
    assert_eq!(sim.violations(), Vec::<String>::new(), "{what}");
}

/// One apply under a fault converges.
async fn survives(what: &str, dialects: &[Dialect], turn: impl Fn(&mut Knobs)) {
    if !Sim::has_containers().await {
        return;
    }
    for dialect in dialects {
        let sim = Sim::start(*dialect, Knobs::default()).await;
        let program = Program::new(&sim, SPEC);
        sim.turn(&turn);
        let begun = std::time::Instant::now();
        let (code, said) = program.run(&["apply", "--yes"]).await;
        assert_eq!(code, 0, "{what} on {dialect:?}: {said}");
        is_whole(&program, &sim, what).await;
        let (seconds, connections) = (begun.elapsed().as_secs_f32(), sim.connections());
        tell(&format!(
            "{what}, {dialect:?}: {seconds:.1} s, {connections} connections"
        ));
    }
}

/// Two dialects, of which one has jobs for everything that changes and one hardly any.
const TWO: [Dialect; 2] = [Dialect::V25_10, Dialect::V26];

#[tokio::test]
async fn events_come_twice_and_answers_late() {
    survives("doubled events and late answers", &TWO, |knobs| {
        knobs.double_events = true;
        knobs.late_answers = true;
    })
    .await;
}

#[tokio::test]
async fn no_events_come() {
    survives("no events", &TWO, |knobs| knobs.no_events = true).await;
}

#[tokio::test]
async fn connections_are_lost_in_jobs() {
    survives("connections cut after the answer", &TWO, |knobs| {
        knobs.cut_jobs = 3;
        knobs.cut = Cut::AfterAnswer;
    })
    .await;
    survives("connections cut before the answer", &TWO, |knobs| {
        knobs.cut_jobs = 2;
        knobs.cut = Cut::BeforeAnswer;
    })
    .await;
}

#[tokio::test]
async fn the_system_is_busy() {
    survives("busy calls and jobs", &TWO, |knobs| {
        knobs.busy = 4;
        knobs.busy_jobs = 4;
    })
    .await;
}

#[tokio::test]
async fn locks_have_no_queue_and_jobs_are_slow() {
    survives("no queue at locks, slow jobs", &TWO, |knobs| {
        knobs.lock_queue = 0;
        knobs.slow_jobs = Duration::from_millis(300);
    })
    .await;
}

#[tokio::test]
async fn idle_connections_are_cut_and_sessions_end() {
    survives("idle connections and short sessions", &TWO, |knobs| {
        knobs.idle_cut = Some(Duration::from_secs(3));
        knobs.session_calls = Some(15);
    })
    .await;
}

#[tokio::test]
async fn all_of_it_at_once() {
    survives("all at once", &Dialect::ALL, |knobs| {
        knobs.idle_cut = Some(Duration::from_secs(3));
        knobs.delay = Duration::from_millis(5);
        knobs.session_calls = Some(100);
        knobs.cut_jobs = 2;
        knobs.cut = Cut::BeforeAnswer;
        knobs.double_events = true;
        knobs.late_answers = true;
        knobs.busy = 2;
        knobs.busy_jobs = 1;
    })
    .await;
}

#[tokio::test]
async fn restarts_forget_jobs_and_leave_what_they_did() {
    if !Sim::has_containers().await {
        return;
    }
    for dialect in Dialect::ALL {
        let sim = Sim::start(dialect, Knobs::default()).await;
        let program = Program::new(&sim, SPEC);
        let restarts = async {
            for _ in 0..4 {
                tokio::time::sleep(Duration::from_millis(600)).await;
                sim.restart();
            }
        };
        let ((code, said), ()) = tokio::join!(program.run(&["apply", "--yes"]), restarts);
        // What a job did that nobody remembers any more may be left to the next apply.
        assert!(code == 0 || code == 1, "{dialect:?}: {said}");
        program.does(&["apply", "--yes", "--allow-data-loss"], 0).await;
        is_whole(&program, &sim, "restarts").await;
        tell(&format!(
            "restarts, {dialect:?}: exit {code}, {} connections",
            sim.connections()
        ));
    }
}

/// Systems take snapshots of whole pools by the clock, of notes and of containers as well. They are in nobody's way.
#[tokio::test]
async fn snapshots_of_everything_are_taken_meanwhile() {
    if !Sim::has_containers().await {
        return;
    }
    for dialect in Dialect::ALL {
        let sim = Sim::start(dialect, Knobs::default()).await;
        let program = Program::new(&sim, SPEC);
        let clock = async {
            for number in 0.. {
                sim.snapshot_all(&format!("auto-{number}")).await;
                tokio::time::sleep(Duration::from_secs(3)).await;
            }
        };
        let work = async {
            program.does(&["apply", "--yes"], 0).await;
            program.does(&["plan", "--detailed-exitcode"], 0).await;
            assert_eq!(
                sim.datasets_with("/lock").await,
                Vec::<String>::new(),
                "nobody holds the lock"
            );
            program.does(&["destroy", "--yes", "--allow-data-loss"], 0).await;
        };
        tokio::select! {
            () = work => {}
            () = clock => {}
        }
        let left = sim.datasets_with(&format!("sbx-apply/{}", program.environment())).await;
        assert_eq!(left, Vec::<String>::new());
        assert_eq!(sim.violations(), Vec::<String>::new());
    }
}

/// A key that runs out in the middle ends the apply, which says so; with a good one, the next goes on from there.
#[tokio::test]
async fn a_key_runs_out_in_the_middle() {
    if !Sim::has_containers().await {
        return;
    }
    for dialect in Dialect::ALL {
        let sim = Sim::start(dialect, Knobs::default()).await;
        let program = Program::new(&sim, SPEC);
        let expiry = async {
            // Something has begun, and it is not at its end.
            while !sim.requests().iter().any(|request| request.method.ends_with(".create")) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            sim.turn(|knobs| {
                knobs.login = Login::Expired;
                knobs.session_calls = Some(0);
            });
        };
        let ((code, said), ()) = tokio::join!(program.run(&["apply", "--yes"]), expiry);
        assert_eq!(code, 1, "{dialect:?}: {said}");
        assert!(said.contains("has expired, or was revoked"), "{dialect:?}: {said}");
        sim.turn(|knobs| {
            knobs.login = Login::Normal;
            knobs.session_calls = None;
        });
        program.does(&["apply", "--yes", "--allow-data-loss"], 0).await;
        is_whole(&program, &sim, "a key that ran out").await;
    }
}
