//! What root inside tries.

use std::io::Write as _;
use std::net::TcpListener;
use std::thread;

use super::internet::{ALLOWED, CANARY, DNS, HOST};
use super::scene::{Scene, connect};
use crate::support::daemon;

/// Stands for a backend whose policies are enforced inside.
pub(super) const GUEST: &str = "incus, inside";

/// Sandboxes under policies, and one without.
pub(super) const FENCED: &str = r#"
egress "web" { allow "allowed.test" port=8080 protocol="tcp"; }
sandbox "fenced" { egress "web"; }
sandbox "neighbour" { egress "web"; }
sandbox "closed" { egress { mode "none"; }; }
sandbox "free"
"#;

/// What root inside tries, and how; each prints REACHED when it gets somewhere.
fn all(
    (host_port, by_hardware): (u16, &str),
    neighbour: &str,
    other_dns: &str,
    sibling_gateway: &str,
) -> Vec<(&'static str, String)> {
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
            format!("a={address}; ip addr add ${{a%.*}}.250/24 dev eth0 && g=$(ip route | sed -n 's/default via \\([0-9.]*\\).*/\\1/p') && ip route replace default via $g src ${{a%.*}}.250 && {}; ip addr del ${{a%.*}}.250/24 dev eth0; ip route replace default via $g", connect(CANARY, 8080)),
        ),
        (
            "a spoofed source address, to what is open",
            format!("a={address}; ip addr add ${{a%.*}}.251/24 dev eth0 && g=$(ip route | sed -n 's/default via \\([0-9.]*\\).*/\\1/p') && ip route replace default via $g src ${{a%.*}}.251 && {}; ip addr del ${{a%.*}}.251/24 dev eth0; ip route replace default via $g", connect(ALLOWED, 8080)),
        ),
        (
            "another hardware address",
            format!("m=$(cat /sys/class/net/eth0/address); ip link set eth0 address 02:00:00:00:00:99; {}; ip link set eth0 address $m", connect(by_hardware, 8080)),
        ),
        (
            "a network device of its own",
            format!("ip link add d0 type dummy 2>/dev/null; ip link add link eth0 name m0 type macvlan mode bridge 2>/dev/null; ip link set m0 up 2>/dev/null; ip addr add 198.51.100.200/24 dev m0 2>/dev/null; {}; ip link del m0 2>/dev/null; ip link del d0 2>/dev/null", connect(CANARY, 8080)),
        ),
    ]
}

/// Tries all of it in two sandboxes, and that nothing but what is open gets out.
pub(super) fn nothing_gets_out(scene: &Scene, backend: &str) {
    scene.apply(FENCED);
    assert_eq!(reached(scene, backend), Vec::<String>::new());
    assert_eq!(scene.internet.asked(), Vec::<String>::new(), "no question got out");
    assert!(
        scene.comes_to_reach("fenced", ALLOWED, 8080),
        "what is open is open still"
    );
    assert!(!scene.reaches("closed", ALLOWED, 8080));
}

/// Tries all of it in the two closed ones of [`FENCED`], and that what is open is open. Gives what got out.
pub(super) fn reached(scene: &Scene, backend: &str) -> Vec<String> {
    assert!(scene.says(0, &["plan"]).contains("No changes"));

    assert!(scene.comes_to_reach("fenced", ALLOWED, 8080), "what is open is open");
    assert!(
        scene
            .inside("fenced", "ping -c1 -W1 allowed.test 2>&1")
            .contains(ALLOWED),
        "by its name, too"
    );
    assert!(
        scene.comes_to_reach("free", CANARY, 8080),
        "what has no policy is not closed"
    );

    let listener = TcpListener::bind("0.0.0.0:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.write_all(b"REACHED\n");
        }
    });
    let gateway = |sandbox: &str| scene.inside(sandbox, "ip route | sed -n 's/default via \\([0-9.]*\\).*/\\1/p'");
    let (own_gateway, other_dns) = (gateway("fenced"), gateway("free"));
    // A local sandbox reaches this machine under no policy.
    let host = backend == "local" || scene.comes_to_reach("free", other_dns.trim(), port);
    assert!(host, "the host can be reached from elsewhere");
    scene.inside(
        "neighbour",
        "(while true; do echo REACHED | nc -l -p 7000; done) >/dev/null 2>&1 &",
    );
    let address = scene.inside(
        "neighbour",
        "ip -4 addr show eth0 | sed -n 's/.*inet \\([0-9.]*\\).*/\\1/p'",
    );

    // On a link between two, as a local sandbox has, that address is nobody's business: it must open nothing more.
    let by_hardware = if backend == "local" { CANARY } else { ALLOWED };
    scene.internet.asked();
    let mut broken = Vec::new();
    for (attack, script) in all(
        (port, by_hardware),
        address.trim(),
        other_dns.trim(),
        own_gateway.trim(),
    ) {
        for sandbox in ["fenced", "closed"] {
            let held = !scene.inside(sandbox, &script).contains("REACHED");
            daemon::tell(&format!(
                "egress on {backend}, {sandbox}: {attack}: {}",
                if held { "held" } else { "REACHED" }
            ));
            if !held {
                broken.push(format!("{sandbox}: {attack}"));
            }
        }
        if backend == GUEST {
            // What one attempt has undone inside must not help the next.
            scene.says(0, &["apply", "--yes"]);
        }
    }
    broken
}
