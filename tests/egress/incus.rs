//! Policies on the real daemon, tried from inside.

use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::attacks::{FENCED, nothing_gets_out};
use super::internet::{ALLOWED, CANARY};
use super::scene::{Scene, comes_true, connect};
use crate::support::daemon;

#[test]
fn nothing_that_root_inside_tries_gets_out() {
    let Some(scene) = Scene::on_incus("attacks") else {
        return;
    };
    nothing_gets_out(&scene, "incus");
}

#[test]
fn an_edit_is_live_and_leaves_connections_alone() {
    let Some(scene) = Scene::on_incus("edit") else { return };
    edits_are_live(&scene);
}

/// Opens and closes a destination while a connection to another is open.
pub(super) fn edits_are_live(scene: &Scene) {
    let spec = |more: &str| {
        format!(
            "egress \"web\" {{ allow \"allowed.test\" port=8080 protocol=\"tcp\"; {more} }}\nsandbox \"one\" {{ egress \"web\"; }}"
        )
    };
    scene.apply(&spec(""));
    let path = scene.spec();
    let mut connection = scene.connected("one", ALLOWED);
    assert!(!scene.reaches("one", CANARY, 9000));

    scene.write(&spec("allow \"198.51.100.20\" port=9000;"));
    let plan = scene.says(0, &["plan"]);
    assert!(
        plan.contains("+ 198.51.100.20:9000 (pending)") && !plan.contains("restart"),
        "{plan}"
    );
    scene.says(0, &["apply", "--yes"]);
    assert!(scene.comes_to_reach("one", CANARY, 9000));
    let closed = scene
        .command(&[
            "exec",
            path.to_str().expect("a path"),
            "one",
            "--root",
            "--",
            "sh",
            "-c",
            &format!("(sleep 1; echo first; sleep 8; echo second; sleep 2) | timeout 14 nc {CANARY} 9000"),
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("starts");
    thread::sleep(Duration::from_secs(3));
    scene.write(&spec(""));
    let plan = scene.says(0, &["plan"]);
    assert!(
        plan.contains("- 198.51.100.20:9000  no longer reachable (pending)"),
        "{plan}"
    );
    scene.says(0, &["apply", "--yes"]);
    assert!(!scene.reaches("one", CANARY, 9000));

    let closed = closed.wait_with_output().expect("ends");
    let closed = String::from_utf8_lossy(&closed.stdout).into_owned();
    assert!(
        closed.contains("echo first") && !closed.contains("echo second"),
        "what is closed ends: {closed}"
    );

    connection.goes_on("still here");
    connection.end();
}

#[test]
fn what_hands_change_is_drift_and_repaired() {
    let Some(scene) = Scene::on_incus("hands") else { return };
    scene.apply("sandbox \"one\" { egress { allow \"allowed.test\" port=8080 protocol=\"tcp\"; }; }");
    let (network, instance) = (scene.network("one"), scene.instance("one"));
    let cases: Vec<(Vec<&str>, &str)> = vec![
        (
            vec![
                "network",
                "acl",
                "rule",
                "add",
                &network,
                "egress",
                "action=allow",
                "destination=203.0.113.0/24",
                "state=enabled",
            ],
            "- 203.0.113.0/24  no longer reachable (drift)",
        ),
        (
            vec![
                "network",
                "acl",
                "rule",
                "remove",
                &network,
                "egress",
                "--force",
                "protocol=tcp",
            ],
            "+ allowed.test:8080/tcp (drift)",
        ),
        (
            vec!["network", "set", &network, "security.acls.default.egress.action=allow"],
            "not enforced as it should be: the network's security.acls.default.egress.action",
        ),
        (
            vec!["network", "set", &network, "security.acls="],
            "not enforced as it should be: the network's security.acls",
        ),
        (
            vec!["network", "set", &network, "raw.dnsmasq="],
            "not enforced as it should be: the network's DNS server",
        ),
        (
            vec!["network", "set", &network, "bridge.external_interfaces=sbx-nowhere"],
            "not enforced as it should be: the network has the setting bridge.external_interfaces",
        ),
        (
            vec!["network", "set", &network, "ipv6.dhcp.ranges=fd00::2-fd00::9"],
            "not enforced as it should be: the network has the setting ipv6.dhcp.ranges",
        ),
        (
            vec![
                "config",
                "device",
                "set",
                &instance,
                "eth0",
                "security.port_isolation=false",
            ],
            "not enforced as it should be: the network card eth0",
        ),
        (
            vec![
                "config",
                "device",
                "set",
                &instance,
                "eth0",
                "security.mac_filtering=false",
                "security.ipv4_filtering=false",
            ],
            "not enforced as it should be: the network card eth0",
        ),
        (
            "network acl rule add NETWORK egress action=drop destination=198.51.100.10/32 state=enabled"
                .split(' ')
                .map(|word| if word == "NETWORK" { &*network } else { word })
                .collect(),
            "not enforced as it should be: its network ACL has rules that drop",
        ),
        (
            "config device add INSTANCE out proxy bind=instance listen=tcp:127.0.0.1:9 connect=tcp:198.51.100.20:8080"
                .split(' ')
                .map(|word| if word == "INSTANCE" { &*instance } else { word })
                .collect(),
            "not enforced as it should be: the proxy out leads around it",
        ),
    ];
    for (hand, shown) in cases {
        scene.client(&hand);
        let check = scene.says(3, &["check"]);
        assert!(check.contains(shown), "{hand:?}: {check}");
        scene.says(0, &["apply", "--yes"]);
        assert!(scene.says(0, &["check"]).contains("No changes"), "{hand:?}");
        assert!(
            scene.comes_to_reach("one", ALLOWED, 8080) && !scene.reaches("one", CANARY, 8080),
            "{hand:?}"
        );
    }
    let other = scene.client(&["profile", "device", "get", "default", "eth0", "network"]);
    scene.client(&[
        "config",
        "device",
        "add",
        &instance,
        "more",
        "nic",
        &format!("network={other}"),
        "name=eth9",
    ]);
    let check = scene.says(3, &["check"]);
    assert!(check.contains("the network card more leads around it"), "{check}");
    scene.says(0, &["apply", "--yes"]);
    assert!(scene.says(0, &["check"]).contains("No changes"));
    let table = Command::new("nft")
        .args(["delete", "table", "inet", &format!("sbx-apply-{network}")])
        .status();
    assert!(table.expect("nft runs").success());
    let check = scene.says(3, &["check"]);
    assert!(check.contains("the host's other DNS servers can be reached"), "{check}");
    scene.says(0, &["apply", "--yes"]);
    assert!(scene.says(0, &["check"]).contains("No changes"));
}

#[test]
fn names_that_move_are_drift_and_rotating_ones_are_not() {
    let Some(scene) = Scene::on_incus("moves") else { return };
    scene.apply("sandbox \"one\" { egress { allow \"allowed.test\" port=8080 protocol=\"tcp\"; }; }");
    scene
        .internet
        .name("allowed.test", &["198.51.100.12", ALLOWED, "198.51.100.11"]);
    assert!(scene.says(0, &["check"]).contains("No changes"));
    scene.internet.name("allowed.test", &["198.51.100.11"]);
    let check = scene.says(3, &["check"]);
    assert!(
        check.contains("addresses moved") && check.contains("198.51.100.10 → 198.51.100.11 (drift)"),
        "{check}"
    );
    let started = scene.client(&["query", &format!("/1.0/instances/{}", scene.instance("one"))]);
    scene.says(0, &["apply", "--yes"]);
    assert!(scene.comes_to_reach("one", "198.51.100.11", 8080) && !scene.reaches("one", ALLOWED, 8080));
    // The network's DNS server has started again.
    assert!(comes_true(|| scene
        .inside("one", "nslookup allowed.test")
        .contains("198.51.100.11")));
    let last_used = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("JSON")["last_used_at"].clone();
    let now = scene.client(&["query", &format!("/1.0/instances/{}", scene.instance("one"))]);
    assert_eq!(last_used(&started), last_used(&now), "it was not started again");

    scene.internet.forget("allowed.test");
    let check = scene.says(1, &["check"]);
    assert!(check.contains("`allowed.test` does not resolve"), "{check}");
    assert!(!scene.reaches("one", ALLOWED, 8080) && scene.reaches("one", "198.51.100.11", 8080));
}

#[test]
fn a_policy_that_cannot_be_enforced_keeps_its_sandbox_from_starting() {
    let Some(scene) = Scene::on_incus("fails") else { return };
    scene.apply("sandbox \"one\" { egress { mode \"none\"; }; }");
    let network = scene.network("one");
    scene.says(0, &["destroy", "--yes", "--allow-data-loss"]);
    // Somebody else's, of the very name.
    scene.client(&["network", "acl", "create", &network]);
    scene.write("sandbox \"one\" { egress { mode \"none\"; }; }\nsandbox \"free\"");
    let said = scene.says(1, &["apply", "--yes"]);
    assert!(said.contains("stands in the way"), "{said}");
    let status = |sandbox: &str| {
        scene.client(&[
            "list",
            &format!("^{}$", scene.instance(sandbox)),
            "-f",
            "csv",
            "-c",
            "s",
        ])
    };
    assert_eq!(
        (status("one"), status("free")),
        ("STOPPED".to_owned(), "RUNNING".to_owned())
    );
    scene.client(&["network", "acl", "delete", &network]);
    scene.says(0, &["apply", "--yes"]);
    assert_eq!(status("one"), "RUNNING");
}

#[test]
fn policies_come_go_and_leave_nothing() {
    let Some(scene) = Scene::on_incus("comes") else { return };
    scene.apply("sandbox \"one\"");
    assert_eq!(scene.networks(), Vec::<String>::new());
    scene.write("egress \"web\" { allow \"allowed.test\"; }\nsandbox \"one\" { egress \"web\"; }");
    let plan = scene.says(0, &["plan"]);
    assert!(
        plan.contains("mode: unrestricted → allowlist (pending)") && plan.contains("[restart]"),
        "{plan}"
    );
    scene.says(0, &["apply", "--yes"]);
    assert!(scene.comes_to_reach("one", ALLOWED, 9000) && !scene.reaches("one", CANARY, 8080));
    // Its own in the place of the shared one.
    scene.apply("sandbox \"one\" { egress { mode \"none\"; }; }");
    assert!(!scene.reaches("one", ALLOWED, 9000));
    assert_eq!(scene.networks().len(), 2, "the shared one's are gone");
    scene.write("sandbox \"one\"");
    let plan = scene.says(0, &["plan"]);
    assert!(plan.contains("becomes unrestricted"), "{plan}");
    scene.says(0, &["apply", "--yes"]);
    assert!(scene.comes_to_reach("one", CANARY, 8080));
    assert_eq!(scene.networks(), Vec::<String>::new());
}

#[test]
fn what_hands_have_left_goes_with_the_next_apply() {
    let Some(scene) = Scene::on_incus("left") else { return };
    let other = "sandbox \"other\" { egress { allow \"192.0.2.1\"; }; }";
    scene.apply(&format!("sandbox \"one\" {{ egress {{ mode \"none\"; }}; }}\n{other}"));
    assert_eq!(scene.networks().len(), 4);
    scene.client(&["delete", "--force", &scene.instance("one")]);
    scene.write(other);
    assert!(scene.says(0, &["plan"]).contains("No changes"));
    scene.says(0, &["apply", "--yes"]);
    assert_eq!(scene.networks().len(), 2, "the other one's stay");
    assert!(scene.says(0, &["check"]).contains("No changes"));
}

#[test]
fn a_clone_has_its_own_policy() {
    let Some(scene) = Scene::on_incus("clone") else { return };
    scene.apply(
        "sandbox \"base\" { egress { mode \"none\"; }; state \"stopped\"; snapshot \"ready\"; }\n\
         sandbox \"free\" { clone-from \"base\" snapshot=\"ready\"; }\n\
         sandbox \"fenced\" { clone-from \"base\" snapshot=\"ready\"; egress { allow \"allowed.test\"; }; }",
    );
    assert!(scene.comes_to_reach("free", CANARY, 8080));
    assert!(scene.comes_to_reach("fenced", ALLOWED, 8080) && !scene.reaches("fenced", CANARY, 8080));
    assert!(scene.says(0, &["plan"]).contains("No changes"));
}

#[test]
fn a_probe_proves_it_from_inside() {
    let Some(scene) = Scene::on_incus("probe") else { return };
    let canary = format!("{CANARY}:8080");
    scene.write(FENCED);
    let said = scene.says(0, &["apply", "--yes", "--probe", "--canary", &canary]);
    for line in [
        "allowed allowed.test:8080/tcp",
        "canary 198.51.100.20:8080",
        "foreign name example.com",
        "other DNS server 198.51.100.53",
        "host's services at",
    ] {
        let of_it = said
            .lines()
            .filter(|shown| shown.contains(line) && shown.contains("  held"));
        assert!(of_it.count() >= 1, "{line}: {said}");
    }
    assert!(!said.contains("LEAK") && !said.contains("\nfree  "), "{said}");
    let found = scene.inside("fenced", "ls -a /tmp");
    assert!(!found.contains("sbx-apply"), "nothing stays: {found}");
    scene.a_probe_clears_away("fenced", &canary);
    let unknown = scene.says(0, &["check", "--probe", "--canary", "198.51.100.200:1"]);
    assert!(unknown.contains("unknown  canary 198.51.100.200:1"), "{unknown}");

    // A hole that nobody would see by looking at the policy alone.
    let network = scene.network("fenced");
    let table = format!("hole-{}", std::process::id());
    let hole = format!(
        "table ip {table} {{ chain way {{ type nat hook prerouting priority -150; iifname \"{network}\" ip daddr {CANARY} dnat to {ALLOWED}; }}; }}"
    );
    assert!(Command::new("nft").arg(&hole).status().expect("nft runs").success());
    let output = scene.run(&["check", "--probe", "--canary", &canary, "--json"]);
    let closed = Command::new("nft").args(["delete", "table", "ip", &table]).status();
    assert!(closed.expect("nft runs").success());
    assert_eq!(
        output.status.code(),
        Some(3),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let check: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(check["in_sync"], true, "the policy reads well");
    let leaks = check["probes"]
        .as_array()
        .expect("probes")
        .iter()
        .filter(|probe| probe["outcome"] == "leak");
    let leaks: Vec<&str> = leaks.filter_map(|probe| probe["check"].as_str()).collect();
    assert!(leaks.contains(&"canary 198.51.100.20:8080"), "{leaks:?}");
}

#[test]
fn a_kill_at_any_moment_leaves_nothing_open() {
    let Some(scene) = Scene::on_incus("kills") else { return };
    let count = std::env::var("SBX_TEST_KILLS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(6_u32);
    let specs = [
        "sandbox \"one\" { egress { mode \"none\"; }; }\nsandbox \"two\" { egress \"web\"; }\negress \"web\" { allow \"allowed.test\" port=9000; }",
        "sandbox \"one\" { egress \"web\"; }\nsandbox \"two\" { egress { mode \"none\"; }; }\negress \"web\" { allow \"allowed.test\" port=9000; }",
    ];
    let status = |sandbox: &str| {
        scene.client(&[
            "list",
            &format!("^{}$", scene.instance(sandbox)),
            "-f",
            "csv",
            "-c",
            "s",
        ])
    };
    let mut running = 0;
    for round in 0..count {
        scene.write(specs[usize::try_from(round).expect("few") % specs.len()]);
        let mut apply = scene.command(&["apply", "--yes", "--break-lock", "--allow-data-loss"]);
        let begun = Instant::now();
        let mut child = apply
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("starts");
        thread::sleep(Duration::from_millis(150 + u64::from(round) * 353 % 2_600));
        child.kill().expect("killed");
        child.wait().expect("ended");
        for sandbox in ["one", "two"] {
            if status(sandbox) == "RUNNING" {
                running += 1;
                let instance = scene.instance(sandbox);
                let tried = Command::new("incus")
                    .args(["exec", &instance, "--", "sh", "-c", &connect(CANARY, 8080)])
                    .output();
                let said = String::from_utf8_lossy(&tried.expect("the client runs").stdout).into_owned();
                assert!(
                    !said.contains("REACHED"),
                    "round {round}, killed after {:?}: {sandbox}",
                    begun.elapsed()
                );
            }
        }
    }
    scene.says(0, &["apply", "--yes", "--break-lock"]);
    assert!(scene.says(0, &["plan"]).contains("No changes"));
    daemon::tell(&format!(
        "egress: {count} kills, {running} times a sandbox ran afterwards, never open"
    ));
}
