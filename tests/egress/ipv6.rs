//! IPv6 under policies: open where a policy opens it, and there alone.

use std::fs::File;
use std::io::Write as _;
use std::net::{Ipv6Addr, SocketAddrV6, TcpListener, TcpStream};
use std::process::Command;
use std::thread;

use nix::sched::{CloneFlags, setns};
use rustix::net::{AddressFamily, Protocol, SendFlags, SocketFlags, SocketType, sendto, socket_with};

use super::internet::{ALLOWED, ALLOWED6, CANARY6, HOST6};
use super::scene::{Scene, connect};

/// A policy that opens an address by IPv6, a name that has both, and one that has IPv6 alone.
const FENCED: &str = r#"
egress "web" {
    allow "2001:db8::11" port=8080 protocol="tcp"
    allow "both.test" port=8080 protocol="tcp"
    allow "six.test" port=8080 protocol="tcp"
}
sandbox "fenced" { egress "web"; }
sandbox "neighbour" { egress "web"; }
sandbox "closed" { egress { allow "allowed.test" port=8080; }; }
"#;

/// The address inside that others could reach.
const OWN: &str = "$(ip -6 addr show eth0 scope global | sed -n 's/.*inet6 \\([0-9a-f:]*\\).*/\\1/p' | head -n1)";

/// What root inside tries; each prints REACHED when it gets somewhere.
fn attempts(port: u16, neighbour: &str) -> Vec<(&'static str, String)> {
    let as_another = |to: &str| {
        format!(
            "a={OWN}; b=${{a%:*}}:bad; ip -6 addr add $b/64 dev eth0 nodad; \
             echo | timeout 3 nc -s $b -w 2 {to} 8080 2>&1; ip -6 addr del $b/64 dev eth0"
        )
    };
    let gateway = "$(ip -6 route | sed -n 's/default via \\([0-9a-f:]*\\).*/\\1/p' | head -n1)";
    let echo = |to: &str| format!("timeout 3 ping6 -c1 -W2 {to} 2>/dev/null | grep -q 'bytes from' && echo REACHED");
    vec![
        ("an address that is not open", connect(CANARY6, 8080)),
        ("another port of what is open", connect(ALLOWED6, 9000)),
        ("the host, at its address in the internet", connect(HOST6, port)),
        ("the host, at the gateway", connect(&format!("{gateway}%eth0"), port)),
        (
            "the host, at its own address in the network",
            format!("a={OWN}; {}", connect("${a%:*:*:*:*}::1", port)),
        ),
        ("a neighbour under the same policy", connect(neighbour, 7000)),
        (
            "a DNS server in the internet",
            "timeout 4 nslookup example.com 2001:db8::10 2>/dev/null | grep -A2 '^Name' | grep -q Address && echo REACHED"
                .to_owned(),
        ),
        ("ICMP", echo(CANARY6)),
        ("ICMP, to what is open", echo(ALLOWED6)),
        (
            "the host and all neighbours",
            "o=$(ip -6 addr show eth0 | sed -n 's/.*inet6 \\([0-9a-f:]*\\).*/\\1/p'); \
             timeout 4 ping6 -c2 -W2 ff02::1%eth0 2>/dev/null | sed -n 's/.* bytes from \\([0-9a-f:]*[0-9a-f]\\).*/\\1/p' | \
             while read from; do case \"$o\" in *$from*) ;; *) echo REACHED by $from ;; esac; done"
                .to_owned(),
        ),
        ("an added address", as_another(CANARY6)),
        ("a spoofed source address, to what is open", as_another(ALLOWED6)),
    ]
}

#[test]
fn what_is_open_is_reached_and_nothing_else_on_incus() {
    let Some(scene) = Scene::on_incus("six") else { return };
    only_what_is_open(&scene, "");
}

/// That an address is the sender's (RFC 4861, section 4.4), as a packet with a header before it (RFC 8200, section 4.3), in
/// which the sender's own address and hardware address lie where they would without that header.
fn advertisement(from: Ipv6Addr, hardware: &[u8], to: Ipv6Addr, of: Ipv6Addr) -> Vec<u8> {
    let mut said = vec![136, 0, 0, 0, 0x60, 0, 0, 0];
    said.extend(of.octets());
    said.extend([2, 1]);
    said.extend(hardware);
    let length = u8::try_from(said.len()).expect("short");
    let counted = [&from.octets()[..], &to.octets(), &[0, 0, 0, length, 0, 0, 0, 58], &said].concat();
    let words = counted
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
    let sum: u32 = words.sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) & 0xffff;
    said[2..4].copy_from_slice(&u16::try_from(sum).expect("16 bits").to_be_bytes());
    let mut header = vec![0; 32];
    header[..4].copy_from_slice(&[58, 3, 0x1e, 28]);
    header[8..24].copy_from_slice(&from.octets());
    header[26..32].copy_from_slice(hardware);
    let first = [0x60, 0, 0, 0, 0, 32 + length, 0, 255];
    [&first[..], &from.octets(), &to.octets(), &header, &said].concat()
}

/// Nobody gets what is sent to a neighbour by saying that its address is one's own.
#[test]
fn no_one_takes_the_address_of_a_neighbour() {
    let Some(scene) = Scene::on_incus("six-taken") else {
        return;
    };
    scene.apply(FENCED);
    for sandbox in ["fenced", "neighbour"] {
        assert!(scene.comes_to_reach(sandbox, ALLOWED6, 8080), "{sandbox}");
    }
    let address = |sandbox: &str| -> Ipv6Addr {
        let said = scene.inside(sandbox, &format!("echo {OWN}"));
        said.trim().parse().expect("an address")
    };
    let (from, of) = (address("fenced"), address("neighbour"));
    let to = Ipv6Addr::from(u128::from(from) >> 64 << 64 | 1);
    let hardware = scene.inside("fenced", "cat /sys/class/net/eth0/address");
    let hardware = hardware.trim().split(':');
    let hardware: Vec<u8> = hardware
        .map(|byte| u8::from_str_radix(byte, 16).expect("a byte"))
        .collect();
    let state = scene.client(&["query", &format!("/1.0/instances/{}/state", scene.instance("fenced"))]);
    let state: serde_json::Value = serde_json::from_str(&state).expect("JSON");
    let inside = File::open(format!("/proc/{}/ns/net", state["pid"])).expect("it runs");
    let sent = thread::spawn(move || {
        setns(inside, CloneFlags::CLONE_NEWNET).expect("in its network");
        let whole_packets = Protocol::from_raw(255.try_into().expect("not 0"));
        let kind = SocketType::RAW;
        let socket = socket_with(AddressFamily::INET6, kind, SocketFlags::CLOEXEC, Some(whole_packets));
        let socket = socket.expect("root has one");
        let packet = advertisement(from, &hardware, to, of);
        sendto(&socket, &packet, SendFlags::empty(), &SocketAddrV6::new(to, 0, 0, 0)).expect("sent");
    });
    sent.join().expect("sent");
    assert!(
        scene.reaches("neighbour", ALLOWED6, 8080),
        "answers come to the neighbour still"
    );
}

#[test]
fn what_is_open_is_reached_and_nothing_else_on_local() {
    let Some(scene) = Scene::on_local("six") else { return };
    scene.internet.pass_ipv6_on(false);
    scene.write(FENCED);
    let refused = scene.says(1, &["plan"]);
    assert!(
        refused.contains("net.ipv6.conf.all.forwarding=1") && refused.contains("sbx.kdl:"),
        "{refused}"
    );
    scene.internet.pass_ipv6_on(true);
    only_what_is_open(&scene, "");
    nobody_gets_in(&scene);
    // Of before this machine passed IPv6 on.
    scene.says(0, &["destroy", "--yes", "--allow-data-loss"]);
    scene.internet.pass_ipv6_on(false);
    scene.apply("sandbox \"one\" { egress { allow \"both.test\"; }; }");
    scene.internet.pass_ipv6_on(true);
    scene.write("sandbox \"one\" { egress { allow \"both.test\"; allow \"2001:db8::20\" port=8080; }; }");
    // A policy is opened while it runs, but an address comes with a start.
    let said = scene.says(1, &["apply", "--yes"]);
    assert!(said.contains("it has no IPv6 address"), "{said}");
    scene.says(0, &["apply", "--yes"]);
    assert!(scene.says(0, &["check"]).contains("No changes"));
    assert!(scene.comes_to_reach("one", CANARY6, 8080) && !scene.reaches("one", CANARY6, 9000));
}

#[test]
fn it_is_opened_and_closed_while_a_sandbox_runs_on_local() {
    let Some(scene) = Scene::on_local("six-edit") else {
        return;
    };
    scene.internet.pass_ipv6_on(true);
    opened_and_closed(&scene);
}

/// Without a policy everything is open, but this machine and other sandboxes.
fn nobody_gets_in(scene: &Scene) {
    scene.apply("sandbox \"one\"\nsandbox \"two\"");
    assert!(scene.comes_to_reach("one", CANARY6, 9000));
    let listener = TcpListener::bind("[::]:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    scene.inside(
        "two",
        "(while true; do echo REACHED | nc -l -p 7000; done) >/dev/null 2>&1 &",
    );
    let other = scene.inside("two", &format!("echo {OWN}")).trim().to_owned();
    assert!(
        scene.inside("two", &connect(&other, 7000)).contains("REACHED"),
        "it listens"
    );
    let own = format!("a={OWN}; {}", connect("${a%:*}:1", port));
    assert!(!scene.inside("one", &own).contains("REACHED"), "this machine beside it");
    assert!(!scene.reaches("one", HOST6, port), "this machine");
    assert!(!scene.reaches("one", &other, 7000), "another sandbox");
    drop(listener);
    assert!(
        TcpStream::connect((other.as_str(), 7000)).is_ok(),
        "this machine gets in"
    );
}

/// A network with IPv6, for sandboxes whose policies are enforced inside.
struct Network(String);

impl Network {
    fn make(scene: &Scene) -> Self {
        let name = format!("sbx6-{}", std::process::id());
        // The daemon tries a few ranges that everybody takes, and no others.
        let four = format!("ipv4.address=10.231.{}.1/24", std::process::id() % 250);
        let set = [&four, "ipv4.nat=true", "ipv6.address=fd42:5b78::1/64", "ipv6.nat=true"];
        scene.client(&[&["network", "create", name.as_str()][..], &set].concat());
        Self(name)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = Command::new("incus").args(["network", "delete", &self.0]).status();
    }
}

#[test]
fn what_is_open_is_reached_and_nothing_else_inside() {
    let Some(scene) = Scene::on_incus("six-guest") else {
        return;
    };
    let network = Network::make(&scene);
    let scene = scene.on_network(&network.0);
    let guest = |text: &str| {
        text.replace("egress \"web\" {", "egress \"web\" { enforce \"guest\";")
            .replace("egress { allow", "egress { enforce \"guest\"; allow")
            .replace("egress \"web\"; }", "use \"filter\"; egress \"web\"; }")
            .replace("\"closed\" {", "\"closed\" { use \"filter\";")
    };
    let more = super::guest::filter(&scene);
    scene.apply(&format!("{more}{}", guest(FENCED)));
    only_what_is_open(&scene, "inside");
    scene.says(0, &["destroy", "--yes", "--allow-data-loss"]);
}

fn only_what_is_open(scene: &Scene, place: &str) {
    if place.is_empty() {
        scene.apply(FENCED);
    }
    assert!(scene.says(0, &["plan"]).contains("No changes"));
    for sandbox in ["fenced", "neighbour"] {
        assert!(scene.comes_to_reach(sandbox, ALLOWED6, 8080), "{sandbox}");
    }
    for name in ["both.test", "six.test"] {
        assert!(scene.comes_to_reach("fenced", name, 8080), "{name}");
        let found = scene.inside("fenced", &format!("ping6 -c1 -W1 {name} 2>&1"));
        assert!(found.contains(ALLOWED6), "{name}: {found}");
    }
    assert!(scene.comes_to_reach("fenced", "2001:db8::11", 8080));
    assert!(
        scene.comes_to_reach("fenced", ALLOWED, 8080),
        "a name's IPv4 addresses, too"
    );

    let listener = TcpListener::bind("[::]:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.write_all(b"REACHED\n");
        }
    });
    let neighbour = scene.inside("neighbour", &format!("echo {OWN}")).trim().to_owned();
    assert!(neighbour.contains(':'), "{neighbour}");
    scene.inside(
        "neighbour",
        "(while true; do echo REACHED | nc -l -p 7000; done) >/dev/null 2>&1 &",
    );
    let mut got_out = Vec::new();
    // Inside, nobody holds an address against whoever may set one; it reaches what is open, nothing more.
    let all = attempts(port, &neighbour).into_iter();
    for (attempt, script) in all.filter(|(attempt, _)| place.is_empty() || !attempt.starts_with("a spoofed")) {
        for sandbox in ["fenced", "closed"] {
            let said = scene.inside(sandbox, &script);
            if said.contains("REACHED") {
                got_out.push(format!("{sandbox}: {attempt}: {said}"));
            }
        }
    }
    assert_eq!(got_out, Vec::<String>::new());
    assert!(
        scene.comes_to_reach("fenced", ALLOWED6, 8080),
        "what is open is open still"
    );
    assert!(
        !scene.reaches("closed", ALLOWED6, 8080),
        "no policy of its own opens it"
    );

    let canary = format!("[{CANARY6}]:8080");
    let said = scene.says(0, &["check", "--probe", "--canary", &canary]);
    for line in [
        "allowed [2001:db8::11]:8080/tcp",
        "allowed six.test:8080/tcp",
        "canary [2001:db8::20]:8080",
    ] {
        let held = |shown: &&str| shown.contains(line) && shown.contains("  held");
        assert!(said.lines().any(|shown| held(&shown)), "{line}: {said}");
    }
    assert!(!said.contains("LEAK"), "{said}");
}

#[test]
fn it_is_opened_and_closed_while_a_sandbox_runs_on_incus() {
    let Some(scene) = Scene::on_incus("six-edit") else {
        return;
    };
    opened_and_closed(&scene);
}

/// Opens IPv6 and closes it again while a connection is open by IPv4.
fn opened_and_closed(scene: &Scene) {
    let spec = |more: &str| {
        format!(
            "egress \"web\" {{ allow \"both.test\" port=8080 protocol=\"tcp\"; {more} }}\nsandbox \"one\" {{ egress \"web\"; }}"
        )
    };
    scene.apply(&spec(""));
    assert!(scene.comes_to_reach("one", "both.test", 8080));
    let mut connection = scene.connected("one", ALLOWED);
    assert!(
        !scene.reaches("one", ALLOWED6, 8080),
        "a name that has both brings no IPv6"
    );

    for round in ["first", "again"] {
        scene.write(&spec("allow \"2001:db8::/32\" port=8080;"));
        let plan = scene.says(0, &["plan"]);
        assert!(
            plan.contains("+ [2001:db8::/32]:8080 (pending)") && !plan.contains("restart"),
            "{round}: {plan}"
        );
        scene.says(0, &["apply", "--yes"]);
        assert!(scene.says(0, &["plan"]).contains("No changes"), "{round}");
        assert!(scene.comes_to_reach("one", CANARY6, 8080), "{round}");
        assert!(!scene.reaches("one", CANARY6, 9000), "{round}");

        scene.write(&spec(""));
        let plan = scene.says(0, &["plan"]);
        assert!(
            plan.contains("- [2001:db8::/32]:8080  no longer reachable (pending)") && !plan.contains("restart"),
            "{round}: {plan}"
        );
        scene.says(0, &["apply", "--yes"]);
        assert!(scene.says(0, &["plan"]).contains("No changes"), "{round}");
        assert!(!scene.reaches("one", CANARY6, 8080), "{round}");

        connection.goes_on(round);
    }
    connection.end();
}
