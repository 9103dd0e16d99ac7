//! What a command needs, found by running it.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};

use super::internet::CANARY;
use super::scene::{Scene, comes_true, connect};

const WEB: &str = r#"
egress "web" { allow "allowed.test" port=8080 protocol="tcp"; }
sandbox "one" { egress "web"; }
sandbox "other" { egress "web"; }
"#;

/// A scene with one more name.
fn begun(scene: &Scene) {
    scene.internet.name("tool.test", &["198.51.100.12"]);
    scene.apply(WEB);
}

fn learn<'a>(scene: &Scene, options: &[&'a str], script: &'a str) -> (Option<i32>, String, String) {
    let spec = scene.spec();
    let mut arguments = vec!["egress", "learn", spec.to_str().expect("a path"), "one", "--root"];
    arguments.extend(options);
    arguments.extend(["--", "/bin/sh", "-c", script]);
    let output = scene.run(&arguments);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// A learning that has begun and says so: its command has reached the canary.
fn under_way(scene: &Scene) -> Child {
    let spec = scene.spec();
    let script = format!("{}; sleep 60", connect(CANARY, 8080));
    let arguments = [
        "egress",
        "learn",
        spec.to_str().expect("a path"),
        "one",
        "--root",
        "--yes",
    ];
    let mut child = scene
        .command(&[&arguments[..], &["--", "/bin/sh", "-c", &script]].concat())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("starts");
    let mut line = String::new();
    let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    stdout.read_line(&mut line).expect("text");
    assert_eq!(line, "REACHED\n");
    child.stdout = Some(stdout.into_inner());
    child
}

/// Nothing is left of it: no rule, no way out, nothing to repair.
fn is_as_it_was(scene: &Scene) {
    let check = scene.says(0, &["check"]);
    assert!(check.contains("No changes"), "{check}");
    for sandbox in ["one", "other"] {
        assert!(!scene.reaches(sandbox, CANARY, 8080), "{sandbox}");
        assert!(scene.comes_to_reach(sandbox, "allowed.test", 8080), "{sandbox}");
        assert!(!scene.inside(sandbox, "nslookup tool.test").contains("198.51.100.12"));
    }
    let tables = Command::new("nft").args(["list", "tables"]).output().expect("nft runs");
    assert!(!String::from_utf8_lossy(&tables.stdout).contains("sbx-apply-watch-"));
}

fn a_command_tells_what_it_needs(scene: &Scene) {
    begun(scene);
    let (code, _, said) = learn(scene, &[], "echo ran");
    assert_eq!(code, Some(4), "{said}");
    assert!(
        said.contains("can reach everything but this machine") && said.contains("--yes"),
        "{said}"
    );

    let script = format!(
        "{}; {}; {}; {}; nslookup gone.test >/dev/null 2>&1; nslookup example.com >/dev/null 2>&1; exit 7",
        connect("allowed.test", 8080),
        connect("tool.test", 9000),
        connect("tool.test", 9000),
        connect(CANARY, 8080),
    );
    let (code, out, said) = learn(scene, &["--yes"], &script);
    assert_eq!(code, Some(7), "{out}{said}");
    // What the servers echo is none of it.
    let lines: Vec<&str> = out.lines().filter(|line| *line != "echo ").collect();
    assert_eq!(lines[..4], ["REACHED"; 4], "everything is open meanwhile: {out}{said}");
    assert_eq!(
        lines[4..],
        [
            "// What was asked for and the policy web does not open. Read it before you add it.",
            "// Looked up, and does not resolve: gone.test",
            "// Looked up, and no connection made: example.com",
            "egress \"web\" {",
            "    // twice",
            "    allow \"tool.test\" port=9000 protocol=\"tcp\"",
            "    // once",
            "    allow \"198.51.100.20\" port=8080 protocol=\"tcp\"",
            "}",
        ],
        "{said}"
    );
    is_as_it_was(scene);

    // What it printed is all that it needs.
    let patched = WEB.replace(
        "protocol=\"tcp\"; }",
        "protocol=\"tcp\"; allow \"tool.test\" port=9000 protocol=\"tcp\"; allow \"198.51.100.20\" port=8080 protocol=\"tcp\"; }",
    );
    scene.apply(&patched);
    assert_eq!(scene.inside("one", &script).matches("REACHED").count(), 4);
    let (_, out, _) = learn(scene, &["--yes"], &script);
    assert!(out.contains("Nothing is missing") && !out.contains("allow"), "{out}");

    let out = scene.spec().with_file_name("needed.kdl");
    let (code, said, _) = learn(scene, &["--yes", "--out", out.to_str().expect("a path")], "exit 0");
    assert_eq!((code, said.as_str()), (Some(0), ""));
    assert_eq!(fs::read_to_string(out).expect("a file"), "// No connection was made.\n");
}

fn only_that_sandbox_is_opened_and_the_machine_stays_closed(scene: &Scene) {
    begun(scene);
    let listener = std::net::TcpListener::bind("0.0.0.0:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = std::io::Write::write_all(&mut stream, b"REACHED\n");
        }
    });
    let gateway = scene.inside("one", "ip route | sed -n 's/default via \\([0-9.]*\\).*/\\1/p'");
    let (_, out, _) = learn(scene, &["--yes"], &format!("{}; exit 3", connect(gateway.trim(), port)));
    assert!(!out.contains("REACHED"), "{out}");

    let mut child = under_way(scene);
    assert!(!scene.reaches("other", CANARY, 8080), "who shares the policy");
    assert!(scene.comes_to_reach("other", "allowed.test", 8080));
    assert!(!scene.inside("other", "nslookup tool.test").contains("198.51.100.12"));
    let locked = scene.says(4, &["apply", "--yes"]);
    assert!(locked.contains("egress learn"), "{locked}");
    // Ctrl-C.
    kill_process(Pid::from_child(&child), Signal::INT).expect("it runs");
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut child.stdout.take().expect("a pipe"), &mut rest).expect("text");
    assert_eq!(child.wait().expect("ends").code(), Some(130), "{rest}");
    assert!(rest.contains("allow \"198.51.100.20\" port=8080"), "{rest}");
    is_as_it_was(scene);
}

/// A connection that a command leaves behind says nothing more once it is over.
fn connections_are_cut_off(scene: &Scene) {
    begun(scene);
    let begin = format!(
        "mkfifo /tmp/in; (sleep 600 > /tmp/in) >/dev/null 2>&1 & \
         (nc {CANARY} 8080 < /tmp/in > /tmp/out) >/dev/null 2>&1 & \
         for i in 1 2 3 4 5 6 7 8 9; do grep -q REACHED /tmp/out 2>/dev/null && break; sleep 0.2; done; \
         echo one > /tmp/in; sleep 1; cat /tmp/out"
    );
    let (_, out, said) = learn(scene, &["--yes"], &begin);
    assert!(out.contains("REACHED\necho one\n"), "it works meanwhile: {out}{said}");
    let later = scene.inside("one", "echo two > /tmp/in; sleep 2; cat /tmp/out");
    assert!(later.contains("echo one") && !later.contains("echo two"), "{later}");
    is_as_it_was(scene);
}

fn a_kill_closes_at_once(scene: &Scene) {
    begun(scene);
    let mut child = under_way(scene);
    child.kill().expect("killed");
    child.wait().expect("ended");
    assert!(comes_true(|| !scene.reaches("one", CANARY, 8080)), "it stays open");
    assert!(!scene.reaches("other", CANARY, 8080));
    let check = scene.says(3, &["check"]);
    assert!(check.contains("not enforced as it should be"), "{check}");
    scene.says(0, &["apply", "--yes"]);
    is_as_it_was(scene);
}

/// What has no policy yet.
fn an_open_sandbox_is_watched_too(scene: &Scene) {
    scene.internet.name("tool.test", &["198.51.100.12"]);
    scene.apply("sandbox \"one\" count=1");
    let spec = scene.spec();
    let name = match scene.says(0, &["show"]).contains("one-1") {
        true => "one-1",
        false => "one",
    };
    let output = scene.run(&[
        "egress",
        "learn",
        spec.to_str().expect("a path"),
        name,
        "--root",
        "--yes",
        "--",
        "/bin/sh",
        "-c",
        &connect("tool.test", 9000),
    ]);
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        out.contains("sandbox \"one\" {\n    egress {\n        // once\n        allow \"tool.test\" port=9000"),
        "{out}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(out.contains("The spec says unrestricted"), "{out}");
    assert!(scene.says(0, &["check"]).contains("No changes"));
    assert!(scene.comes_to_reach(name, CANARY, 8080));
}

mod on_local {
    use super::*;

    #[test]
    fn a_command_tells_what_it_needs() {
        Scene::on_local("learn").inspect(super::a_command_tells_what_it_needs);
    }

    #[test]
    fn only_that_sandbox_is_opened_and_the_machine_stays_closed() {
        Scene::on_local("learnone").inspect(super::only_that_sandbox_is_opened_and_the_machine_stays_closed);
    }

    #[test]
    fn connections_are_cut_off() {
        Scene::on_local("learncut").inspect(super::connections_are_cut_off);
    }

    #[test]
    fn a_kill_closes_at_once() {
        Scene::on_local("learnkill").inspect(super::a_kill_closes_at_once);
    }

    #[test]
    fn an_open_sandbox_is_watched_too() {
        Scene::on_local("learnopen").inspect(super::an_open_sandbox_is_watched_too);
    }
}

mod on_incus {
    use super::*;

    #[test]
    fn a_command_tells_what_it_needs() {
        Scene::on_incus("learn").inspect(super::a_command_tells_what_it_needs);
    }

    #[test]
    fn only_that_sandbox_is_opened_and_the_machine_stays_closed() {
        Scene::on_incus("learnone").inspect(super::only_that_sandbox_is_opened_and_the_machine_stays_closed);
    }

    #[test]
    fn connections_are_cut_off() {
        Scene::on_incus("learncut").inspect(super::connections_are_cut_off);
    }

    #[test]
    fn a_kill_closes_at_once() {
        Scene::on_incus("learnkill").inspect(super::a_kill_closes_at_once);
    }

    #[test]
    fn an_open_sandbox_is_watched_too() {
        Scene::on_incus("learnopen").inspect(super::an_open_sandbox_is_watched_too);
    }
}
