//! Policies that are enforced inside, on the real daemon.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;

use super::attacks;
use super::internet::{ALLOWED, CANARY};
use super::scene::{Scene, comes_true};
use crate::support::daemon;

/// What a spec needs for its sandboxes to have this machine's nft: the template `filter`.
pub(super) fn filter(scene: &Scene) -> String {
    let folder = scene.folder().join("nft");
    fs::create_dir_all(&folder).expect("a folder");
    let listed = Command::new("ldd").arg("/usr/sbin/nft").output().expect("ldd runs");
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let paths = listed.split_whitespace().filter(|word| word.starts_with('/'));
    let mut files: BTreeSet<&Path> = paths.map(Path::new).collect();
    files.insert(Path::new("/usr/sbin/nft"));
    for path in files {
        fs::copy(path, folder.join(path.file_name().expect("a name"))).expect("copied");
    }
    let linker = fs::read_dir(&folder)
        .expect("a folder")
        .flatten()
        .map(|entry| entry.file_name());
    let linker = linker.map(|name| name.to_string_lossy().into_owned());
    let linker = linker
        .into_iter()
        .find(|name| name.starts_with("ld-linux"))
        .expect("a linker");
    fs::write(
        scene.folder().join("nft.sh"),
        format!("#!/bin/sh\nexec /opt/nft/{linker} --library-path /opt/nft /opt/nft/nft \"$@\"\n"),
    )
    .expect("written");
    r#"template "filter" {
    tree "/opt/nft" source="nft"
    file "/usr/sbin/nft" source="nft.sh" mode="0755"
    user "dev" uid=1500
}
"#
    .to_owned()
}

fn spec(scene: &Scene, rest: &str) -> String {
    format!("{}{rest}", filter(scene))
}

const ONE: &str = r#"
sandbox "one" {
    use "filter"
    // more
    egress { enforce "guest"; allow "allowed.test" port=8080 protocol="tcp"; }
}
"#;

/// What a shell of the user's says.
fn as_user(scene: &Scene, sandbox: &str, script: &str) -> String {
    let path = scene.spec();
    let output = scene.run(&[
        "exec",
        path.to_str().expect("a path"),
        sandbox,
        "--",
        "/bin/sh",
        "-c",
        script,
    ]);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_policy_inside_is_in_force_from_the_first_start_on() {
    let Some(scene) = Scene::on_incus("guest") else { return };
    scene.write(&spec(&scene, &ONE.replace("// more", "run \"first\" command=\"nft list table inet sbx-apply >/was-closed; ! nc -w 2 198.51.100.20 8080 </dev/null\"")));
    let plan = scene.says(0, &["plan"]);
    assert!(
        plan.contains("allowlist, 1 destination, inside, best effort")
            && plan.contains("whoever is root in there can undo it"),
        "{plan}"
    );
    assert!(
        !plan.contains("DNS servers that its host runs"),
        "nothing of the host's: {plan}"
    );
    scene.says(0, &["apply", "--yes"]);
    assert!(scene.says(0, &["plan"]).contains("No changes"));
    assert!(scene.inside("one", "cat /was-closed").contains("policy drop"));
    assert!(scene.comes_to_reach("one", ALLOWED, 8080) && !scene.reaches("one", CANARY, 8080));
    assert!(
        scene.inside("one", "ping -c1 -W1 allowed.test 2>&1").contains(ALLOWED),
        "by its name, too"
    );

    // From its start on, with nobody there.
    scene.client(&["restart", &scene.instance("one"), "--force"]);
    assert!(scene.comes_to_reach("one", ALLOWED, 8080) && !scene.reaches("one", CANARY, 8080));
    assert!(scene.says(0, &["check"]).contains("No changes"));

    let shown = scene.says(0, &["egress", "show", "one"]);
    assert!(shown.contains("best effort"), "{shown}");
    assert!(scene.says(0, &["show"]).contains("sandbox/one (inside, best effort)"));
    let probed = scene.says(0, &["check", "--probe", "--canary", &format!("{CANARY}:8080")]);
    for line in [
        "allowed allowed.test:8080/tcp",
        "canary 198.51.100.20:8080",
        "foreign name example.com",
        "other DNS server",
    ] {
        let of_it = probed
            .lines()
            .filter(|shown| shown.contains(line) && shown.contains("held"));
        assert!(
            of_it.clone().count() == 1 && of_it.clone().all(|shown| shown.contains("best effort")),
            "{line}: {probed}"
        );
    }

    // What the spec opens and closes is so at once.
    let wider = ONE.replace(
        "protocol=\"tcp\";",
        "protocol=\"tcp\"; allow \"198.51.100.20\" port=8080;",
    );
    scene.write(&spec(&scene, &wider));
    let plan = scene.says(0, &["plan"]);
    assert!(
        plan.contains("+ 198.51.100.20:8080 (pending)") && !plan.contains("restart"),
        "{plan}"
    );
    scene.says(0, &["apply", "--yes"]);
    assert!(scene.comes_to_reach("one", CANARY, 8080));
    scene.apply(&spec(&scene, ONE));
    assert!(!scene.reaches("one", CANARY, 8080));

    // And lifted, as if it had never been.
    scene.write(&spec(&scene, "sandbox \"one\" { use \"filter\"; }"));
    let plan = scene.says(0, &["plan"]);
    assert!(
        plan.contains("egress becomes unrestricted") && !plan.contains("restart"),
        "{plan}"
    );
    scene.says(0, &["apply", "--yes"]);
    assert!(scene.says(0, &["plan"]).contains("No changes"));
    assert!(scene.comes_to_reach("one", CANARY, 8080));
    let left = scene.inside(
        "one",
        "nft list ruleset; ls /etc/sbx-apply/* 2>/dev/null; grep -l sbx-apply /etc/hosts /etc/inittab",
    );
    assert_eq!(left.trim(), "", "nothing is left");
}

#[test]
fn hands_inside_are_drift_and_repaired() {
    let Some(scene) = Scene::on_incus("guest-hands") else {
        return;
    };
    scene.apply(&spec(&scene, ONE));
    let rules = "/etc/sbx-apply/egress.nft";
    let cases = [
        ("nft flush ruleset".to_owned(), "its packet filter has no such rules"),
        (
            "nft flush table inet sbx-apply".to_owned(),
            "its packet filter has other rules",
        ),
        (
            "nft add rule inet sbx-apply opened ip daddr 198.51.100.20 accept".to_owned(),
            "its packet filter has other rules",
        ),
        (
            format!("echo '# more' >>{rules}"),
            "egress.nft is not as it was written",
        ),
        (format!("chmod 0666 {rules}"), "egress.nft is not as it was written"),
        (
            format!("sed -i 's/^# allow .*/&\\n# allow 203.0.113.0\\/24/' {rules}"),
            "203.0.113.0/24",
        ),
        (
            "sed -i /load-egress/d /etc/inittab".to_owned(),
            "/etc/inittab does not load the rules",
        ),
        (
            "echo exit 0 >/etc/sbx-apply/load-egress".to_owned(),
            "load-egress does not load the rules",
        ),
        (
            "sed -i s/198.51.100.10/198.51.100.20/ /etc/hosts".to_owned(),
            "/etc/hosts does not have the pinned names",
        ),
        (format!("rm {rules}"), "unrestricted → allowlist"),
    ];
    for (hand, shown) in cases {
        scene.inside("one", &hand);
        let check = scene.says(3, &["check"]);
        assert!(check.contains(shown), "{hand}: {check}");
        scene.says(0, &["apply", "--yes"]);
        assert!(scene.says(0, &["check"]).contains("No changes"), "{hand}");
        assert!(
            scene.comes_to_reach("one", ALLOWED, 8080) && !scene.reaches("one", CANARY, 8080),
            "{hand}"
        );
    }
    // The rest of the guest's files is its own.
    scene.inside("one", "echo 192.0.2.7 own >>/etc/hosts");
    assert!(scene.says(0, &["check"]).contains("No changes"));

    // Root inside can undo it, and a probe shows that. Nothing else would, between two looks.
    scene.inside("one", "nft delete table inet sbx-apply");
    let probed = scene.says(3, &["check", "--probe", "--canary", &format!("{CANARY}:8080")]);
    let leak = probed.lines().find(|line| line.contains("canary"));
    assert!(leak.is_some_and(|line| line.contains("LEAK")), "{probed}");
}

#[test]
fn a_guest_whose_rules_do_not_load_does_not_come_up() {
    let Some(scene) = Scene::on_incus("guest-closed") else {
        return;
    };
    scene.apply(&spec(&scene, ONE));
    scene.inside("one", "echo nonsense >>/etc/sbx-apply/egress.nft");
    let instance = scene.instance("one");
    scene.client(&["stop", &instance, "--force"]);
    scene.client(&["start", &instance]);
    // Its status flickers while it starts and ends in one; what the daemon writes down when it has ended does not.
    let is_down = || {
        let written = scene.client(&["config", "get", &instance, "volatile.last_state.power"]);
        written == "STOPPED" && scene.client(&["list", &instance, "-f", "csv", "-c", "s"]) == "STOPPED"
    };
    assert!(comes_true(is_down), "it switches itself off");
    scene.says(0, &["apply", "--yes"]);
    assert!(scene.says(0, &["check"]).contains("No changes"));
    assert!(scene.comes_to_reach("one", ALLOWED, 8080) && !scene.reaches("one", CANARY, 8080));
}

#[test]
fn without_the_program_nothing_starts() {
    let Some(scene) = Scene::on_incus("guest-none") else {
        return;
    };
    let bare = "sandbox \"one\" { egress { enforce \"guest\"; mode \"none\"; }; run \"mine\" command=\"true\"; }";
    scene.write(bare);
    let said = scene.says(1, &["apply", "--yes"]);
    assert!(
        said.contains("it has no program nft") && said.contains("nothing is installed over an open network"),
        "{said}"
    );
    assert_eq!(
        scene.client(&["list", &scene.instance("one"), "-f", "csv", "-c", "s"]),
        "STOPPED"
    );
    // Of what is there already, a plan can tell.
    scene.apply("sandbox \"one\"");
    scene.write("sandbox \"one\" { egress { enforce \"guest\"; mode \"none\"; }; }");
    let said = scene.says(1, &["plan"]);
    assert!(
        said.contains("no egress policy can be enforced inside `one`") && said.contains("sbx.kdl:"),
        "{said}"
    );
    scene.write(&spec(
        &scene,
        &ONE.replace(
            "use \"filter\"",
            "use \"filter\"; file \"/etc/hosts\" content=\"127.0.0.1 localhost\\n\"",
        ),
    ));
    let said = scene.says(1, &["plan"]);
    assert!(said.contains("`/etc/hosts` belongs to the egress policy"), "{said}");
}

#[test]
fn clones_and_other_places() {
    let Some(scene) = Scene::on_incus("guest-clones") else {
        return;
    };
    let base = ONE
        .replace("// more", "snapshot \"ready\"")
        .replace("\"one\"", "\"base\"");
    let clones = r#"
sandbox "free" { clone-from "base" snapshot="ready"; }
sandbox "inner" { clone-from "base" snapshot="ready"; egress { enforce "guest"; allow "198.51.100.20" port=8080; }; }
sandbox "outer" { clone-from "base" snapshot="ready"; egress { allow "198.51.100.20" port=8080; }; }
"#;
    scene.apply(&spec(&scene, &format!("{base}{clones}")));
    assert!(scene.says(0, &["plan"]).contains("No changes"));
    assert!(
        scene.comes_to_reach("free", ALLOWED, 8080) && scene.comes_to_reach("free", CANARY, 8080),
        "a clone has its own policy"
    );
    for sandbox in ["inner", "outer"] {
        assert!(
            scene.comes_to_reach(sandbox, CANARY, 8080) && !scene.reaches(sandbox, ALLOWED, 8080),
            "{sandbox}"
        );
    }
    assert_eq!(
        scene
            .inside("outer", "nft list ruleset; ls /etc/sbx-apply/egress.nft 2>/dev/null")
            .trim(),
        ""
    );
    // From inside to outside, and back.
    let turned = clones.replace("enforce \"guest\"; ", "").replace(
        "\"outer\" { clone-from \"base\" snapshot=\"ready\"; egress { ",
        "\"outer\" { clone-from \"base\" snapshot=\"ready\"; egress { enforce \"guest\"; ",
    );
    scene.write(&spec(&scene, &format!("{base}{turned}")));
    let plan = scene.says(0, &["plan"]);
    assert!(
        plan.contains("enforced: inside, best effort → by the host") && plan.contains("restart"),
        "{plan}"
    );
    scene.says(0, &["apply", "--yes"]);
    assert!(scene.says(0, &["plan"]).contains("No changes"));
    for sandbox in ["inner", "outer"] {
        assert!(
            scene.comes_to_reach(sandbox, CANARY, 8080) && !scene.reaches(sandbox, ALLOWED, 8080),
            "{sandbox}"
        );
    }
    assert_eq!(
        scene
            .inside("inner", "nft list ruleset; ls /etc/sbx-apply/egress.nft 2>/dev/null")
            .trim(),
        ""
    );
}

#[test]
fn a_shared_policy_is_changed_in_every_guest() {
    let Some(scene) = Scene::on_incus("guest-shared") else {
        return;
    };
    let shared = r#"
egress "web" { enforce "guest"; allow "allowed.test" port=8080 protocol="tcp"; }
sandbox "box" count=2 { use "filter"; egress "web"; }
"#;
    scene.apply(&spec(&scene, shared));
    let said = scene.says(0, &["egress", "allow", "box-1", CANARY, "--port", "8080"]);
    assert!(said.contains("box-1, box-2"), "{said}");
    assert!(scene.comes_to_reach("box-1", CANARY, 8080) && scene.comes_to_reach("box-2", CANARY, 8080));
    scene.says(3, &["check"]);
    scene.says(0, &["apply", "--yes"]);
    assert!(!scene.reaches("box-1", CANARY, 8080) && !scene.reaches("box-2", CANARY, 8080));
    assert!(scene.says(0, &["check"]).contains("No changes"));
}

#[test]
fn systemd_loads_it_before_its_network() {
    let Some(scene) = Scene::on_incus("guest-systemd") else {
        return;
    };
    if scene.client(&["image", "list", "debian/12", "-f", "csv"]).is_empty() {
        daemon::skipped("systemd: the daemon has no image debian/12 (tests/incus/daemon image debian)");
        return;
    }
    let debian = ONE.replace("use \"filter\"", "use \"filter\"; image \"debian/12\"; ready timeout=\"60s\" { command \"systemctl is-active network.target\"; }");
    scene.apply(&spec(&scene, &debian));
    assert!(scene.says(0, &["plan"]).contains("No changes"));
    let reaches = |address: &str| {
        let script = format!("timeout 10 bash -c 'exec 3<>/dev/tcp/{address}/8080 && head -1 <&3'");
        scene.inside("one", &script).contains("REACHED")
    };
    assert!(comes_true(|| reaches("allowed.test")) && !reaches(CANARY));
    scene.client(&["restart", &scene.instance("one")]);
    assert!(comes_true(|| reaches("allowed.test")) && !reaches(CANARY));
    let moment = |unit: &str, of: &str| {
        let said = scene.inside("one", &format!("systemctl show -P {of} {unit}"));
        said.trim().parse::<u64>().expect("microseconds")
    };
    let loaded = moment("sbx-apply-egress.service", "ActiveEnterTimestampMonotonic");
    let network = moment("systemd-networkd.service", "ExecMainStartTimestampMonotonic");
    assert!(0 < loaded && loaded < network, "{loaded} {network}");
    assert!(scene.says(0, &["check"]).contains("No changes"));
}

#[test]
fn what_is_held_inside_and_what_is_not() {
    let Some(scene) = Scene::on_incus("guest-attacks") else {
        return;
    };
    scene.apply(&spec(
        &scene,
        &attacks::FENCED
            .replace("allow \"allowed.test\"", "enforce \"guest\"; allow \"allowed.test\"")
            .replace("mode \"none\"", "enforce \"guest\"; mode \"none\"")
            .replace("{ egress", "{ use \"filter\"; egress"),
    ));
    let reached = attacks::reached(&scene, attacks::GUEST);
    // From other addresses it reaches what is open anyway.
    assert_eq!(
        reached,
        [
            "fenced: flushing the filter inside",
            "closed: flushing the filter inside",
            "fenced: a spoofed source address, to what is open",
            "fenced: another hardware address",
        ],
        "root inside can undo it"
    );
    // But for what each apply asks itself.
    let mut asked = scene.internet.asked();
    asked.retain(|name| name != "allowed.test");
    assert_eq!(asked, Vec::<String>::new(), "no question got out");
    // Of those without root, none gets anywhere: they can flush nothing.
    let user = as_user(
        &scene,
        "fenced",
        "nft flush ruleset 2>/dev/null; echo | timeout 3 nc -w 2 198.51.100.20 8080 2>/dev/null",
    );
    assert!(!user.contains("REACHED"), "{user}");
}

/// A guest as pixels leaves it: lists, a table of its own, and what loads that.
const BY_PIXELS: &str = r#"
printf 'allowed.test\n\n# a comment\n*.bad.test\n' >/etc/pixels-egress-domains
printf '203.0.113.0/24\n' >/etc/pixels-egress-cidrs
mkdir -p /usr/local/bin && echo '#!/bin/sh' >/usr/local/bin/pixels-resolve-egress.sh
cat >/etc/nftables.conf <<'END'
flush ruleset
table inet pixels_egress {
    set allowed_v4 { type ipv4_addr; flags interval; }
    chain output {
        type filter hook output priority 0; policy drop;
        oif lo accept
        udp dport 53 accept
        udp dport 67-68 accept
        ip daddr @allowed_v4 accept
    }
}
END
nft -f /etc/nftables.conf && nft add element inet pixels_egress allowed_v4 '{ 198.51.100.10, 203.0.113.0/24 }'
"#;

#[test]
fn what_pixels_has_left_is_understood() {
    let Some(scene) = Scene::on_incus("pixels") else { return };
    filter(&scene);
    let instance = scene.instance("one");
    scene.client(&["launch", "busybox", &instance]);
    let made = Instance(&scene, instance.clone());
    let folder = scene.folder().join("nft").display().to_string();
    scene.client(&["file", "push", "-r", "-p", &folder, &format!("{instance}/opt/")]);
    let wrapper = scene.folder().join("nft.sh").display().to_string();
    scene.client(&[
        "file",
        "push",
        "--mode",
        "0755",
        &wrapper,
        &format!("{instance}/usr/sbin/nft"),
    ]);
    scene.client(&["exec", &instance, "--", "sh", "-ec", BY_PIXELS]);

    let environment = instance.strip_suffix("-one").expect("its environment");
    let exported = scene.run(&["export", &instance, "--environment", environment, "--backend", "incus"]);
    let exported = String::from_utf8(exported.stdout).expect("text");
    for line in [
        "egress enforce=\"guest\" {",
        "allow \"allowed.test\"",
        "allow \"203.0.113.0/24\"",
        "ignore \"egress\" reason=\"left by pixels\"",
        "wildcard",
    ] {
        assert!(exported.contains(line), "{line}: {exported}");
    }
    assert!(!exported.contains("allow \"*.bad.test\""), "{exported}");
    let spec = exported.replace("image \"unknown\"", "image \"busybox\"");
    fs::write(scene.spec(), &spec).expect("written");
    let path = scene.spec();
    let path = path.to_str().expect("a path");
    scene.says(0, &["adopt", path, "one", &instance]);
    drop(made);
    let plan = scene.says(0, &["plan"]);
    assert!(plan.contains("No changes") && plan.contains("left by pixels"), "{plan}");
    let shown = scene.says(0, &["egress", "show", "one"]);
    assert!(shown.contains("every DNS server can be asked"), "{shown}");

    // Taken over, it is a policy of ours, and nothing of the other one is left.
    let kept: Vec<&str> = spec
        .lines()
        .filter(|line| !line.contains("ignore \"egress\""))
        .collect();
    fs::write(scene.spec(), kept.join("\n")).expect("written");
    let plan = scene.says(0, &["plan"]);
    assert!(
        plan.contains("left by pixels → sandbox/one") && plan.contains("every DNS server can be asked"),
        "{plan}"
    );
    scene.says(0, &["apply", "--yes"]);
    assert!(scene.says(0, &["plan"]).contains("No changes"));
    assert!(scene.comes_to_reach("one", ALLOWED, 8080) && !scene.reaches("one", CANARY, 8080));
    let left = scene.inside(
        "one",
        "ls /etc/pixels-egress-* /etc/nftables.conf /usr/local/bin/pixels* 2>/dev/null; nft list tables",
    );
    assert_eq!(left.trim(), "table inet sbx-apply", "{left}");
}

/// An instance that nobody owns yet; it goes with this.
struct Instance<'a>(&'a Scene, String);

impl Drop for Instance<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.client(&["delete", "--force", &self.1]);
        }
    }
}

#[test]
fn an_exported_policy_plans_empty() {
    let Some(scene) = Scene::on_incus("export") else { return };
    let shared = r#"
egress "web" { allow "allowed.test" port=8080 protocol="tcp"; }
sandbox "box" count=2 { egress "web"; }
"#;
    scene.apply(&spec(&scene, &format!("{shared}{ONE}")));
    let environment = scene.instance("one");
    let environment = environment.strip_suffix("-one").expect("its environment");
    let exported = scene.run(&["export", "--environment", environment, "--backend", "incus"]);
    let exported = String::from_utf8(exported.stdout).expect("text");
    assert!(
        exported.contains("egress \"web\" {")
            && exported.contains("egress enforce=\"guest\" {")
            && !exported.contains("ignore \"egress\""),
        "{exported}"
    );
    fs::write(scene.spec(), exported).expect("written");
    let plan = scene.says(0, &["plan"]);
    assert!(plan.contains("No changes"), "{plan}");
}
