//! An internet of the tests' own: a network namespace with documentation addresses (RFC 5737, RFC 3849), a DNS server and
//! small TCP servers. What is asked of it is kept.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, Ipv6Addr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use tempfile::TempDir;

/// The host's address in it.
pub(super) const HOST: &str = "198.51.100.1";
/// What `allowed.test` leads to.
pub(super) const ALLOWED: &str = "198.51.100.10";
/// What no policy opens.
pub(super) const CANARY: &str = "198.51.100.20";
/// A DNS server.
pub(super) const DNS: &str = "198.51.100.53";

/// The host's address in it by IPv6.
pub(super) const HOST6: &str = "2001:db8::1";
/// What `both.test` and `six.test` lead to by IPv6.
pub(super) const ALLOWED6: &str = "2001:db8::10";
/// What no policy opens.
pub(super) const CANARY6: &str = "2001:db8::20";

/// The device on the host's side. It is there once, as its addresses are, so that two tests never have one at the same
/// time: whoever has this lock does.
const DEVICE: &str = "sbxinternet";
const LOCK: &str = "/run/sbx-apply-test-internet.lock";

type Names = BTreeMap<String, Vec<IpAddr>>;

/// Settings of this machine for IPv6, one for each device, which a daemon may change while it makes a network.
const SETTINGS: &str = "/proc/sys/net/ipv6/conf";

/// It lasts as long as this.
pub(super) struct Internet {
    /// Settings for the program's own resolver.
    folder: TempDir,
    names: Arc<Mutex<Names>>,
    asked: Arc<Mutex<Vec<String>>>,
    /// What this machine's settings for IPv6 were before.
    settings: Vec<(PathBuf, String)>,
    /// Ends the thread that keeps the namespace.
    _alive: mpsc::Sender<()>,
    /// Let go of last, and with the process, however that ends.
    _only_one: File,
}

impl Internet {
    /// None where this process may not make networks, which is said aloud.
    pub(super) fn start() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            crate::support::daemon::skipped("egress: only root can make networks");
            return None;
        }
        // However long the tests before this one take, here and in other processes.
        let only_one = File::create(LOCK).expect("a file");
        flock(&only_one, FlockOperation::LockExclusive).expect("a lock");
        let settings = settings();
        let names = Arc::new(Mutex::new(Names::new()));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (alive, ended) = mpsc::channel::<()>();
        let (ready, started) = mpsc::channel();
        let (known, heard) = (names.clone(), asked.clone());
        thread::spawn(move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a network namespace");
            join(rustix::thread::gettid().as_raw_nonzero().get());
            serve(known, heard);
            ready.send(()).expect("somebody waits");
            // While this thread lives, so does the namespace.
            let _ = ended.recv();
        });
        started.recv().expect("the internet starts");
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("hosts"), "127.0.0.1 localhost\n").expect("written");
        fs::write(
            folder.path().join("resolv.conf"),
            format!("nameserver {DNS}\noptions timeout:7 attempts:2\n"),
        )
        .expect("written");
        let internet = Self {
            folder,
            names,
            asked,
            settings,
            _alive: alive,
            _only_one: only_one,
        };
        internet.name("allowed.test", &[ALLOWED]);
        internet.name("both.test", &[ALLOWED, ALLOWED6]);
        internet.name("six.test", &[ALLOWED6]);
        // Foreign names that everybody can look up.
        internet.name("example.com", &["198.51.100.99"]);
        Some(internet)
    }

    /// Has this machine pass IPv6 on, or not; as it was before when this ends.
    pub(super) fn pass_ipv6_on(&self, on: bool) {
        let (switch, _) = self.settings.first().expect("a machine with IPv6");
        fs::write(switch, if on { "1" } else { "0" }).expect("set");
    }

    /// Sets what a name leads to.
    pub(super) fn name(&self, name: &str, addresses: &[&str]) {
        let addresses = addresses.iter().map(|text| text.parse().expect("an address")).collect();
        self.names.lock().expect("no panic").insert(name.to_owned(), addresses);
    }

    /// Takes a name away.
    pub(super) fn forget(&self, name: &str) {
        self.names.lock().expect("no panic").remove(name);
    }

    /// The names that its DNS server was asked for since this was last called.
    pub(super) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().expect("no panic"))
    }

    /// The program on this machine, with this internet's DNS server.
    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let script =
            "mount --bind \"$0/hosts\" /etc/hosts && mount --bind \"$0/resolv.conf\" /etc/resolv.conf && exec \"$@\"";
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c", script])
            .arg(self.folder.path())
            .arg(env!("CARGO_BIN_EXE_sbx-apply"))
            .args(arguments);
        command
    }
}

/// What a machine that becomes a router has otherwise. The first is of all devices, and changes each one's when it is set.
fn settings() -> Vec<(PathBuf, String)> {
    let devices = fs::read_dir(SETTINGS).into_iter().flatten().filter_map(Result::ok);
    let devices = devices.map(|entry| entry.path()).filter(|path| !path.ends_with("all"));
    let all = std::iter::once(PathBuf::from(SETTINGS).join("all")).chain(devices);
    let paths = all.flat_map(|path| [path.join("forwarding"), path.join("accept_ra")]);
    paths
        .filter_map(|path| {
            let now = fs::read_to_string(&path).ok()?;
            Some((path, now))
        })
        .collect()
}

fn ip(arguments: &str) -> bool {
    let status = Command::new("ip").args(arguments.split(' ')).status();
    status.is_ok_and(|status| status.success())
}

impl Drop for Internet {
    fn drop(&mut self) {
        // The namespace lives as long as a server's socket in it; the next internet needs the device's name now.
        ip(&format!("link del {DEVICE}"));
        for (path, before) in &self.settings {
            if fs::read_to_string(path).is_ok_and(|now| now != *before) {
                let _ = fs::write(path, before);
            }
        }
    }
}

/// Joins this thread's namespace to the one of the process.
fn join(tid: i32) {
    let until = Instant::now() + Duration::from_secs(180);
    let outside = |arguments: &str| {
        // The process itself is where it was.
        let here = format!("--net=/proc/{}/ns/net", std::process::id());
        let status = Command::new("nsenter")
            .args([&here, "ip"])
            .args(arguments.split(' '))
            .stderr(std::process::Stdio::null())
            .status();
        status.is_ok_and(|status| status.success())
    };
    while !outside(&format!("link add {DEVICE} type veth peer name eth0 netns {tid}")) {
        assert!(
            Instant::now() < until,
            "the network device {DEVICE} is taken, or cannot be made"
        );
        thread::sleep(Duration::from_millis(100));
    }
    assert!(outside(&format!("addr add {HOST}/24 dev {DEVICE}")) && outside(&format!("link set {DEVICE} up")));
    // Without waiting whether somebody else has it.
    assert!(outside(&format!("addr add {HOST6}/64 dev {DEVICE} nodad")));
    for address in [ALLOWED, "198.51.100.11", "198.51.100.12", CANARY, DNS, "198.51.100.99"] {
        assert!(ip(&format!("addr add {address}/24 dev eth0")));
    }
    for address in [ALLOWED6, "2001:db8::11", CANARY6] {
        assert!(ip(&format!("addr add {address}/64 dev eth0 nodad")));
    }
    assert!(ip("link set lo up") && ip("link set eth0 up") && ip(&format!("route add default via {HOST}")));
}

/// Answers on ports 8080 and 9000, and on 53.
fn serve(names: Arc<Mutex<Names>>, asked: Arc<Mutex<Vec<String>>>) {
    for port in [8080, 9000] {
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).expect("a port");
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || {
                    let mut writer = stream.try_clone().expect("a socket");
                    let _ = writer.write_all(b"REACHED\n");
                    for line in BufReader::new(stream).lines().map_while(Result::ok) {
                        let _ = writer.write_all(format!("echo {line}\n").as_bytes());
                    }
                });
            }
        });
    }
    // At its own address, so that answers come from where they are expected.
    let socket = UdpSocket::bind((DNS, 53)).expect("a port");
    thread::spawn(move || {
        let mut question = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut question) {
            if let Some((name, answer)) = answer(&question[..length], &names.lock().expect("no panic")) {
                asked.lock().expect("no panic").push(name);
                let _ = socket.send_to(&answer, from);
            }
        }
    });
}

/// A DNS answer (RFC 1035), and the name that was asked for.
fn answer(question: &[u8], names: &Names) -> Option<(String, Vec<u8>)> {
    let mut labels = Vec::new();
    let mut at = 12;
    while let Some(&length) = question.get(at).filter(|length| **length > 0) {
        let label = question.get(at + 1..at + 1 + usize::from(length))?;
        labels.push(String::from_utf8_lossy(label).to_lowercase());
        at += 1 + usize::from(length);
    }
    let (name, end) = (labels.join("."), at + 5);
    let found = names.get(&name);
    let kind = question.get(at + 1..at + 3)?;
    let mut answers = Vec::new();
    for address in found.into_iter().flatten() {
        let bytes = match address {
            IpAddr::V4(four) if kind == [0, 1] => four.octets().to_vec(),
            IpAddr::V6(six) if kind == [0, 28] => six.octets().to_vec(),
            _ => continue,
        };
        answers.push(bytes);
    }
    let code = if found.is_some() { 0x80 } else { 0x83 };
    let mut bytes = question.get(..end)?.to_vec();
    bytes[2..12].copy_from_slice(&[0x81, code, 0, 1, 0, u8::try_from(answers.len()).ok()?, 0, 0, 0, 0]);
    for address in answers {
        bytes.extend([
            0xC0,
            12,
            0,
            kind[1],
            0,
            1,
            0,
            0,
            0,
            1,
            0,
            u8::try_from(address.len()).ok()?,
        ]);
        bytes.extend(address);
    }
    Some((name, bytes))
}
