//! An ordinary user's sandboxes where the program `pasta` is installed, and `/dev/net/tun` is open to everybody: here, in a mount
//! namespace of the test's own.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

use crate::support::daemon::skipped;

/// An id that no account has.
const NOBODY: u32 = 64_322;

/// A machine of the test's own, as far as its network goes: one device, and a router that answers nobody.
struct Machine(Child);

impl Machine {
    fn new() -> Self {
        let script = "ip link add uplink type veth peer name router && ip addr add 198.51.100.2/24 dev uplink && \
                      ip link set lo up && ip link set router up && ip link set uplink up && \
                      ip route add default via 198.51.100.1 && touch ready && exec sleep 600";
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = Command::new("unshare");
        command
            .args(["--net", "sh", "-c", script])
            .current_dir(folder.path())
            .stdin(Stdio::null());
        let machine = Self(command.spawn().expect("starts"));
        let end = Instant::now() + Duration::from_secs(30);
        while !folder.path().join("ready").exists() {
            assert!(Instant::now() < end, "no network of the test's own");
            std::thread::sleep(Duration::from_millis(5));
        }
        machine
    }

    fn place(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.0.id()))
    }

    /// What listens there, on its loopback device.
    fn listener(&self) -> TcpListener {
        let place = File::open(self.place()).expect("opens");
        let listen = move || {
            nix::sched::setns(place, nix::sched::CloneFlags::CLONE_NEWNET).expect("enters");
            TcpListener::bind("127.0.0.1:0").expect("listens")
        };
        std::thread::spawn(listen).join().expect("no panic")
    }

    /// It is unplugged.
    fn unplug(&self) {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", self.place().display()))
            .args(["ip", "link", "del", "uplink"]);
        assert!(command.status().is_ok_and(|status| status.success()));
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct User {
    machine: Machine,
    folder: tempfile::TempDir,
    tunnels: PathBuf,
}

impl User {
    fn new(spec: &str) -> std::io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("sbx-pasta-").tempdir_in("/var/tmp")?;
        let tunnels = folder.path().join("tun");
        mknodat(CWD, &tunnels, FileType::CharacterDevice, Mode::RUSR, makedev(10, 200))?;
        fs::set_permissions(&tunnels, fs::Permissions::from_mode(0o666))?;
        fs::write(
            folder.path().join("sbx.kdl"),
            format!("environment \"pasta\"\n{spec}\n"),
        )?;
        chown(folder.path(), Some(NOBODY), Some(NOBODY))?;
        Ok(Self {
            machine: Machine::new(),
            folder,
            tunnels,
        })
    }

    /// Runs the program as the user.
    fn run(&self, arguments: &[&str]) -> Output {
        let script = "mount --bind \"$0\" /dev/net/tun && \
                      exec setpriv --reuid \"$1\" --regid \"$1\" --clear-groups -- \"$2\" \"${@:3}\"";
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.machine.place().display()));
        command
            .args(["unshare", "--mount", "bash", "-c", script])
            .arg(&self.tunnels);
        command
            .args([&NOBODY.to_string(), env!("CARGO_BIN_EXE_sbx-apply")])
            .args(arguments);
        command
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("SBX_LOCAL_STATE", self.state()).stdin(Stdio::null());
        command.output().expect("runs")
    }

    #[track_caller]
    fn does(&self, arguments: &[&str]) -> String {
        said(&self.run(arguments))
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let _ = self.run(&["destroy", "--allow-data-loss"]);
    }
}

#[track_caller]
fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

#[test]
fn a_users_sandbox_gets_out_by_pasta() {
    let installed = Path::new("/usr/bin/pasta").exists() && Path::new("/dev/net/tun").exists();
    if !rustix::process::geteuid().is_root() || !installed {
        skipped("networks of ordinary users: this needs root, the program pasta, and /dev/net/tun");
        return;
    }
    let spec = "sandbox \"out\" { image \"host\"; }\nsandbox \"closed\" { image \"host\"; egress { mode \"none\"; }; }";
    let user = User::new(spec).expect("a folder");
    let makes_namespaces = user.run(&["doctor"]);
    if !makes_namespaces.status.success() {
        skipped("networks of ordinary users: they can make no sandboxes on this machine");
        return;
    }
    assert!(said(&makes_namespaces).contains("outbound, by /usr/bin/pasta"));
    user.does(&["apply", "--yes"]);
    user.does(&["plan", "--detailed-exitcode"]);
    let devices = |sandbox: &str| user.does(&["exec", sandbox, "--", "ls", "/sys/class/net"]);
    assert_eq!(devices("closed").trim(), "lo");
    assert_ne!(devices("out").trim(), "lo");
    let routes = user.does(&["exec", "out", "--", "cat", "/proc/net/route"]);
    assert!(
        routes
            .lines()
            .any(|line| line.split_whitespace().nth(1) == Some("00000000")),
        "{routes}"
    );
    // What listens on this machine for itself is not reached: neither there nor by the gateway, which pasta has stand for it.
    let listener = user.machine.listener();
    let port = listener.local_addr().expect("an address").port();
    let try_both = format!(
        "for host in 127.0.0.1 198.51.100.1; do \
         timeout 3 bash -c \"</dev/tcp/$host/{port}\" 2>/dev/null && echo reached $host; done; true"
    );
    assert_eq!(user.does(&["exec", "out", "--", "bash", "-c", &try_both]), "");
    // It goes with the sandbox.
    let record = user.state().join("sandboxes/pasta-out/pasta.pid");
    let pid: u32 = fs::read_to_string(&record)
        .expect("reads")
        .trim()
        .parse()
        .expect("a number");
    user.does(&["destroy", "--allow-data-loss"]);
    let end = Instant::now() + Duration::from_secs(30);
    while fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|command| command.contains("pasta")) {
        assert!(Instant::now() < end, "it is still there");
        std::thread::sleep(Duration::from_millis(10));
    }
    // Offline, a sandbox is of use all the same, and the plan says what it lacks.
    user.machine.unplug();
    let plan = user.does(&["plan"]);
    assert!(plan.contains("this machine has no way out now"), "{plan}");
    user.does(&["apply", "--yes"]);
    assert_eq!(user.does(&["exec", "out", "--", "echo", "runs"]), "runs\n");
}
