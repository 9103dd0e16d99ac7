//! Clusters: daemons of their own, for the other tests' must stay none.

use std::path::{Path, PathBuf};
use std::process::Command;

use sbx_apply::backend::{CreateOpts, ErrorKind, Registry, Sandboxes, Scope, Settings};
use sbx_apply::model::InstanceName;

use crate::support::daemon;

/// The script that starts and stops private daemons.
fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/incus/daemon")
}

/// A daemon in a folder of its own, removed when dropped.
struct Private(String);

impl Private {
    fn start(name: &str) -> Self {
        let folder = format!("/var/tmp/sbx-{name}-{}", std::process::id());
        let private = Self(folder);
        private.script("start");
        private
    }

    fn script(&self, verb: &str) {
        let output = Command::new(script())
            .args([verb, &self.0])
            .output()
            .expect("the script starts");
        assert!(
            output.status.success(),
            "{verb}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    fn socket(&self) -> String {
        format!("{}/unix.socket", self.0)
    }

    fn incus(&self, arguments: &[&str]) -> String {
        loop {
            let output = Command::new("incus")
                .args(arguments)
                .env("INCUS_SOCKET", self.socket())
                .output();
            let output = output.expect("the incus client is installed with the daemon");
            if output.status.success() {
                return String::from_utf8_lossy(&output.stdout).trim().to_owned();
            }
            let said = String::from_utf8_lossy(&output.stderr);
            // The daemon looks at all devices of this machine, and stumbles over those of others that go meanwhile.
            assert!(said.contains("-j link show"), "{arguments:?}: {said}");
        }
    }

    /// What the program says of a spec; it must end with that code.
    fn says(&self, code: i32, arguments: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sbx-apply"));
        let output = command.args(arguments).env("SBX_SOCKET", self.socket()).output();
        let output = output.expect("the program starts");
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", said.concat());
        said.concat()
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        let _ = Command::new(script()).args(["stop", &self.0]).output();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_is_made_on_the_member_or_group_that_is_asked_for() {
    if daemon::find().is_none() {
        return;
    }
    let private = Private::start("cluster");
    private.incus(&["cluster", "enable", "first"]);
    let settings = Settings::from([("socket".to_owned(), private.socket())]);
    let backend = Registry::standard().open("incus", &settings).await.expect("opens");
    create(&*backend, "on-member", "first").await.expect("a member");
    create(&*backend, "in-group", "@default").await.expect("a group");
    for name in ["on-member", "in-group"] {
        let scope = Scope {
            environment: None,
            names: [InstanceName::observed(name)].into(),
        };
        let found = backend.observe(&scope).await.expect("observes");
        assert_eq!(
            found.first().and_then(|instance| instance.location.as_deref()),
            Some("first"),
            "{name}"
        );
    }
    let missing = create(&*backend, "nowhere", "second")
        .await
        .expect_err("no such member");
    assert_eq!(missing.kind(), ErrorKind::NotFound, "{missing}");
}

async fn create(backend: &dyn Sandboxes, name: &str, target: &str) -> sbx_apply::backend::Result<()> {
    let opts = CreateOpts {
        name: name.to_owned(),
        image: Some("busybox".to_owned()),
        target: Some(target.to_owned()),
        bare: true,
        ..CreateOpts::default()
    };
    backend.create(&opts).await
}

/// A policy's network is made on every member, and keeps what is on each of them.
#[test]
fn policies_hold_on_every_member() {
    if daemon::find().is_none() {
        return;
    }
    let private = Private::start("members");
    private.script("second");
    let address = private.incus(&["config", "get", "core.https_address"]);
    let (first, port) = address.rsplit_once(':').expect("an address and a port");
    let second = format!("{}.2", first.rsplit_once('.').expect("an address").0);
    let folder = tempfile::tempdir().expect("a folder");
    let spec = folder.path().join("sbx.kdl");
    let spec = spec.to_str().expect("a path");
    let environment = format!("members-{}", std::process::id());
    let write = |port: &str| {
        let text = format!(
            "environment \"{environment}\"\nbackend \"incus\"\ndefaults {{ image \"busybox\"; }}\n\
             egress \"web\" {{ allow \"{first}\" port={port}; allow \"{second}\" port={port}; }}\n\
             sandbox \"a\" {{ target \"first\"; egress \"web\"; }}\nsandbox \"b\" {{ target \"second\"; egress \"web\"; }}\n"
        );
        std::fs::write(spec, text).expect("written");
    };
    let reaches = |sandbox: &str, address: &str| {
        let script = format!("nc -w 2 {address} {port} </dev/null && echo REACHED");
        let said = Command::new(env!("CARGO_BIN_EXE_sbx-apply"))
            .args(["exec", spec, sandbox, "--root", "--", "sh", "-c", &script])
            .env("SBX_SOCKET", private.socket())
            .output();
        String::from_utf8_lossy(&said.expect("the program starts").stdout).contains("REACHED")
    };
    write(port);
    let plan = private.says(0, &["plan", spec]);
    assert!(plan.contains("closed on this member of the cluster, first"), "{plan}");
    private.says(0, &["apply", spec, "--yes"]);
    assert!(private.says(0, &["plan", spec]).contains("No changes"));
    // Each the daemon of the other's host; a sandbox's own host stays closed.
    let until = std::time::Instant::now() + std::time::Duration::from_secs(120);
    while !(reaches("a", &second) && reaches("b", first)) {
        assert!(std::time::Instant::now() < until, "what is open is open");
    }
    write("1");
    private.says(0, &["apply", spec, "--yes"]);
    assert!(
        !reaches("a", &second) && !reaches("b", first),
        "what is closed is closed"
    );
    private.says(0, &["destroy", spec, "--yes", "--allow-data-loss"]);
    assert!(
        !private
            .incus(&["network", "list", "-f", "csv"])
            .contains("kept by sbx-apply")
    );

    // As a kill leaves it that comes before the network is made.
    write(port);
    private.says(0, &["apply", spec, "--yes"]);
    let networks = private.incus(&["network", "list", "-f", "csv", "-c", "nd"]);
    let (name, description) = networks
        .lines()
        .filter_map(|line| line.split_once(','))
        .find(|(_, description)| description.contains("kept by sbx-apply"))
        .expect("its network");
    private.says(0, &["destroy", spec, "--yes", "--allow-data-loss"]);
    let announced = serde_json::json!({
        "name": name,
        "type": "bridge",
        "description": description.trim_matches('"'),
    });
    let announced = announced.to_string();
    let announce = || private.incus(&["query", "-X", "POST", "/1.0/networks?target=second", "-d", &announced]);
    announce();
    private.says(0, &["apply", spec, "--yes"]);
    assert!(private.says(0, &["plan", spec]).contains("No changes"));
    private.says(0, &["destroy", spec, "--yes", "--allow-data-loss"]);

    // And nobody wants it any more.
    announce();
    let text = format!("environment \"{environment}\"\nbackend \"incus\"\nsandbox \"a\" {{ image \"busybox\"; }}\n");
    std::fs::write(spec, text).expect("written");
    private.says(0, &["apply", spec, "--yes"]);
    let networks = private.incus(&["network", "list", "-f", "csv"]);
    assert!(!networks.contains("kept by sbx-apply"), "{networks}");
    private.says(0, &["destroy", spec, "--yes", "--allow-data-loss"]);
}
