//! Policies on this machine, tried from inside.

use std::process::{Command, Stdio};

use super::attacks::{FENCED, nothing_gets_out};
use super::internet::{ALLOWED, CANARY};
use super::scene::{On, Scene};

const ONE: &str = "sandbox \"one\" { egress { allow \"allowed.test\" port=8080 protocol=\"tcp\"; }; }";

#[test]
fn nothing_that_root_inside_tries_gets_out() {
    let Some(scene) = Scene::on_local("attacks") else {
        return;
    };
    nothing_gets_out(&scene, "local");
}

#[test]
fn an_edit_is_live_and_leaves_connections_alone() {
    let Some(scene) = Scene::on_local("edit") else { return };
    super::incus::edits_are_live(&scene);
}

#[test]
fn a_table_that_hands_change_is_drift_and_repaired() {
    let Some(scene) = Scene::on_local("hands") else { return };
    scene.apply(ONE);
    let devices = std::fs::read_dir("/sys/class/net").expect("devices");
    let ours = |device: &std::fs::DirEntry| {
        let alias = std::fs::read_to_string(device.path().join("ifalias")).unwrap_or_default();
        alias.trim() == format!("sbx-apply {}", scene.instance("one"))
    };
    let device = devices.filter_map(Result::ok).find(ours).expect("its device");
    let link = device.file_name().into_string().expect("a name");
    let table = format!("sbx-apply-{link}");
    let hands = [
        format!("insert rule inet {table} through iifname {link} accept"),
        format!("flush chain inet {table} through"),
        format!("delete table inet {table}"),
    ];
    for hand in hands {
        let status = Command::new("nft").args(hand.split(' ')).stdout(Stdio::null()).status();
        assert!(status.expect("nft runs").success(), "{hand}");
        let check = scene.says(3, &["check"]);
        assert!(
            check.contains("not enforced as it should be: its table"),
            "{hand}: {check}"
        );
        scene.says(0, &["apply", "--yes"]);
        assert!(scene.says(0, &["check"]).contains("No changes"), "{hand}");
        assert!(
            scene.comes_to_reach("one", ALLOWED, 8080) && !scene.reaches("one", CANARY, 8080),
            "{hand}"
        );
    }
}

#[test]
fn a_policy_lasts_through_a_restart_and_moves_with_its_names() {
    let Some(scene) = Scene::on_local("moves") else { return };
    scene.apply(ONE);
    scene.apply(&ONE.replace("sandbox \"one\" {", "sandbox \"one\" { state \"stopped\";"));
    scene.apply(ONE);
    assert!(scene.comes_to_reach("one", ALLOWED, 8080) && !scene.reaches("one", CANARY, 8080));
    scene.internet.name("allowed.test", &["198.51.100.11"]);
    let check = scene.says(3, &["check"]);
    assert!(check.contains("addresses moved"), "{check}");
    scene.says(0, &["apply", "--yes"]);
    assert!(scene.comes_to_reach("one", "198.51.100.11", 8080) && !scene.reaches("one", ALLOWED, 8080));
    assert!(
        scene
            .inside("one", "cat /etc/hosts")
            .contains("198.51.100.11 allowed.test")
    );
    scene.apply("sandbox \"one\"");
    assert!(scene.comes_to_reach("one", CANARY, 8080));
    assert!(matches!(scene.on, On::Local(_)) && scene.says(0, &["plan"]).contains("No changes"));
}

#[test]
fn a_probe_proves_it_from_inside() {
    let Some(scene) = Scene::on_local("probe") else { return };
    let canary = format!("{CANARY}:8080");
    scene.write(FENCED);
    let said = scene.says(0, &["apply", "--yes", "--probe", "--canary", &canary]);
    for line in [
        "allowed allowed.test:8080/tcp",
        "canary 198.51.100.20:8080",
        "foreign name example.com",
        "other DNS server 198.51.100.53",
    ] {
        let of_it = said
            .lines()
            .filter(|shown| shown.contains(line) && shown.contains("  held"));
        assert!(of_it.count() >= 1, "{line}: {said}");
    }
    assert!(!said.contains("LEAK"), "{said}");
    scene.a_probe_clears_away("fenced", &canary);
    scene.apply(&FENCED.replace("mode \"none\"", "allow \"198.51.100.20\""));
    let said = scene.says(0, &["check", "--probe", "--canary", &canary]);
    assert!(said.contains("the policy opens it"), "{said}");
}
