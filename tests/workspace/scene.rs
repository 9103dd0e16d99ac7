//! An environment whose sandboxes have something of this machine.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use tempfile::TempDir;

use crate::support::daemon::{self, Daemon};
use crate::support::namespaces;
use crate::support::pty::Pty;

/// Where its sandboxes are.
#[derive(Debug, Clone)]
pub(super) enum On {
    Incus(Daemon),
    /// An image.
    Local(PathBuf),
}

/// An environment; what is left of it goes with this.
pub(super) struct Scene {
    on: On,
    pub(super) environment: String,
    folder: TempDir,
}

impl Scene {
    /// On the real daemon. None where there is none, which is said aloud.
    pub(super) fn on_incus(name: &str) -> Option<Self> {
        let daemon = daemon::find()?;
        let folder = tempfile::tempdir().expect("a folder");
        Some(Self::with(On::Incus(daemon), name, folder))
    }

    /// On this machine, as root. None where that cannot be, which is said aloud.
    pub(super) fn on_local(name: &str) -> Option<Self> {
        let (_, image) = namespaces::open()?;
        if !rustix::process::geteuid().is_root() {
            daemon::skipped("mounts of local sandboxes: owners are checked as root");
            return None;
        }
        let folder = tempfile::tempdir_in(namespaces::folder()).expect("a folder");
        Some(Self::with(On::Local(PathBuf::from(image)), name, folder))
    }

    fn with(on: On, name: &str, folder: TempDir) -> Self {
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("sets");
        let scene = Self {
            on,
            environment: format!("work-{name}-{}", std::process::id()),
            folder,
        };
        fs::create_dir(scene.repo()).expect("makes");
        chown(scene.repo(), Some(1000), Some(1000)).expect("is root");
        if let On::Local(image) = &scene.on {
            let copied = Command::new("cp")
                .arg("-a")
                .arg(image)
                .arg(scene.repo().join("image"))
                .status();
            assert!(copied.expect("cp runs").success());
        }
        scene
    }

    fn backend(&self) -> &'static str {
        match self.on {
            On::Incus(_) => "incus",
            On::Local(_) => "local",
        }
    }

    /// The folder with the spec in it.
    pub(super) fn repo(&self) -> PathBuf {
        self.folder.path().join("repo")
    }

    /// A folder beside that.
    pub(super) fn outside(&self) -> PathBuf {
        let folder = self.folder.path().join("outside");
        fs::create_dir_all(&folder).expect("makes");
        folder
    }

    pub(super) fn spec(&self) -> PathBuf {
        self.repo().join("sbx.kdl")
    }

    pub(super) fn write(&self, spec: &str) {
        let image = match self.on {
            On::Incus(_) => "busybox",
            On::Local(_) => "image",
        };
        let text = format!(
            "environment \"{}\"\nbackend \"{}\"\ndefaults {{ image \"{image}\"; }}\n{spec}\n",
            self.environment,
            self.backend()
        );
        fs::write(self.spec(), text).expect("written");
    }

    /// Writes a file of the repo, for the user 1000.
    pub(super) fn file(&self, name: &str, text: &str) {
        let path = self.repo().join(name);
        fs::create_dir_all(path.parent().expect("has one")).expect("makes");
        fs::write(&path, text).expect("writes");
        for path in [path.parent().expect("has one"), &path] {
            chown(path, Some(1000), Some(1000)).expect("is root");
        }
    }

    pub(super) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.repo().join(name)).unwrap_or_default()
    }

    pub(super) fn owner(&self, name: &str) -> (u32, u32) {
        let found = fs::symlink_metadata(self.repo().join(name)).expect("is there");
        (found.uid(), found.gid())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sbx-apply"));
        command
            .args(arguments)
            .current_dir(self.repo())
            .env("SBX_LOCAL_STATE", self.folder.path().join("state"));
        if let On::Incus(daemon) = &self.on {
            command.env("SBX_SOCKET", &daemon.socket);
        }
        command
    }

    pub(super) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("runs")
    }

    /// The program on a terminal.
    pub(super) fn pty(&self, arguments: &[&str]) -> Pty {
        let spec = self.spec().display().to_string();
        let state = self.folder.path().join("state").display().to_string();
        let words: Vec<&str> = [&arguments[..1], &[spec.as_str()], &arguments[1..]].concat();
        Pty::start(&words, &[("SBX_LOCAL_STATE", &state), ("TERM", "vt100")], (100, 30))
    }

    /// What a run printed; it must have ended with that code.
    #[track_caller]
    pub(super) fn says(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let text = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
        text
    }

    /// Applies a spec; what is planned afterwards is nothing.
    #[track_caller]
    pub(super) fn apply(&self, spec: &str) -> String {
        self.write(spec);
        let said = self.says(0, &["apply", "--yes", "--allow-data-loss", "--allow-changed-spec"]);
        let check = self.says(0, &["check"]);
        assert!(check.contains("No changes"), "{check}");
        said
    }

    /// What a shell in a sandbox says, as root.
    pub(super) fn inside(&self, script: &str) -> String {
        self.shell(&["exec", "sbx.kdl", "one", "--root", "--", "/bin/sh", "-c", script])
    }

    /// The same as the sandbox's user.
    pub(super) fn as_user(&self, script: &str) -> String {
        self.shell(&["exec", "sbx.kdl", "one", "--", "/bin/sh", "-c", script])
    }

    fn shell(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let (out, err) = (&output.stdout, &output.stderr);
        format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err))
            .trim()
            .to_owned()
    }

    pub(super) fn instance(&self) -> String {
        format!("{}-one", self.environment)
    }

    /// The client of the daemon, by hand.
    #[track_caller]
    pub(super) fn client(&self, words: &[&str]) -> String {
        let On::Incus(daemon) = &self.on else {
            panic!("there is no client");
        };
        let output = Command::new("incus")
            .args(words)
            .env("INCUS_SOCKET", &daemon.socket)
            .output()
            .expect("the client is there");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?}: {said}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// The names of an instance's own devices.
    pub(super) fn devices(&self) -> Vec<String> {
        let all = self.client(&["config", "device", "list", &self.instance()]);
        all.lines().map(str::to_owned).collect()
    }

    /// The record of a local sandbox.
    pub(super) fn record(&self) -> PathBuf {
        let sandboxes = self.folder.path().join("state/sandboxes");
        sandboxes.join(self.instance()).join("record.json")
    }

    /// The first process of a local sandbox.
    pub(super) fn first_process(&self) -> i32 {
        number(&self.record().with_file_name("run.json"))
    }

    /// What forwards the ports of a local sandbox.
    pub(super) fn forwarder(&self) -> i32 {
        number(&self.record().with_file_name("ports.json"))
    }

    /// The number of processes' pid 1, which a restart changes.
    pub(super) fn started(&self) -> String {
        self.client(&["list", &self.instance(), "-f", "csv", "-c", "p"])
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = self
            .command(&[
                "destroy",
                "--environment",
                &self.environment,
                "--backend",
                self.backend(),
            ])
            .args(["--allow-data-loss", "--yes"])
            .output();
    }
}

/// The process that a file records.
fn number(path: &std::path::Path) -> i32 {
    let text = fs::read_to_string(path).expect("is recorded");
    let recorded: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let process = recorded.get("process").unwrap_or(&recorded);
    let pid = process["pid"].as_i64().expect("a number");
    i32::try_from(pid).expect("fits")
}

/// This machine's addresses but those of its loopback device.
pub(super) fn addresses() -> Vec<Ipv4Addr> {
    let output = Command::new("ip")
        .args(["-4", "-o", "address"])
        .output()
        .expect("ip is there");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let words = text
        .split_whitespace()
        .filter_map(|word| word.split('/').next()?.parse::<Ipv4Addr>().ok());
    words
        .filter(|address| !address.is_loopback() && address.octets()[3] != 255)
        .collect()
}

/// A port of this machine that nobody has.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("listens");
    listener.local_addr().expect("has one").port()
}

/// What a server at an address says first; none where nobody answers.
pub(super) fn ask(address: SocketAddr) -> Option<String> {
    use std::io::Read as _;
    let patience = Duration::from_secs(2);
    let mut stream = TcpStream::connect_timeout(&address, patience).ok()?;
    stream.set_read_timeout(Some(patience)).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    (!text.is_empty()).then_some(text)
}
