//! What goes wrong on the way is survived: the program applies a spec while the simulated server misbehaves, and a plan
//! is empty afterwards.

use std::time::Duration;

use super::sim::{Cut, Dialect, Knobs, Login, Peer, Sim};
use crate::support::daemon::tell;
use crate::support::program::{Run, real_program};

/// An environment of a test's own, on a simulation of its own.
struct World {
    sim: Sim,
    folder: tempfile::TempDir,
}

impl World {
    async fn new(dialect: Dialect, knobs: Knobs) -> Self {
        let sim = Sim::start(dialect, knobs).await;
        let folder = tempfile::tempdir().expect("a folder");
        let image = match dialect {
            Dialect::V26 => "alpine:3.20:amd64:default/20251101_07:42",
            _ => "alpine/3.20",
        };
        let spec = format!(
            r#"environment "faults"
backend "truenas" {{
    host "127.0.0.1"
    port {}
    username "{}"
    server-certificate "{}"
}}
sandbox "base" {{
    image "{image}"
    state "stopped"
    env VERSION="1"
    file "/etc/motd" content="hello\n"
    run "prepare" command="mkdir -p /srv; echo done >> /srv/steps"
    snapshot "ready"
}}
sandbox "task" count=2 {{
    clone-from "base" snapshot="ready"
    file "/root/task" content="a task\n" mode="0600"
    run "check" command="test -f /srv/steps"
}}
"#,
            sim.tls_port(),
            sim.username(),
            folder.path().join("server.pem").display(),
        );
        std::fs::write(folder.path().join("server.pem"), sim.certificate()).expect("writes");
        std::fs::write(folder.path().join("sbx.kdl"), spec).expect("writes");
        Self { sim, folder }
    }

    async fn run(&self, arguments: &[&str]) -> Run {
        let spec = self.folder.path().join("sbx.kdl").display().to_string();
        let (verb, rest) = arguments.split_first().expect("a verb");
        let arguments = [&[*verb, spec.as_str()], rest].concat();
        let variables = [("SBX_TRUENAS_API_KEY", self.sim.key()), ("SBX_HOST", "127.0.0.1")];
        let run = real_program(&arguments, &variables).await;
        assert!(!run.stdout.contains(self.sim.key()) && !run.stderr.contains(self.sim.key()), "the key is told");
        run
    }

    /// Applies, and sees that nothing is left to do and that nothing was hurt.
    async fn converges(&self, what: &str) {
        let begun = std::time::Instant::now();
        let run = self.run(&["apply", "--yes"]).await;
        assert_eq!(run.code, 0, "{what}: {}\n{}", run.stdout, run.stderr);
        let plan = self.run(&["plan", "--detailed-exitcode"]).await;
        assert_eq!(plan.code, 0, "{what}: {}\n{}", plan.stdout, plan.stderr);
        assert_eq!(self.sim.violations(), Vec::<String>::new(), "{what}");
        tell(&format!("{what}, {:?}: {:.1?}", self.sim.dialect(), begun.elapsed()));
    }
}

/// Each fault by its name.
fn faults() -> Vec<(&'static str, Knobs)> {
    let knobs = Knobs::default;
    vec![
        ("idle connections are cut", Knobs { idle_cut: Some(Duration::from_secs(2)), ..knobs() }),
        ("answers come late", Knobs { delay: Duration::from_millis(40), ..knobs() }),
        ("connections are lost in jobs", Knobs { cut_jobs: 3, ..knobs() }),
        (
            "connections are lost before the job is known",
            Knobs { cut_jobs: 3, cut: Cut::BeforeAnswer, ..knobs() },
        ),
        ("events come twice", Knobs { double_events: true, ..knobs() }),
        ("no events come", Knobs { no_events: true, ..knobs() }),
        ("jobs end before their answers", Knobs { late_answers: true, ..knobs() }),
        ("busy", Knobs { busy: 4, ..knobs() }),
        ("jobs are busy", Knobs { busy_jobs: 3, ..knobs() }),
        ("no queue at locks", Knobs { lock_queue: 0, ..knobs() }),
        ("sessions expire", Knobs { session_calls: Some(40), ..knobs() }),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_is_survived() {
    if !Sim::has_containers().await {
        return;
    }
    // Each dialect in turn.
    for (index, (what, knobs)) in faults().into_iter().enumerate() {
        let world = World::new(Dialect::ALL[index % 3], knobs).await;
        world.converges(what).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_faults_at_once_are_survived() {
    if !Sim::has_containers().await {
        return;
    }
    for dialect in Dialect::ALL {
        let knobs = Knobs {
            idle_cut: Some(Duration::from_secs(5)),
            delay: Duration::from_millis(5),
            cut_jobs: 2,
            double_events: true,
            late_answers: true,
            busy: 2,
            busy_jobs: 1,
            ..Knobs::default()
        };
        World::new(dialect, knobs).await.converges("all at once").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_in_the_middle_is_survived() {
    if !Sim::has_containers().await {
        return;
    }
    for dialect in Dialect::ALL {
        let world = World::new(dialect, Knobs::default()).await;
        let restarts = async {
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_millis(700)).await;
                world.sim.restart();
            }
        };
        let (run, ()) = tokio::join!(world.run(&["apply", "--yes"]), restarts);
        // A job that nobody remembers may be given up; the next apply finds what it did.
        assert!(run.code == 0 || run.code == 1, "{}\n{}", run.stdout, run.stderr);
        world.converges("restarts").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_that_cannot_be_are_told_with_their_reason() {
    for (login, reason) in [
        (Login::Expired, "expired"),
        (Login::Otp, "one-time"),
        (Login::Unsupported, "API key"),
        (Login::Redirect, "other"),
    ] {
        let knobs = Knobs {
            login,
            ..Knobs::default()
        };
        let world = World::new(Dialect::V25_10, knobs).await;
        let run = world.run(&["plan"]).await;
        assert_eq!(run.code, 1);
        assert!(run.stderr.to_lowercase().contains(&reason.to_lowercase()), "{login:?}: {}", run.stderr);
    }
    // Over TLS a key is safe from anywhere.
    let knobs = Knobs {
        peer: Peer::Remote,
        ..Knobs::default()
    };
    let world = World::new(Dialect::V25_04, knobs).await;
    let run = world.run(&["doctor"]).await;
    assert_eq!((run.code, world.sim.violations().len()), (0, 0), "{}\n{}", run.stdout, run.stderr);
}
