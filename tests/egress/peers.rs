//! Sandboxes that policies open to others by their names.

use std::thread;
use std::time::Duration;

use super::internet::CANARY;
use super::scene::{On, Scene, comes_true, connect};

/// `web` may ask `db`, which is closed itself, and `open`, which is not; `cache` is nobody's.
const SPEC: &str = r#"
sandbox "db" { egress { mode "none"; }; }
sandbox "cache" { egress { mode "none"; }; }
sandbox "open"
sandbox "web" { egress { allow sandbox="db" port=5432 protocol="tcp"; allow sandbox="open" port=5432 protocol="tcp"; }; }
"#;

/// Has a sandbox answer on two ports.
fn serve(scene: &Scene, sandbox: &str) {
    let script =
        "for port in 5432 7000; do (while true; do echo REACHED | nc -l -p $port; done) >/dev/null 2>&1 & done";
    scene.inside(sandbox, script);
}

/// The address that a sandbox has.
fn address(scene: &Scene, sandbox: &str) -> String {
    let mut found = String::new();
    assert!(comes_true(|| {
        found = scene.inside(
            sandbox,
            "ip -4 addr show eth0 | sed -n 's/.*inet \\([0-9.]*\\).*/\\1/p'",
        );
        !found.trim().is_empty()
    }));
    found.trim().to_owned()
}

fn named_sandboxes_are_reached_and_no_others(scene: &Scene) {
    scene.write(SPEC);
    let plan = scene.says(0, &["plan"]);
    assert!(plan.contains("allowlist, 2 destinations"), "{plan}");
    scene.says(0, &["apply", "--yes"]);
    assert!(scene.says(0, &["plan"]).contains("No changes"));
    for sandbox in ["db", "cache", "open", "web"] {
        serve(scene, sandbox);
    }
    assert!(scene.comes_to_reach("web", "db", 5432), "by its name");
    assert!(scene.comes_to_reach("web", "open", 5432), "one without a policy, too");
    assert!(
        scene.comes_to_reach("web", &address(scene, "db"), 5432),
        "by its address"
    );
    let (db, cache, web) = (address(scene, "db"), address(scene, "cache"), address(scene, "web"));
    for (from, to, port) in [
        ("web", &db, 7000),
        ("web", &cache, 5432),
        ("web", &address(scene, "open"), 7000),
        ("db", &web, 5432),
        ("db", &cache, 5432),
        ("cache", &db, 5432),
        ("open", &db, 5432),
    ] {
        assert!(!scene.reaches(from, to, port), "{from} to {to}:{port}");
    }
    assert!(!scene.reaches("web", CANARY, 8080) && !scene.reaches("db", CANARY, 8080));
    let probed = scene.says(0, &["check", "--probe", "--canary", &format!("{CANARY}:8080")]);
    let held = |line: &str| {
        probed
            .lines()
            .any(|shown| shown.contains(line) && shown.contains("held"))
    };
    assert!(
        held("allowed sandbox/db:5432/tcp") && !probed.contains("LEAK"),
        "{probed}"
    );

    let exported = scene.says(
        0,
        &[
            "export",
            "--backend",
            scene.backend(),
            "--environment",
            scene.environment(),
        ],
    );
    assert!(
        exported.contains("allow sandbox=\"db\" port=\"5432\" protocol=\"tcp\""),
        "{exported}"
    );

    // Made anew, it is somewhere else, or may be: the policy follows.
    remove(scene, "db");
    scene.says(0, &["apply", "--yes"]);
    assert!(scene.says(0, &["check"]).contains("No changes"));
    serve(scene, "db");
    assert!(scene.comes_to_reach("web", "db", 5432));

    // By hand, too, which is drift.
    scene.says(0, &["egress", "deny", "web", "sandbox/db"]);
    assert!(!scene.reaches("web", "db", 5432));
    assert!(scene.says(3, &["check"]).contains("+ sandbox/db:5432/tcp (drift)"));
    let allow = [
        "egress",
        "allow",
        "web",
        "sandbox/db",
        "--port",
        "5432",
        "--protocol",
        "tcp",
    ];
    scene.says(0, &allow);
    assert!(scene.comes_to_reach("web", "db", 5432) && scene.says(0, &["check"]).contains("No changes"));

    // Taken out, it is closed, while the other stays open.
    let fewer = SPEC.replace("allow sandbox=\"db\" port=5432 protocol=\"tcp\";", "");
    scene.write(&fewer);
    let plan = scene.says(0, &["plan"]);
    assert!(
        plan.contains("- sandbox/db:5432/tcp  no longer reachable (pending)") && !plan.contains("restart"),
        "{plan}"
    );
    assert!(!plan.contains("drift") && !plan.contains("conflict"), "{plan}");
    scene.says(0, &["apply", "--yes"]);
    assert!(scene.says(0, &["plan"]).contains("No changes"));
    assert!(!scene.reaches("web", &address(scene, "db"), 5432) && scene.comes_to_reach("web", "open", 5432));
}

/// Deletes what a sandbox is, by hand.
fn remove(scene: &Scene, sandbox: &str) {
    match &scene.on {
        On::Incus(_) => drop(scene.client(&["delete", "--force", &scene.instance(sandbox)])),
        // Nobody has another hand in it than the program.
        On::Local(_) => {
            let without: String = SPEC
                .lines()
                .filter(|line| !line.starts_with(&format!("sandbox \"{sandbox}\"")))
                .map(|line| {
                    format!(
                        "{}\n",
                        line.replace("allow sandbox=\"db\" port=5432 protocol=\"tcp\";", "")
                    )
                })
                .collect();
            scene.write(&without);
            scene.says(0, &["apply", "--yes", "--prune"]);
            scene.write(SPEC);
        }
    }
}

/// What is closed ends for both of its ends: also for the one that sends by a connection that was open.
fn what_is_closed_ends_on_both_sides(scene: &Scene) {
    let open = "sandbox \"db\" { egress { mode \"none\"; }; }\n\
                sandbox \"web\" { egress { allow sandbox=\"db\" port=5432 protocol=\"tcp\"; allow \"192.0.2.1\"; }; }\n";
    scene.apply(open);
    let speaks = "(while true; do (while echo REACHED; do sleep 0.1; done) | nc -l -p 5432; done) >/dev/null 2>&1 &";
    scene.inside("db", speaks);
    assert!(scene.comes_to_reach("web", "db", 5432));
    let heard = |scene: &Scene| {
        scene
            .inside("web", "wc -l </tmp/heard")
            .trim()
            .parse::<u64>()
            .unwrap_or(0)
    };
    scene.inside("web", "(sleep 600 | nc db 5432 >/tmp/heard) >/dev/null 2>&1 &");
    assert!(comes_true(|| heard(scene) > 5));
    scene.apply(&open.replace("allow sandbox=\"db\" port=5432 protocol=\"tcp\"; ", ""));
    // What was on its way has arrived.
    thread::sleep(Duration::from_secs(1));
    let before = heard(scene);
    thread::sleep(Duration::from_secs(3));
    assert_eq!(heard(scene), before, "nothing comes by it any more");
}

/// What a policy opens to other sandboxes stays open while somebody learns, and no more of them is.
fn learning_leaves_them_open(scene: &Scene) {
    scene.apply(SPEC);
    for sandbox in ["db", "cache"] {
        serve(scene, sandbox);
    }
    assert!(scene.comes_to_reach("web", "db", 5432));
    let (db, cache) = (address(scene, "db"), address(scene, "cache"));
    let script = format!(
        "{}; {}; echo; {}; {}; {}",
        connect("db", 5432),
        connect(CANARY, 8080),
        connect(&db, 7000),
        connect(&cache, 5432),
        connect(&cache, 7000),
    );
    let learn = [
        "egress", "learn", "web", "--yes", "--root", "--", "/bin/sh", "-c", &script,
    ];
    let output = scene.run(&learn);
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(out.matches("REACHED").count(), 2, "{out}{said}");
    assert!(
        out.contains("    allow sandbox=\"db\" port=7000 protocol=\"tcp\"\n")
            && !out.contains("sandbox=\"db\" port=5432"),
        "{out}{said}"
    );
    let check = scene.says(0, &["check"]);
    assert!(check.contains("No changes"), "{check}");
    assert!(scene.comes_to_reach("web", "db", 5432) && !scene.reaches("web", CANARY, 8080));
}

/// Where nobody can reach the table of the daemon's host, its ACLs alone keep it.
fn an_incus_of_another_machine_keeps_them_too(scene: &Scene) {
    scene.apply(SPEC);
    assert!(scene.says(0, &["plan"]).contains("No changes"));
    for sandbox in ["db", "cache", "web"] {
        serve(scene, sandbox);
    }
    assert!(scene.comes_to_reach("web", "db", 5432));
    let (db, cache, web) = (address(scene, "db"), address(scene, "cache"), address(scene, "web"));
    let closed = [
        ("web", &db, 7000),
        ("web", &cache, 5432),
        ("db", &web, 5432),
        ("cache", &db, 5432),
    ];
    for (from, to, port) in closed {
        assert!(!scene.reaches(from, to, port), "{from} to {to}:{port}");
    }
    scene.apply(&SPEC.replace("allow sandbox=\"db\" port=5432 protocol=\"tcp\";", ""));
    assert!(!scene.reaches("web", &db, 5432));
}

/// Each opens the other, and one depends on the other: neither waits for ever.
fn two_that_open_each_other(scene: &Scene) {
    scene.apply(
        r#"
sandbox "one" { egress { allow sandbox="two" port=5432 protocol="tcp"; }; }
sandbox "two" { depends-on "one"; egress { allow sandbox="one" port=5432 protocol="tcp"; }; }
"#,
    );
    assert!(scene.says(0, &["plan"]).contains("No changes"));
    serve(scene, "one");
    serve(scene, "two");
    assert!(scene.comes_to_reach("one", "two", 5432) && scene.comes_to_reach("two", "one", 5432));
    assert!(!scene.reaches("one", &address(scene, "two"), 7000));
}

mod on_local {
    use super::*;

    #[test]
    fn named_sandboxes_are_reached_and_no_others() {
        Scene::on_local("peers").inspect(super::named_sandboxes_are_reached_and_no_others);
    }

    #[test]
    fn what_is_closed_ends_on_both_sides() {
        Scene::on_local("ends").inspect(super::what_is_closed_ends_on_both_sides);
    }

    #[test]
    fn learning_leaves_them_open() {
        Scene::on_local("learns").inspect(super::learning_leaves_them_open);
    }

    #[test]
    fn two_that_open_each_other() {
        Scene::on_local("each").inspect(super::two_that_open_each_other);
    }
}

mod on_incus {
    use super::*;

    #[test]
    fn named_sandboxes_are_reached_and_no_others() {
        Scene::on_incus("peers").inspect(super::named_sandboxes_are_reached_and_no_others);
    }

    #[test]
    fn what_is_closed_ends_on_both_sides() {
        Scene::on_incus("ends").inspect(super::what_is_closed_ends_on_both_sides);
    }

    #[test]
    fn learning_leaves_them_open() {
        Scene::on_incus("learns").inspect(super::learning_leaves_them_open);
    }

    #[test]
    fn an_incus_of_another_machine_keeps_them_too() {
        let scene = Scene::on_incus("remote").map(Scene::by_https);
        scene.inspect(super::an_incus_of_another_machine_keeps_them_too);
    }

    #[test]
    fn two_that_open_each_other() {
        Scene::on_incus("each").inspect(super::two_that_open_each_other);
    }
}
