//! Policies on the real daemon, tried from a root shell inside.

use std::io::Write as _;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::internet::{ALLOWED, CANARY, DNS, HOST, Internet};
use crate::support::daemon::{self, Daemon};

/// An environment on the daemon; what is left of it goes with this.
struct Scene {
    internet: Internet,
    daemon: Daemon,
    environment: String,
    folder: TempDir,
}

impl Scene {
    /// None where there is no daemon or no internet to be had, which is said aloud.
    fn new(name: &str) -> Option<Self> {
        let daemon = daemon::find()?;
        let internet = Internet::start()?;
        Some(Self {
            internet,
            daemon,
            environment: format!("egress-{name}-{}", std::process::id()),
            folder: tempfile::tempdir().expect("a folder"),
        })
    }

    fn spec(&self) -> PathBuf {
        self.folder.path().join("sbx.kdl")
    }

    fn write(&self, spec: &str) {
        let text = format!(
            "environment \"{}\"\nbackend \"incus\"\ndefaults {{ image \"busybox\"; }}\n{spec}\n",
            self.environment
        );
        std::fs::write(self.spec(), text).expect("written");
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.internet.command(arguments);
        command.env("SBX_SOCKET", &self.daemon.socket).current_dir(self.folder.path());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("runs")
    }

    /// What a run printed; it must have ended with that code.
    fn says(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let text = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
        text
    }

    fn apply(&self, spec: &str) -> String {
        self.write(spec);
        self.says(0, &["apply", "--yes"])
    }

    /// What a shell in a sandbox says, as root.
    fn inside(&self, sandbox: &str, script: &str) -> String {
        let spec = self.spec();
        let spec = spec.to_str().expect("a path");
        let output = self.run(&["exec", spec, sandbox, "--root", "--", "/bin/sh", "-c", script]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn reaches(&self, sandbox: &str, address: &str, port: u16) -> bool {
        self.inside(sandbox, &connect(address, port)).contains("REACHED")
    }

    fn client(&self, arguments: &[&str]) -> String {
        let output = Command::new("incus").args(arguments).output().expect("the client runs");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    fn instance(&self, sandbox: &str) -> String {
        format!("{}-{sandbox}", self.environment)
    }

    fn network(&self, sandbox: &str) -> String {
        self.client(&["config", "device", "get", &self.instance(sandbox), "eth0", "network"])
    }

    /// The networks and ACLs of this environment.
    fn networks(&self) -> Vec<String> {
        let mut found = Vec::new();
        for kind in ["network", "network-acl"] {
            let all = self.client(&["query", &format!("/1.0/{kind}s?recursion=1")]);
            let all: serde_json::Value = serde_json::from_str(&all).expect("JSON");
            let ours = all.as_array().into_iter().flatten().filter(|one| {
                one["config"]["user.sbx-apply.environment"].as_str() == Some(self.environment.as_str())
            });
            found.extend(ours.map(|one| format!("{kind} {}", one["name"].as_str().unwrap_or_default())));
        }
        found
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let spec = self.spec();
        if spec.exists() {
            let arguments = ["destroy", "--yes", "--allow-data-loss", "--break-lock", "--environment", &self.environment];
            let gone = self.run(&[&arguments[..], &["--backend", "incus"]].concat());
            if !thread::panicking() {
                assert!(gone.status.success(), "{}", String::from_utf8_lossy(&gone.stderr));
                assert_eq!(self.networks(), Vec::<String>::new(), "nothing is left");
            }
        }
    }
}

fn connect(address: &str, port: u16) -> String {
    format!("echo | timeout 3 nc -w 2 {address} {port} 2>/dev/null")
}

const FENCED: &str = r#"
egress "web" { allow "allowed.test" port=8080 protocol="tcp"; }
sandbox "fenced" { egress "web"; }
sandbox "neighbour" { egress "web"; }
sandbox "closed" { egress { mode "none"; }; }
sandbox "free"
"#;

/// What root inside tries, and how; each prints REACHED when it gets somewhere.
fn attacks(host_port: u16, neighbour: &str, other_dns: &str, sibling_gateway: &str) -> Vec<(&'static str, String)> {
    let address = "$(ip -4 addr show eth0 | sed -n 's/.*inet \\([0-9.]*\\).*/\\1/p')";
    let lookup = |name: &str, server: &str| {
        format!("timeout 4 nslookup {name} {server} 2>/dev/null | grep -A2 '^Name' | grep -q Address && echo REACHED")
    };
    vec![
        ("an address that is not open", connect(CANARY, 8080)),
        ("another port of what is open", connect(ALLOWED, 9000)),
        ("a DNS server in the internet", lookup("example.com", DNS)),
        ("a foreign name, by its own DNS server", lookup("example.com", "")),
        ("data in a name below one that is open", lookup("secret.allowed.test", "")),
        ("the DNS server of another network of the host", lookup("example.com", other_dns)),
        ("a name of another network, by its DNS server", lookup("free.incus", other_dns)),
        ("the host, at its own gateway", connect(sibling_gateway, host_port)),
        ("the host, at its address in the internet", connect(HOST, host_port)),
        ("a neighbour under the same policy", connect(neighbour, 7000)),
        (
            "flushing the filter inside",
            format!("nft flush ruleset 2>/dev/null; iptables -F 2>/dev/null; {}", connect(CANARY, 8080)),
        ),
        (
            "ICMP",
            format!("timeout 3 ping -c1 -W2 {CANARY} >/dev/null 2>&1 && echo REACHED"),
        ),
        (
            "IPv6, by an address of its own",
            "ip -6 addr add fd00::99/64 dev eth0 2>/dev/null; timeout 3 ping6 -c1 -W2 ff02::1%eth0 2>/dev/null | grep -q 'bytes from' && echo REACHED".to_owned(),
        ),
        (
            "an added address",
            format!("a={address}; ip addr add ${{a%.*}}.250/24 dev eth0; ip route replace default via ${{a%.*}}.1 src ${{a%.*}}.250; {}; ip addr del ${{a%.*}}.250/24 dev eth0; ip route replace default via ${{a%.*}}.1", connect(CANARY, 8080)),
        ),
        (
            "a spoofed source address, to what is open",
            format!("a={address}; ip addr add ${{a%.*}}.251/24 dev eth0; ip route replace default via ${{a%.*}}.1 src ${{a%.*}}.251; {}; ip addr del ${{a%.*}}.251/24 dev eth0; ip route replace default via ${{a%.*}}.1", connect(ALLOWED, 8080)),
        ),
        (
            "another hardware address, to what is open",
            format!("m=$(cat /sys/class/net/eth0/address); ip link set eth0 address 02:00:00:00:00:99; {}; ip link set eth0 address $m", connect(ALLOWED, 8080)),
        ),
        (
            "a network device of its own",
            format!("ip link add d0 type dummy 2>/dev/null; ip link add link eth0 name m0 type macvlan mode bridge 2>/dev/null; ip link set m0 up 2>/dev/null; ip addr add 198.51.100.200/24 dev m0 2>/dev/null; {}; ip link del m0 2>/dev/null; ip link del d0 2>/dev/null", connect(CANARY, 8080)),
        ),
    ]
}

#[test]
fn nothing_that_root_inside_tries_gets_out() {
    let Some(scene) = Scene::new("attacks") else { return };
    scene.apply(FENCED);
    assert!(scene.says(0, &["plan"]).contains("No changes"));

    assert!(scene.reaches("fenced", ALLOWED, 8080), "what is open is open");
    assert!(scene.inside("fenced", "nslookup allowed.test").contains(ALLOWED), "by its name, too");
    assert!(scene.reaches("free", CANARY, 8080), "what has no policy is not closed");

    let listener = TcpListener::bind("0.0.0.0:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.write_all(b"REACHED\n");
        }
    });
    let gateway = |sandbox: &str| scene.inside(sandbox, "ip route | sed -n 's/default via \\([0-9.]*\\).*/\\1/p'");
    let (own_gateway, other_dns) = (gateway("fenced"), gateway("free"));
    assert!(scene.reaches("free", other_dns.trim(), port), "the host can be reached from elsewhere");
    scene.inside("neighbour", "(while true; do echo REACHED | nc -l -p 7000; done) >/dev/null 2>&1 &");
    let address = scene.inside("neighbour", "ip -4 addr show eth0 | sed -n 's/.*inet \\([0-9.]*\\).*/\\1/p'");

    scene.internet.asked();
    let mut broken = Vec::new();
    for (attack, script) in attacks(port, address.trim(), other_dns.trim(), own_gateway.trim()) {
        for sandbox in ["fenced", "closed"] {
            let held = !scene.inside(sandbox, &script).contains("REACHED");
            daemon::tell(&format!("egress on incus, {sandbox}: {attack}: {}", if held { "held" } else { "REACHED" }));
            if !held {
                broken.push(format!("{sandbox}: {attack}"));
            }
        }
    }
    assert_eq!(broken, Vec::<String>::new());
    assert_eq!(scene.internet.asked(), Vec::<String>::new(), "no question got out");
    assert!(scene.reaches("fenced", ALLOWED, 8080), "what is open is open still");
    assert!(!scene.reaches("closed", ALLOWED, 8080));
}

#[test]
fn an_edit_is_live_and_leaves_connections_alone() {
    let Some(scene) = Scene::new("edit") else { return };
    let spec = |more: &str| {
        format!("egress \"web\" {{ allow \"allowed.test\" port=8080 protocol=\"tcp\"; {more} }}\nsandbox \"one\" {{ egress \"web\"; }}")
    };
    scene.apply(&spec(""));
    let path = scene.spec();
    let mut session = scene.command(&["exec", path.to_str().expect("a path"), "one", "--root", "--", "nc", ALLOWED, "8080"]);
    let mut session = session
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("starts");
    let mut stdin = session.stdin.take().expect("a pipe");
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(session.stdout.take().expect("a pipe")));
    assert_eq!(lines.next().expect("connected").expect("text"), "REACHED");
    assert!(!scene.reaches("one", CANARY, 9000));

    scene.write(&spec("allow \"198.51.100.20\" port=9000;"));
    let plan = scene.says(0, &["plan"]);
    assert!(plan.contains("+ 198.51.100.20:9000 (pending)") && !plan.contains("restart"), "{plan}");
    scene.says(0, &["apply", "--yes"]);
    assert!(scene.reaches("one", CANARY, 9000));
    scene.write(&spec(""));
    let plan = scene.says(0, &["plan"]);
    assert!(plan.contains("- 198.51.100.20:9000  no longer reachable (pending)"), "{plan}");
    scene.says(0, &["apply", "--yes"]);
    assert!(!scene.reaches("one", CANARY, 9000));

    stdin.write_all(b"still here\n").expect("open");
    assert_eq!(lines.next().expect("an answer").expect("text"), "echo still here");
    drop(stdin);
    session.wait().expect("ends");
}

#[test]
fn what_hands_change_is_drift_and_repaired() {
    let Some(scene) = Scene::new("hands") else { return };
    scene.apply("sandbox \"one\" { egress { allow \"allowed.test\" port=8080 protocol=\"tcp\"; }; }");
    let (network, instance) = (scene.network("one"), scene.instance("one"));
    let cases: Vec<(Vec<&str>, &str)> = vec![
        (
            vec!["network", "acl", "rule", "add", &network, "egress", "action=allow", "destination=203.0.113.0/24", "state=enabled"],
            "- 203.0.113.0/24  no longer reachable (drift)",
        ),
        (
            vec!["network", "acl", "rule", "remove", &network, "egress", "--force", "protocol=tcp"],
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
            vec!["config", "device", "set", &instance, "eth0", "security.port_isolation=false"],
            "not enforced as it should be: the network card eth0",
        ),
        (
            vec!["config", "device", "set", &instance, "eth0", "security.mac_filtering=false", "security.ipv4_filtering=false"],
            "not enforced as it should be: the network card eth0",
        ),
    ];
    for (hand, shown) in cases {
        scene.client(&hand);
        let check = scene.says(3, &["check"]);
        assert!(check.contains(shown), "{hand:?}: {check}");
        scene.says(0, &["apply", "--yes"]);
        assert!(scene.says(0, &["check"]).contains("No changes"), "{hand:?}");
        assert!(scene.reaches("one", ALLOWED, 8080) && !scene.reaches("one", CANARY, 8080), "{hand:?}");
    }
    let other = scene.client(&["profile", "device", "get", "default", "eth0", "network"]);
    scene.client(&["config", "device", "add", &instance, "more", "nic", &format!("network={other}"), "name=eth9"]);
    let check = scene.says(3, &["check"]);
    assert!(check.contains("the network card more leads around it"), "{check}");
    scene.says(0, &["apply", "--yes"]);
    assert!(scene.says(0, &["check"]).contains("No changes"));
    let table = Command::new("nft").args(["delete", "table", "inet", &format!("sbx-apply-{network}")]).status();
    assert!(table.expect("nft runs").success());
    let check = scene.says(3, &["check"]);
    assert!(check.contains("the host's other DNS servers can be reached"), "{check}");
    scene.says(0, &["apply", "--yes"]);
    assert!(scene.says(0, &["check"]).contains("No changes"));
}

#[test]
fn names_that_move_are_drift_and_rotating_ones_are_not() {
    let Some(scene) = Scene::new("moves") else { return };
    scene.apply("sandbox \"one\" { egress { allow \"allowed.test\" port=8080 protocol=\"tcp\"; }; }");
    scene.internet.name("allowed.test", &["198.51.100.12", ALLOWED, "198.51.100.11"]);
    assert!(scene.says(0, &["check"]).contains("No changes"));
    scene.internet.name("allowed.test", &["198.51.100.11"]);
    let check = scene.says(3, &["check"]);
    assert!(check.contains("addresses moved") && check.contains("198.51.100.10 → 198.51.100.11 (drift)"), "{check}");
    let started = scene.client(&["query", &format!("/1.0/instances/{}", scene.instance("one"))]);
    scene.says(0, &["apply", "--yes"]);
    assert!(scene.reaches("one", "198.51.100.11", 8080) && !scene.reaches("one", ALLOWED, 8080));
    assert!(scene.inside("one", "nslookup allowed.test").contains("198.51.100.11"));
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
    let Some(scene) = Scene::new("fails") else { return };
    scene.apply("sandbox \"one\" { egress { mode \"none\"; }; }");
    let network = scene.network("one");
    scene.says(0, &["destroy", "--yes", "--allow-data-loss"]);
    // Somebody else's, of the very name.
    scene.client(&["network", "acl", "create", &network]);
    scene.write("sandbox \"one\" { egress { mode \"none\"; }; }\nsandbox \"free\"");
    let said = scene.says(1, &["apply", "--yes"]);
    assert!(said.contains("stands in the way"), "{said}");
    let status = |sandbox: &str| scene.client(&["list", &format!("^{}$", scene.instance(sandbox)), "-f", "csv", "-c", "s"]);
    assert_eq!((status("one"), status("free")), ("STOPPED".to_owned(), "RUNNING".to_owned()));
    scene.client(&["network", "acl", "delete", &network]);
    scene.says(0, &["apply", "--yes"]);
    assert_eq!(status("one"), "RUNNING");
}

#[test]
fn policies_come_go_and_leave_nothing() {
    let Some(scene) = Scene::new("comes") else { return };
    scene.apply("sandbox \"one\"");
    assert_eq!(scene.networks(), Vec::<String>::new());
    scene.write("egress \"web\" { allow \"allowed.test\"; }\nsandbox \"one\" { egress \"web\"; }");
    let plan = scene.says(0, &["plan"]);
    assert!(plan.contains("mode: unrestricted → allowlist (pending)") && plan.contains("[restart]"), "{plan}");
    scene.says(0, &["apply", "--yes"]);
    assert!(scene.reaches("one", ALLOWED, 9000) && !scene.reaches("one", CANARY, 8080));
    // Its own in the place of the shared one.
    scene.apply("sandbox \"one\" { egress { mode \"none\"; }; }");
    assert!(!scene.reaches("one", ALLOWED, 9000));
    assert_eq!(scene.networks().len(), 2, "the shared one's are gone");
    scene.write("sandbox \"one\"");
    let plan = scene.says(0, &["plan"]);
    assert!(plan.contains("becomes unrestricted"), "{plan}");
    scene.says(0, &["apply", "--yes"]);
    assert!(scene.reaches("one", CANARY, 8080));
    assert_eq!(scene.networks(), Vec::<String>::new());
}

#[test]
fn a_clone_has_its_own_policy() {
    let Some(scene) = Scene::new("clone") else { return };
    scene.apply(
        "sandbox \"base\" { egress { mode \"none\"; }; state \"stopped\"; snapshot \"ready\"; }\n\
         sandbox \"free\" { clone-from \"base\" snapshot=\"ready\"; }\n\
         sandbox \"fenced\" { clone-from \"base\" snapshot=\"ready\"; egress { allow \"allowed.test\"; }; }",
    );
    assert!(scene.reaches("free", CANARY, 8080));
    assert!(scene.reaches("fenced", ALLOWED, 8080) && !scene.reaches("fenced", CANARY, 8080));
    assert!(scene.says(0, &["plan"]).contains("No changes"));
}

#[test]
fn a_probe_proves_it_from_inside() {
    let Some(scene) = Scene::new("probe") else { return };
    let canary = format!("{CANARY}:8080");
    scene.write(FENCED);
    let said = scene.says(0, &["apply", "--yes", "--probe", "--canary", &canary]);
    for line in ["allowed allowed.test:8080/tcp", "canary 198.51.100.20:8080", "foreign name example.com", "other DNS server 198.51.100.53", "host's services at"] {
        let of_it = said.lines().filter(|shown| shown.contains(line) && shown.contains("  held"));
        assert!(of_it.count() >= 1, "{line}: {said}");
    }
    assert!(!said.contains("LEAK") && !said.contains("\nfree"), "{said}");
    let found = scene.inside("fenced", "ls -a /tmp");
    assert!(!found.contains("sbx-apply"), "nothing stays: {found}");
    let unknown = scene.says(0, &["check", "--probe", "--canary", "203.0.113.1:1"]);
    assert!(unknown.contains("unknown  canary 203.0.113.1:1"), "{unknown}");

    // A hole that nobody would see by looking at the policy alone.
    let network = scene.network("fenced");
    let hole = format!("insert rule inet incus acl.{network} iifname \"{network}\" accept");
    assert!(Command::new("nft").args(hole.split(' ')).status().expect("nft runs").success());
    let said = scene.says(3, &["check", "--probe", "--canary", &canary, "--json"]);
    let check: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(check["in_sync"], true, "the policy reads well");
    let leaks = check["probes"].as_array().expect("probes").iter().filter(|probe| probe["outcome"] == "leak");
    let leaks: Vec<&str> = leaks.filter_map(|probe| probe["check"].as_str()).collect();
    assert!(leaks.contains(&"canary 198.51.100.20:8080"), "{leaks:?}");
}

#[test]
fn a_kill_at_any_moment_leaves_nothing_open() {
    let Some(scene) = Scene::new("kills") else { return };
    let count = std::env::var("SBX_TEST_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(6_u32);
    let specs = [
        "sandbox \"one\" { egress { mode \"none\"; }; }\nsandbox \"two\" { egress \"web\"; }\negress \"web\" { allow \"allowed.test\" port=9000; }",
        "sandbox \"one\" { egress \"web\"; }\nsandbox \"two\" { egress { mode \"none\"; }; }\negress \"web\" { allow \"allowed.test\" port=9000; }",
    ];
    let status = |sandbox: &str| scene.client(&["list", &format!("^{}$", scene.instance(sandbox)), "-f", "csv", "-c", "s"]);
    let mut running = 0;
    for round in 0..count {
        scene.write(specs[usize::try_from(round).expect("few") % specs.len()]);
        let mut apply = scene.command(&["apply", "--yes", "--break-lock", "--allow-data-loss"]);
        let begun = Instant::now();
        let mut child = apply.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts");
        thread::sleep(Duration::from_millis(150 + u64::from(round) * 353 % 2_600));
        child.kill().expect("killed");
        child.wait().expect("ended");
        for sandbox in ["one", "two"] {
            if status(sandbox) == "RUNNING" {
                running += 1;
                let instance = scene.instance(sandbox);
                let tried = Command::new("incus").args(["exec", &instance, "--", "sh", "-c", &connect(CANARY, 8080)]).output();
                let said = String::from_utf8_lossy(&tried.expect("the client runs").stdout).into_owned();
                assert!(!said.contains("REACHED"), "round {round}, killed after {:?}: {sandbox}", begun.elapsed());
            }
        }
    }
    scene.says(0, &["apply", "--yes", "--break-lock"]);
    assert!(scene.says(0, &["plan"]).contains("No changes"));
    daemon::tell(&format!("egress: {count} kills, {running} times a sandbox ran afterwards, never open"));
}
