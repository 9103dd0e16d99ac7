//! What people make with the daemon's own client: exported, adopted, in sync.

use std::collections::BTreeMap;
use std::process::Command;

use futures_util::future::join_all;
use sbx_apply::backend::ErrorKind;
use sbx_apply::model::{InstanceName, Labels};

use crate::conformance::fixture::{Fixture, incus, run as with_fixture};
use crate::support::daemon::{self, Daemon};
use crate::support::program::{Run, real_program};

fn client(daemon: &Daemon, arguments: &[&str]) {
    let output = Command::new("incus")
        .args(arguments)
        .env("INCUS_SOCKET", &daemon.socket)
        .stdin(std::process::Stdio::null())
        .output()
        .expect("the incus client is installed with the daemon");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "incus {arguments:?}: {error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_people_made_is_exported_adopted_and_in_sync() {
    let Some(daemon) = daemon::find() else { return };
    let id = std::process::id();
    let (one, two, copy) = (format!("Hand{id}"), format!("shop{id}-db"), format!("copy{id}"));
    let profile = format!("sized{id}");
    client(&daemon, &["profile", "copy", "default", &profile]);
    client(&daemon, &["profile", "device", "set", &profile, "root", "size=3GiB"]);
    client(
        &daemon,
        &[
            "launch",
            "busybox",
            &one,
            "-p",
            &profile,
            "-c",
            "limits.cpu=1",
            "-c",
            "limits.memory=256MiB",
        ],
    );
    client(
        &daemon,
        &["config", "set", &one, "environment.GREETING=hello ${name} \"x\""],
    );
    client(&daemon, &["config", "set", &one, "user.note=a # b: c"]);
    client(&daemon, &["config", "set", &one, "security.nesting=true"]);
    client(&daemon, &["config", "set", &one, "security.protection.delete=false"]);
    client(&daemon, &["snapshot", "create", &one, "by-hand"]);
    client(&daemon, &["init", "busybox", &two, "-c", "limits.memory=25%"]);
    client(&daemon, &["config", "device", "override", &two, "root", "size=2GiB"]);
    client(&daemon, &["copy", &one, &copy, "--instance-only"]);

    let socket = daemon.socket.display().to_string();
    let folder = tempfile::tempdir().expect("a folder");
    let run = async |words: &[&str], code: u8| -> Run {
        let words = [words, &["--socket", &socket]].concat();
        let run = real_program(&words, &[]).await;
        assert_eq!(run.code, code, "{words:?}\n{}\n{}", run.stdout, run.stderr);
        run
    };
    let shown = |name: &str| {
        let output = Command::new("incus")
            .args(["config", "show", name])
            .env("INCUS_SOCKET", &daemon.socket)
            .output();
        let text = String::from_utf8(output.expect("runs").stdout).expect("text");
        let ours = |line: &&str| !line.trim_start().starts_with("user.sbx-apply.");
        text.lines().filter(ours).collect::<Vec<_>>().join("\n")
    };
    let before: BTreeMap<&String, String> = [&one, &two, &copy].map(|name| (name, shown(name))).into();
    for format in ["kdl", "yaml"] {
        let environment = format!("shop{id}");
        let names = [one.as_str(), &two, &copy];
        let words = [
            &[
                "export",
                "--backend",
                "incus",
                "--environment",
                &environment,
                "--format",
                format,
            ],
            &names[..],
        ];
        let text = run(&words.concat(), 0).await.stdout;
        let path = folder.path().join(format!("sbx.{format}")).display().to_string();
        std::fs::write(&path, &text).expect("writes");
        for said in [
            "the snapshot by-hand was taken by hand",
            "the setting security.protection.delete is false",
        ] {
            assert!(text.contains(said), "{said}\n{text}");
        }
        assert!(
            !text.contains("3GiB"),
            "what a profile gives is nobody's declaration: {text}"
        );
        let adopt: Vec<String> = text
            .lines()
            .filter_map(|line| Some(line.split_once("sbx-apply adopt SPEC ")?.1.to_owned()))
            .collect();
        assert_eq!(adopt.len(), 3, "{text}");
        for names in adopt {
            let (sandbox, instance) = names.split_once(' ').expect("two names");
            run(&["adopt", &path, sandbox, instance], 0).await;
            run(&["adopt", &path, sandbox, instance], 0).await;
            assert_eq!(shown(instance), before[&instance.to_owned()], "nothing but labels");
        }
        run(&["plan", &path, "--detailed-exitcode"], 0).await;
        // What is ours by now plans empty as it is exported; and is given back for the next round.
        let text = run(&["export", "--backend", "incus", "--environment", &environment], 0)
            .await
            .stdout;
        let again = folder.path().join("again.kdl").display().to_string();
        std::fs::write(&again, &text).expect("writes");
        run(&["plan", &again, "--detailed-exitcode"], 0).await;
        run(&["apply", &again], 0).await;
        for name in [&one, &two, &copy] {
            for label in [
                Labels::ENVIRONMENT,
                Labels::SANDBOX,
                Labels::INSTANCE,
                Labels::APPLIED,
                Labels::COMPLETE,
            ] {
                client(&daemon, &["config", "unset", name, &format!("user.sbx-apply.{label}")]);
            }
        }
    }
    for name in [&one, &two, &copy] {
        client(&daemon, &["delete", "--force", name]);
    }
    client(&daemon, &["profile", "delete", &profile]);
}

#[tokio::test]
async fn of_many_who_adopt_at_once_one_is_told_that_it_did() {
    with_fixture(incus().await, async |f: &Fixture| {
        let name: InstanceName = f.stopped("one").await;
        let seen = f.observed(&name).await.labels;
        let claim = async |index: usize| {
            let mut labels = seen.clone();
            labels.0.insert("environment".to_owned(), format!("claim-{index}"));
            (f.backend.relabel(&name, &seen, &labels).await, labels)
        };
        // One after the other: whoever looked before is refused.
        let (first, labels) = claim(0).await;
        first.expect("nobody else was there");
        let (second, _) = claim(1).await;
        assert_eq!(second.map_err(|error| error.kind()), Err(ErrorKind::Conflict));
        assert_eq!(f.observed(&name).await.labels, labels);
        f.backend.relabel(&name, &labels, &seen).await.expect("back");
        // At once: whatever is told, one set of labels stands, whole.
        let answers = join_all((0..6).map(claim)).await;
        let left = f.observed(&name).await.labels;
        let told: Vec<_> = answers
            .iter()
            .filter(|(answer, _)| answer.is_ok())
            .map(|(_, labels)| labels)
            .collect();
        assert!(!told.is_empty() && told.contains(&&left), "{answers:?} {left:?}");
    })
    .await;
}
