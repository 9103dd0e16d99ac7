//! What reaches a sandbox, and what it reaches. "Outside" is another network namespace of this machine.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use sbx_apply::backend::Stop;
use sbx_apply::model::Capability;

use crate::support::daemon::skipped;
use crate::support::namespaces::{self, Sandbox};

/// Addresses for documentation (RFC 5737): no real network has them.
const OUTSIDE: &str = "198.51.100.2";
const GATEWAY: &str = "198.51.100.1";

/// Those addresses are there once.
static ONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A network namespace that is joined to this machine by a pair of devices.
struct Outside {
    holder: Child,
    device: String,
}

impl Outside {
    fn make() -> Self {
        let holder = Command::new("unshare")
            .args(["--net", "sleep", "300"])
            .stdin(Stdio::null())
            .spawn()
            .expect("starts");
        let own = fs::read_link("/proc/self/ns/net").expect("reads");
        while fs::read_link(format!("/proc/{}/ns/net", holder.id())).is_ok_and(|found| found == own) {
            thread::sleep(Duration::from_millis(2));
        }
        let outside = Self {
            device: format!("out{}", holder.id()),
            holder,
        };
        let (pid, device) = (outside.holder.id(), &outside.device);
        ip(&format!("link add {device} type veth peer name uplink netns {pid}"));
        ip(&format!("addr add {GATEWAY}/30 dev {device}"));
        ip(&format!("link set {device} up"));
        outside.enter(|| {
            ip(&format!("addr add {OUTSIDE}/30 dev uplink"));
            ip("link set uplink up");
            ip("link set lo up");
            ip(&format!("route add default via {GATEWAY}"));
        });
        outside
    }

    /// Does something in there.
    fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(format!("/proc/{}/ns/net", self.holder.id())).expect("opens");
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).expect("enters");
                work()
            });
            thread.join().expect("works")
        })
    }

    /// Something that says, to each who connects, who that is.
    fn listen(&self) -> SocketAddr {
        let listener = self.enter(|| TcpListener::bind((OUTSIDE, 0)).expect("listens"));
        serve(listener)
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        // What listens there keeps the namespace.
        let _ = Command::new("ip").args(["link", "delete", &self.device]).status();
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

fn serve(listener: TcpListener) -> SocketAddr {
    let address = listener.local_addr().expect("has an address");
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let peer = stream.peer_addr().expect("has a peer").ip();
            let _ = stream.write_all(format!("{peer}\n").as_bytes());
        }
    });
    address
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().expect("runs");
    assert!(status.success(), "ip {arguments}");
}

/// Connects from inside and gives what is said there; empty where nobody lets it.
async fn connect(sandbox: &Sandbox, to: SocketAddr) -> String {
    let (host, port) = (to.ip(), to.port());
    let script = format!("timeout 5 bash -c 'exec 3<>/dev/tcp/{host}/{port}; cat <&3'");
    sandbox.says(&script).await
}

async fn address(sandbox: &Sandbox) -> IpAddr {
    let mut addresses = sandbox.backend.get(&sandbox.name).await.expect("gets").addresses;
    // One more by IPv6, where this machine passes that on.
    addresses.retain(IpAddr::is_ipv4);
    assert_eq!(addresses.len(), 1, "{addresses:?}");
    addresses[0]
}

fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().expect("runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Whether there is anything to test, which is said aloud otherwise.
fn joins() -> bool {
    let can = namespaces::backend().capabilities().can(Capability::Network);
    let tools = ["ip", "unshare", "bash"]
        .iter()
        .all(|tool| Command::new(tool).arg("--help").output().is_ok());
    if !rustix::process::geteuid().is_root() || !can || !tools {
        skipped("networks of local sandboxes: they want root, and the programs nft, ip, unshare and bash");
        return false;
    }
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_gets_out_and_nobody_gets_in() {
    if !joins() {
        return;
    }
    let _one = ONE.lock().await;
    let outside = Outside::make();
    let server = outside.listen();
    let (one, other) = (Sandbox::start().await, Sandbox::start().await);
    assert_eq!(
        connect(&one, server).await,
        format!("{GATEWAY}\n"),
        "out, as this machine"
    );
    let (own, others) = (address(&one).await, address(&other).await);
    assert_ne!(own, others);

    let here = serve(TcpListener::bind("0.0.0.0:0").expect("listens"));
    let gateway = one.says("ip route | sed -n 's/^default via \\([^ ]*\\).*/\\1/p'").await;
    let closed: Vec<IpAddr> = [GATEWAY, "127.0.0.1", gateway.trim()]
        .map(|address| address.parse().expect("an address"))
        .to_vec();
    for address in closed {
        let said = connect(&one, SocketAddr::new(address, here.port())).await;
        assert_eq!(said, "", "this machine at {address}");
    }

    // Something that listens in the other sandbox: this machine reaches it, and nobody else.
    let script = "setsid busybox nc -ll -p 4444 -e /bin/echo inside >/dev/null 2>&1 </dev/null & sleep 0.3";
    let listens = other
        .shell(&format!("busybox nc --help 2>&1 | grep -q -- -ll && {script}"))
        .await;
    if listens.code == 0 {
        let inside = SocketAddr::new(others, 4444);
        let mut text = String::new();
        let mut stream = TcpStream::connect_timeout(&inside, Duration::from_secs(5)).expect("connects");
        stream.read_to_string(&mut text).expect("reads");
        assert_eq!(text, "inside\n", "from this machine");
        assert_eq!(connect(&one, inside).await, "", "from another sandbox");
        let from_outside = outside.enter(|| TcpStream::connect_timeout(&inside, Duration::from_secs(2)).is_ok());
        assert!(!from_outside, "from outside");
    } else {
        skipped("ways into local sandboxes: no busybox to listen in one");
    }
    one.end().await;
    other.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn link_local_addresses_are_not_routed() {
    if !joins() {
        return;
    }
    let _one = ONE.lock().await;
    let outside = Outside::make();
    // As a cloud does it: the machine itself has a way there.
    outside.enter(|| ip("addr add 169.254.99.99/32 dev uplink"));
    ip(&format!("route add 169.254.99.99/32 via {OUTSIDE}"));
    let listener = outside.enter(|| TcpListener::bind("169.254.99.99:0").expect("listens"));
    let server = serve(listener);
    let mut text = String::new();
    let mut stream = TcpStream::connect_timeout(&server, Duration::from_secs(5)).expect("connects");
    stream.read_to_string(&mut text).expect("reads");
    assert_eq!(text, format!("{GATEWAY}\n"), "this machine gets there");
    let sandbox = Sandbox::start().await;
    assert_eq!(connect(&sandbox, server).await, "");
    sandbox.end().await;
}

/// Devices and tables of a sandbox, by the address that both show.
fn traces(address: IpAddr) -> (bool, bool) {
    let IpAddr::V4(inside) = address else {
        panic!("{address}")
    };
    let here = std::net::Ipv4Addr::from(u32::from(inside) - 1);
    (
        said("ip", &["-4", "addr"]).contains(&format!("inet {here}/30 ")),
        said("nft", &["list", "ruleset"]).contains(&format!("ip saddr != {address} ")),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_network_outlives_its_sandbox() {
    if !joins() {
        return;
    }
    let sandbox = Sandbox::start().await;
    let first = address(&sandbox).await;
    assert_eq!(traces(first), (true, true));
    let stop = sandbox.backend.stop(&sandbox.name, Stop::Force).await;
    stop.expect("stops");
    assert_eq!(traces(first), (false, false), "after a stop");
    assert!(
        sandbox
            .backend
            .get(&sandbox.name)
            .await
            .expect("gets")
            .addresses
            .is_empty()
    );

    // Its first process is killed by somebody else: the table is left, and the next start and the delete see to it.
    for again in [true, false] {
        sandbox.backend.start(&sandbox.name).await.expect("starts");
        let address = address(&sandbox).await;
        let record = namespaces::folder().join(format!("state/sandboxes/{}/run.json", sandbox.name));
        let record: serde_json::Value = serde_json::from_slice(&fs::read(record).expect("reads")).expect("JSON");
        let pid = i32::try_from(record["pid"].as_i64().expect("a number")).expect("fits");
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).expect("kills");
        for _ in 0..200 {
            if sandbox
                .backend
                .get(&sandbox.name)
                .await
                .expect("gets")
                .addresses
                .is_empty()
            {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(traces(address).1, "the table is left");
        if !again {
            sandbox.end().await;
            assert_eq!(traces(address), (false, false), "after a delete");
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_have_addresses_of_their_own() {
    if !joins() {
        return;
    }
    let many = futures_util::future::join_all((0..8).map(|_| Sandbox::start())).await;
    let mut all = Vec::new();
    for sandbox in &many {
        all.push(address(sandbox).await);
    }
    all.sort();
    all.dedup();
    assert_eq!(all.len(), many.len());
    futures_util::future::join_all(many.into_iter().map(Sandbox::end)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_knows_its_name_and_a_clone_its_own() {
    let sandbox = Sandbox::start().await;
    let name = sandbox.name.to_string();
    let script =
        "cat /etc/hostname; hostname; grep -c \"^127.0.1.1 $(hostname)$\" /etc/hosts; test -f /etc/resolv.conf";
    assert_eq!(sandbox.says(script).await, format!("{name}\n{name}\n1\n"));
    // Not by what it writes: nothing of it is on its disk.
    let opts = sbx_apply::backend::CreateOpts {
        name: format!("{name}-clone"),
        ..Default::default()
    };
    sbx_apply::backend::Backend::clone_from(&*sandbox.backend, &sandbox.name, None, &opts)
        .await
        .expect("clones");
    let clone = Sandbox {
        backend: sandbox.backend.clone(),
        name: sbx_apply::model::InstanceName::observed(format!("{name}-clone")),
    };
    assert_eq!(clone.says(script).await, format!("{name}-clone\n{name}-clone\n1\n"));
    let (first, second) = (
        sandbox.says("cat /etc/machine-id").await,
        clone.says("cat /etc/machine-id").await,
    );
    assert!(
        first.len() == 33 && second.len() == 33 && first != second,
        "{first}{second}"
    );
    assert_ne!(Some(first), fs::read_to_string("/etc/machine-id").ok());
    clone.shell("echo mine > /etc/hosts").await;
    clone.backend.stop(&clone.name, Stop::Force).await.expect("stops");
    clone.backend.start(&clone.name).await.expect("starts");
    assert_eq!(
        clone.says("cat /etc/hosts").await,
        "mine\n",
        "what is written there stays"
    );
    clone.end().await;
    sandbox.end().await;
}
