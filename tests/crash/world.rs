//! An environment on a real backend, and what must be true of it when all is well.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use sbx_apply::backend::Sandboxes;
use sbx_apply::model::{GuestPath, InstanceName};

use super::disk;
use super::process::{Moment, Ran, run};
use crate::incus::api;
use crate::support::daemon::tell;
use crate::support::place::Place;

/// An environment of the test's own.
pub(super) struct World {
    pub(super) place: Place,
    pub(super) backend: Arc<dyn Sandboxes>,
    pub(super) environment: String,
    folder: tempfile::TempDir,
}

/// Files of every kind, a base with a snapshot, clones of it, set-up steps, and one sandbox that is never made anew.
fn spec(place: &Place, environment: &str, version: u32) -> String {
    let (backend, image) = (place.name(), place.image());
    format!(
        r#"environment "{environment}"
backend "{backend}"
sandbox "base" {{
    image "{image}"
    state "stopped"
    env VERSION="{version}"
    file "/etc/version" content="version {version}\n"
    file "/data/large" source="large-{version}"
    tree "/srv/app" source="app-{version}" delete=true
    run "prepare" command="mkdir -p /var/log; echo {version} >> /var/log/steps"
    snapshot "ready"
}}
sandbox "task" count=2 {{
    clone-from "base" snapshot="ready" on-stale="replace"
    file "/etc/task" content="task {version}\n" mode="0600"
    run "greet" command="sleep 0.1; echo {version} > /var/log/greeting"
}}
sandbox "keep" {{
    image "{image}"
    file "/etc/version" content="version {version}\n"
    file "/root/seed" content="a seed\n" when="create"
    run "check" command="test -f /etc/version"
}}
"#
    )
}

impl World {
    /// A new one.
    pub(super) async fn new(name: &str, place: Place) -> Self {
        let environment = format!("{name}{}", std::process::id());
        let folder = tempfile::tempdir().expect("a folder");
        for version in [1, 2] {
            let path = |name: &str| folder.path().join(format!("{name}{version}"));
            std::fs::write(path("large-"), vec![b'0' + version as u8; 3 << 20]).expect("writes");
            std::fs::create_dir(path("app-")).expect("makes");
            for index in 0..4 + version {
                std::fs::write(path("app-").join(format!("f{index}")), format!("{version} {index}")).expect("writes");
            }
            let name = format!("v{version}.kdl");
            std::fs::write(folder.path().join(name), spec(&place, &environment, version)).expect("writes");
        }
        Self {
            backend: place.open().await,
            place,
            environment,
            folder,
        }
    }

    /// A spec of this environment.
    pub(super) fn spec(&self, version: u32) -> String {
        self.path(&format!("v{version}.kdl")).display().to_string()
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn instance(&self, sandbox: &str) -> InstanceName {
        InstanceName::observed(format!("{}-{sandbox}", self.environment))
    }

    pub(super) fn apply(&self, version: u32, moment: Moment) -> Ran {
        let arguments = ["apply", &self.spec(version), "--yes", "--allow-data-loss", "--json"];
        run(&self.place, &arguments, moment)
    }

    pub(super) fn destroy(&self, moment: Moment) -> Ran {
        let arguments = ["destroy", &self.spec(1), "--allow-data-loss", "--json"];
        run(&self.place, &arguments, moment)
    }

    /// Whether a plan is empty.
    #[track_caller]
    pub(super) fn is_in_sync(&self, version: u32) {
        let arguments = ["check", &self.spec(version), "--json"];
        run(&self.place, &arguments, Moment::Never).ended(0);
    }

    /// Names and states of the environment's instances and their snapshots, not by way of our own backend.
    pub(super) async fn instances(&self) -> BTreeMap<String, (String, Vec<String>)> {
        let prefix = format!("{}-", self.environment);
        let daemon = match &self.place {
            Place::Incus(daemon) => daemon,
            Place::Local(folder) => return disk::instances(&folder.state(), &prefix),
        };
        let all = api::call(daemon, Method::GET, "/1.0/instances?recursion=2", None).await;
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let ours = all.as_array().expect("a list").iter().filter_map(|instance| {
            let name = text(&instance["name"]).strip_prefix(&prefix)?.to_owned();
            let snapshots = instance["snapshots"].as_array().into_iter().flatten();
            let snapshots = snapshots.map(|snapshot| text(&snapshot["name"])).collect();
            Some((name, (text(&instance["status"]), snapshots)))
        });
        ours.collect()
    }

    /// What is kept of the environment: profiles, or files.
    pub(super) async fn notes(&self) -> Vec<String> {
        let daemon = match &self.place {
            Place::Incus(daemon) => daemon,
            Place::Local(folder) => return disk::names(&folder.state().join("notes").join(&self.environment)),
        };
        let all = api::call(daemon, Method::GET, "/1.0/profiles", None).await;
        let names = all.as_array().expect("a list").iter().filter_map(|url| url.as_str());
        let mark = format!("_{}_", self.environment);
        names.filter(|name| name.contains(&mark)).map(str::to_owned).collect()
    }

    /// Asserts that all is there, once, and nothing else.
    pub(super) async fn is_whole(&self, version: u32) {
        self.is_in_sync(version);
        let mut found = String::new();
        for (name, (status, snapshots)) in self.instances().await {
            writeln!(found, "{name} {status} {}", snapshots.join(" ")).expect("text");
        }
        let expected = "base Stopped ready\nkeep Running \ntask-1 Running \ntask-2 Running \n";
        assert_eq!(found, expected);
        assert_eq!(self.notes().await, Vec::<String>::new(), "no lock is left");
        for sandbox in ["base", "task-1", "task-2", "keep"] {
            let left = self.temporaries(sandbox).await;
            assert_eq!(left, Vec::<String>::new(), "in {sandbox}");
        }
        let large = std::fs::read(self.path(&format!("large-{version}"))).expect("reads");
        for sandbox in ["base", "task-1", "task-2"] {
            assert!(self.read(sandbox, "/data/large").await == large, "{sandbox}: all of it");
        }
        assert_eq!(self.read("keep", "/root/seed").await, b"a seed\n");
    }

    /// The bytes of a file.
    pub(super) async fn read(&self, sandbox: &str, path: &str) -> Vec<u8> {
        let path = GuestPath::new(path).expect("a path");
        let name = self.instance(sandbox);
        let (bytes, _) = self.backend.read(&name, &path, 64 << 20).await.expect("reads");
        bytes
    }

    /// Asserts that nothing is left.
    pub(super) async fn is_gone(&self) {
        assert_eq!(self.instances().await, BTreeMap::new());
        assert_eq!(self.notes().await, Vec::<String>::new());
        if let Place::Local(folder) = &self.place {
            disk::is_empty(&folder.state());
        }
    }

    /// What was prepared beside the paths of files and has not taken their place.
    pub(super) async fn temporaries(&self, sandbox: &str) -> Vec<String> {
        let name = self.instance(sandbox);
        let mut left = Vec::new();
        for folder in ["/etc", "/data", "/srv", "/root", "/tmp", "/var"] {
            let path = GuestPath::new(folder).expect("a path");
            let Ok(entries) = self.backend.list_files(&name, &path, true).await else {
                continue;
            };
            let entries = entries.into_iter().map(|entry| entry.path.to_string());
            left.extend(entries.filter(|path| path.contains("/.sbx-")));
        }
        left
    }

    /// Somebody works in a sandbox.
    pub(super) async fn leave_work(&self) {
        let (path, mode) = (
            GuestPath::new("/root/work").expect("a path"),
            sbx_apply::model::Mode::FILE,
        );
        let content = sbx_apply::model::Content::inline("hours of it".as_bytes());
        let keep = self.instance("keep");
        let written = self.backend.write(&keep, &path, content, mode, None).await;
        written.expect("writes");
    }

    /// Asserts that their work is still there.
    pub(super) async fn has_work(&self) {
        let path = GuestPath::new("/root/work").expect("a path");
        let (bytes, _) = self
            .backend
            .read(&self.instance("keep"), &path, 100)
            .await
            .expect("is there");
        assert_eq!(bytes, b"hours of it");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Also after a failed assertion: a daemon is shared, and what runs goes on. Whoever held the lock is dead by now.
        let ran = self.destroy(Moment::Never);
        if ran.took > Duration::from_secs(60) || ran.code != Some(0) {
            tell(&format!("could not clean up: {ran:?}"));
        }
    }
}
