//! Ports of local sandboxes.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use rustix::process::{Pid, Signal, kill_process};

use super::scene::{Scene, addresses, ask, free_port};

/// Longer than anything takes on a slow machine.
const PATIENCE: Option<Duration> = Some(Duration::from_secs(60));

fn sandbox(body: &str) -> String {
    format!("sandbox \"one\" {{ {body} }}")
}

/// Makes a socket in the sandbox's network.
fn inside<T: Send + 'static>(scene: &Scene, make: impl FnOnce() -> T + Send + 'static) -> T {
    let namespace = File::open(format!("/proc/{}/ns/net", scene.first_process())).expect("it runs");
    let made = std::thread::spawn(move || {
        setns(namespace, CloneFlags::CLONE_NEWNET).expect("enters");
        make()
    });
    made.join().expect("makes")
}

/// A server on 127.0.0.1 of the sandbox that says what it is told, with all that it has heard, once the other end has
/// nothing more to say.
fn server(scene: &Scene, port: u16, word: &'static str) {
    let listener = inside(scene, move || {
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("binds")
    });
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let mut heard = String::new();
                let _ = stream.read_to_string(&mut heard);
                let _ = stream.write_all(format!("{word} {heard}").as_bytes());
            });
        }
    });
}

/// What a server answers to a text and its end.
fn answer(address: impl Into<SocketAddr>, text: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address.into()).ok()?;
    stream.set_read_timeout(PATIENCE).expect("sets");
    stream.write_all(text.as_bytes()).ok()?;
    stream.shutdown(std::net::Shutdown::Write).ok()?;
    let mut said = String::new();
    stream.read_to_string(&mut said).ok()?;
    Some(said)
}

#[test]
fn a_port_answers_on_this_machine_and_nowhere_else() {
    let Some(scene) = Scene::on_local("port") else { return };
    let (host, udp) = (free_port(), free_port());
    // Who is let out nowhere is reached all the same.
    scene.apply(&sandbox(&format!(
        "port 8080 host={host}; port 53 host={udp} protocol=\"udp\"; egress mode=\"none\";"
    )));
    let shown = scene.says(0, &["show"]);
    assert!(shown.contains(&host.to_string()), "{shown}");
    assert_eq!(
        answer((Ipv4Addr::LOCALHOST, host), "x").unwrap_or_default(),
        "",
        "nobody serves yet"
    );
    server(&scene, 8080, "hello");
    let long = "x".repeat(300_000);
    assert_eq!(
        answer((Ipv4Addr::LOCALHOST, host), &long),
        Some(format!("hello {long}"))
    );
    assert_eq!(answer((Ipv6Addr::LOCALHOST, host), "six").as_deref(), Some("hello six"));
    for other in addresses() {
        assert_eq!(ask(SocketAddr::new(other.into(), host)), None, "{other}");
        TcpListener::bind((other, host)).expect("the port is not open elsewhere");
        UdpSocket::bind((other, udp)).expect("the port is not open elsewhere");
    }
    let served = inside(&scene, || UdpSocket::bind((Ipv4Addr::LOCALHOST, 53)).expect("binds"));
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("binds");
    for socket in [&served, &socket] {
        socket.set_read_timeout(PATIENCE).expect("sets");
    }
    let mut heard = [0; 8];
    for _ in 0..2 {
        socket.send_to(b"ping", (Ipv4Addr::LOCALHOST, udp)).expect("sends");
        let (size, from) = served.recv_from(&mut heard).expect("arrives inside");
        assert_eq!(&heard[..size], b"ping");
        served.send_to(b"pong", from).expect("sends");
        let (size, from) = socket.recv_from(&mut heard).expect("comes back");
        assert_eq!(
            (&heard[..size], from),
            (&b"pong"[..], (Ipv4Addr::LOCALHOST, udp).into())
        );
    }
    // Nothing of it leads out.
    let status = std::fs::read_to_string(format!("/proc/{}/status", scene.forwarder())).expect("it runs");
    for line in ["CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(status.contains(line), "{status}");
    }
    assert!(!status.contains("\nUid:\t0\t"), "{status}");
}

#[test]
fn ports_come_and_go_while_it_runs_and_end_with_it() {
    let Some(scene) = Scene::on_local("plug") else { return };
    let (one, two) = (free_port(), free_port());
    scene.apply(&sandbox(""));
    let first = scene.first_process();
    server(&scene, 8080, "hello");
    let said = scene.apply(&sandbox(&format!("port 8080 host={one};")));
    assert!(said.contains("port 8080") && !said.contains("restart"), "{said}");
    assert_eq!(answer((Ipv4Addr::LOCALHOST, one), "").as_deref(), Some("hello "));
    scene.apply(&sandbox(&format!("port 8080 host={two};")));
    assert_eq!(answer((Ipv4Addr::LOCALHOST, one), ""), None);
    assert_eq!(answer((Ipv4Addr::LOCALHOST, two), "").as_deref(), Some("hello "));
    // Ended by hand: found, and repaired.
    let pid = Pid::from_raw(scene.forwarder()).expect("a number");
    kill_process(pid, Signal::KILL).expect("it is there");
    while scene.run(&["check"]).status.code() == Some(0) {
        std::thread::yield_now();
    }
    let check = scene.says(3, &["check"]);
    assert!(check.contains("port 8080") && check.contains("drift"), "{check}");
    scene.says(0, &["apply", "--yes"]);
    assert!(scene.says(0, &["check"]).contains("No changes"));
    assert_eq!(answer((Ipv4Addr::LOCALHOST, two), "").as_deref(), Some("hello "));
    assert_eq!(scene.first_process(), first, "it was never restarted");
    // What cannot be opened leaves what was.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, one)).expect("is free");
    scene.write(&sandbox(&format!("port 8080 host={one};")));
    assert!(scene.says(1, &["apply", "--yes"]).contains("is taken"));
    assert_eq!(answer((Ipv4Addr::LOCALHOST, two), "").as_deref(), Some("hello "));
    drop(listener);
    scene.apply(&sandbox(&format!("port 8080 host={two}; state \"stopped\";")));
    TcpListener::bind((Ipv4Addr::LOCALHOST, two)).expect("a stopped sandbox has no port");
    scene.apply(&sandbox(&format!("port 8080 host={two}; env A=\"b\";")));
    TcpListener::bind((Ipv4Addr::LOCALHOST, two)).expect_err("it is open again");
    // One whose first process ends by itself takes its ports along.
    let pid = Pid::from_raw(scene.first_process()).expect("a number");
    kill_process(pid, Signal::KILL).expect("it is there");
    while TcpListener::bind((Ipv4Addr::LOCALHOST, two)).is_err() {
        std::thread::yield_now();
    }
    scene.apply(&sandbox(&format!("port 8080 host={two};")));
    scene.apply(&sandbox(""));
    TcpListener::bind((Ipv4Addr::LOCALHOST, two)).expect("it left the spec");
}

#[test]
fn a_port_that_somebody_has_is_told_before_anything_is_touched() {
    let Some(scene) = Scene::on_local("taken") else { return };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("listens");
    let host = listener.local_addr().expect("has one").port();
    let spec = sandbox(&format!("port 8080 host={host};"));
    scene.write(&spec);
    let said = scene.says(1, &["apply", "--yes"]);
    assert!(
        said.contains(&format!("port {host} of this machine is taken")) && said.contains("sbx.kdl:4"),
        "{said}"
    );
    assert!(!scene.record().exists());
    drop(listener);
    scene.apply(&sandbox(&format!("port 8080 host={host}; state \"stopped\";")));
    // By hand, past the plan's look: it does not start without.
    let _listener = TcpListener::bind((Ipv4Addr::LOCALHOST, host)).expect("a stopped sandbox has no port");
    scene.write(
        &spec
            .replace("8080", "8081")
            .replace("{ ", "{ ignore \"port:8080\"; ")
            .replace(&host.to_string(), &free_port().to_string()),
    );
    let said = scene.says(1, &["apply", "--yes"]);
    assert!(
        said.contains(&format!("port {host} of this machine is taken")),
        "{said}"
    );
    assert!(scene.says(0, &["show"]).contains("stopped"));
}

#[test]
fn two_sandboxes_swap_their_ports() {
    let Some(scene) = Scene::on_local("swap-ports") else {
        return;
    };
    swap_their_ports(&scene);
}

pub(super) fn swap_their_ports(scene: &Scene) {
    let (first, second) = (free_port(), free_port());
    let spec = |one: u16, two: u16| {
        format!("sandbox \"one\" {{ port 80 host={one}; }}\nsandbox \"two\" {{ port 80 host={two}; }}")
    };
    scene.apply(&spec(first, second));
    scene.apply(&spec(second, first));
    let shown = scene.says(0, &["show", "--json"]);
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    let ports = |index: usize| shown["sandboxes"][index]["workspace"]["ports"][0].clone();
    assert_eq!(ports(0), format!("80 at 127.0.0.1:{second}"));
    assert_eq!(ports(1), format!("80 at 127.0.0.1:{first}"));
}
