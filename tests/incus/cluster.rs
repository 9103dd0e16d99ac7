//! Placement: a daemon of its own that is made a cluster of one member, for the other tests' must stay none.

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
    fn start() -> Self {
        let folder = format!("/var/tmp/sbx-cluster-{}", std::process::id());
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

    fn incus(&self, arguments: &[&str]) {
        let output = Command::new("incus")
            .args(arguments)
            .env("INCUS_SOCKET", self.socket())
            .output();
        let output = output.expect("the incus client is installed with the daemon");
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
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
    let private = Private::start();
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
