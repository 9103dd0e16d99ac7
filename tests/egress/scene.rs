//! An environment with policies, on a real backend.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::internet::Internet;
use crate::support::daemon::{self, Daemon};
use crate::support::namespaces;

/// Where its sandboxes are.
#[derive(Debug, Clone)]
pub(super) enum On {
    Incus(Daemon),
    /// A folder for state.
    Local(PathBuf),
}

/// An environment; what is left of it goes with this.
pub(super) struct Scene {
    pub(super) internet: Internet,
    pub(super) on: On,
    environment: String,
    folder: TempDir,
    /// Whether the daemon is reached as one of another machine is.
    remote: bool,
    /// The network of its sandboxes; the daemon's own where none.
    network: Option<String>,
}

impl Scene {
    /// On the real daemon. None where there is no daemon or no internet to be had, which is said aloud.
    pub(super) fn on_incus(name: &str) -> Option<Self> {
        let daemon = daemon::find()?;
        let internet = Internet::start()?;
        Some(Self::with(
            internet,
            On::Incus(daemon),
            name,
            tempfile::tempdir().expect("a folder"),
        ))
    }

    /// On this machine. None where it has no static busybox, which is said aloud.
    pub(super) fn on_local(name: &str) -> Option<Self> {
        let (_, image) = namespaces::open()?;
        let internet = Internet::start()?;
        let folder = tempfile::tempdir_in(namespaces::folder()).expect("a folder");
        let copied = Command::new("cp")
            .args(["-a", image])
            .arg(folder.path().join("image"))
            .status();
        assert!(copied.expect("cp runs").success());
        let state = folder.path().join("state");
        Some(Self::with(internet, On::Local(state), name, folder))
    }

    fn with(internet: Internet, on: On, name: &str, folder: TempDir) -> Self {
        Self {
            internet,
            on,
            environment: format!("egress-{name}-{}", std::process::id()),
            folder,
            remote: false,
            network: None,
        }
    }

    /// The same, by HTTPS: for the program, the daemon's host is another machine.
    pub(super) fn by_https(mut self) -> Self {
        self.remote = true;
        self
    }

    /// The same, its sandboxes on this network of the daemon's.
    pub(super) fn on_network(mut self, network: &str) -> Self {
        self.network = Some(network.to_owned());
        self
    }

    /// Where the spec is.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn environment(&self) -> &str {
        &self.environment
    }

    pub(super) fn backend(&self) -> &'static str {
        match self.on {
            On::Incus(_) => "incus",
            On::Local(_) => "local",
        }
    }

    pub(super) fn spec(&self) -> PathBuf {
        self.folder.path().join("sbx.kdl")
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
        std::fs::write(self.spec(), text).expect("written");
    }

    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.internet.command(arguments);
        command.current_dir(self.folder.path());
        match &self.on {
            On::Incus(daemon) if self.remote => {
                let folder = daemon.socket.parent().expect("its folder").join("client");
                command
                    .env_remove("INCUS_SOCKET")
                    .env("SBX_URL", std::env::var("SBX_TEST_HTTPS").expect("a daemon's address"))
                    .env("SBX_CLIENT_CERTIFICATE", folder.join("client.crt"))
                    .env("SBX_CLIENT_KEY", folder.join("client.key"))
                    .env("SBX_SERVER_CERTIFICATE", folder.join("server.crt"))
            }
            On::Incus(daemon) => command.env("SBX_SOCKET", &daemon.socket),
            On::Local(state) => command.env("SBX_LOCAL_STATE", state),
        };
        command.envs(self.network.iter().map(|network| ("SBX_NETWORK", network)));
        command
    }

    pub(super) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("runs")
    }

    /// What a run printed; it must have ended with that code.
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

    pub(super) fn apply(&self, spec: &str) -> String {
        self.write(spec);
        self.says(0, &["apply", "--yes"])
    }

    /// What a shell in a sandbox says, as root.
    pub(super) fn inside(&self, sandbox: &str, script: &str) -> String {
        let spec = self.spec();
        let spec = spec.to_str().expect("a path");
        let output = self.run(&["exec", spec, sandbox, "--root", "--", "/bin/sh", "-c", script]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Leaves in a sandbox what a probe would that was killed long ago, and what only looks like that: the next probe clears
    /// away the former alone.
    pub(super) fn a_probe_clears_away(&self, sandbox: &str, canary: &str) {
        let script = "cd /tmp && for name in 1 22 x1 333; do echo > .sbx-apply-probe-$name; chmod 500 .sbx-apply-probe-$name; done
            echo > .sbx-apply-probe-; echo > .sbx-apply-probe-4; mkdir .sbx-apply-probe-5; ln -s /etc/passwd .sbx-apply-probe-6
            chmod 500 .sbx-apply-probe- .sbx-apply-probe-5; chown 1000 .sbx-apply-probe-333
            touch -h -d '2020-01-01 00:00' .sbx-apply-probe-*
            echo > .sbx-apply-probe-7; chmod 500 .sbx-apply-probe-7; ls -A | wc -l";
        assert_eq!(self.inside(sandbox, script).trim(), "9");
        let others = ["", "333", "4", "5", "6", "7", "x1"];
        self.says(0, &["check", "--probe", "--canary", canary]);
        let left = self.inside(sandbox, "ls -A /tmp | sed 's/^.sbx-apply-probe-//' | sort");
        assert_eq!(
            left.lines().collect::<Vec<_>>(),
            others,
            "those of probes that were killed have gone"
        );
    }

    /// Connects from a sandbox to an address on port 8080, and stays connected.
    pub(super) fn connected(&self, sandbox: &str, address: &str) -> Connection {
        let path = self.spec();
        let path = path.to_str().expect("a path");
        let mut command = self.command(&["exec", path, sandbox, "--root", "--", "nc", address, "8080"]);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut process = command.spawn().expect("starts");
        let answers = BufReader::new(process.stdout.take().expect("a pipe"));
        let mut connection = Connection { process, answers };
        assert_eq!(connection.line(), "REACHED");
        connection
    }

    pub(super) fn reaches(&self, sandbox: &str, address: &str, port: u16) -> bool {
        self.inside(sandbox, &connect(address, port)).contains("REACHED")
    }

    /// The same, sooner or later: a guest that has just started may still wait for its address.
    pub(super) fn comes_to_reach(&self, sandbox: &str, address: &str, port: u16) -> bool {
        comes_true(|| self.reaches(sandbox, address, port))
    }

    pub(super) fn client(&self, arguments: &[&str]) -> String {
        loop {
            let output = Command::new("incus").args(arguments).output().expect("the client runs");
            if output.status.success() {
                return String::from_utf8_lossy(&output.stdout).trim().to_owned();
            }
            let said = String::from_utf8_lossy(&output.stderr);
            // The daemon looks at all devices of this machine, and stumbles over those of others that go meanwhile.
            assert!(said.contains("-j link show"), "{arguments:?}: {said}");
        }
    }

    pub(super) fn instance(&self, sandbox: &str) -> String {
        format!("{}-{sandbox}", self.environment)
    }

    pub(super) fn network(&self, sandbox: &str) -> String {
        self.client(&["config", "device", "get", &self.instance(sandbox), "eth0", "network"])
    }

    /// The networks and ACLs of this environment.
    pub(super) fn networks(&self) -> Vec<String> {
        let mut found = Vec::new();
        for kind in ["network", "network-acl"] {
            let all = self.client(&["query", &format!("/1.0/{kind}s?recursion=1")]);
            let all: serde_json::Value = serde_json::from_str(&all).expect("JSON");
            let ours =
                all.as_array().into_iter().flatten().filter(|one| {
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
            let arguments = [
                "destroy",
                "--yes",
                "--allow-data-loss",
                "--break-lock",
                "--environment",
                &self.environment,
            ];
            let gone = self.run(&[&arguments[..], &["--backend", self.backend()]].concat());
            if !thread::panicking() {
                assert!(gone.status.success(), "{}", String::from_utf8_lossy(&gone.stderr));
                if let On::Incus(_) = self.on {
                    assert_eq!(self.networks(), Vec::<String>::new(), "nothing is left");
                }
            }
        }
    }
}

/// A connection that goes on.
pub(super) struct Connection {
    process: Child,
    answers: BufReader<ChildStdout>,
}

impl Connection {
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("text");
        line.trim_end().to_owned()
    }

    /// It still does.
    pub(super) fn goes_on(&mut self, word: &str) {
        let stdin = self.process.stdin.as_mut().expect("a pipe");
        stdin.write_all(format!("{word}\n").as_bytes()).expect("open");
        assert_eq!(self.line(), format!("echo {word}"));
    }

    pub(super) fn end(mut self) {
        drop(self.process.stdin.take());
        self.process.wait().expect("ends");
    }
}

/// Whether something comes true, on a machine that may be slow. What does not takes minutes.
pub(super) fn comes_true(mut is_true: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + Duration::from_secs(180);
    loop {
        if is_true() {
            return true;
        }
        if Instant::now() >= until {
            return false;
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// A script that prints REACHED where it can connect.
pub(super) fn connect(address: &str, port: u16) -> String {
    format!("echo | timeout 3 nc -w 2 {address} {port} 2>/dev/null")
}
