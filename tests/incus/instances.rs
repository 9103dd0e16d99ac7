//! What copies inherit, and what others do meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use reqwest::Method;
use sbx_apply::backend::{Changes, Scope};
use sbx_apply::model::{Labels, SandboxName, Status};
use serde_json::{Value, json};

use super::api;
use crate::conformance::fixture::{Fixture, incus, run};
use crate::support::daemon::{self, Daemon};

async fn raw(daemon: &Daemon, f: &Fixture, name: &str) -> Value {
    api::call(daemon, Method::GET, &format!("/1.0/instances/{}", f.name(name)), None).await
}

#[tokio::test]
async fn a_clone_takes_no_device_and_no_address_of_its_source() {
    let Some(daemon) = daemon::find() else { return };
    run(incus().await, async |f: &Fixture| {
        let source = f.stopped("source").await;
        let given = raw(&daemon, f, "source").await["expanded_devices"].clone();
        let mut eth0 = given["eth0"].clone();
        eth0["hwaddr"] = json!("10:66:6a:00:00:01");
        let mut root = given["root"].clone();
        root["size"] = json!("2GiB");
        let shared = json!({ "type": "disk", "source": "/tmp", "path": "/mnt" });
        let body = json!({ "devices": { "eth0": eth0, "root": root, "shared": shared } });
        api::call(&daemon, Method::PATCH, &format!("/1.0/instances/{source}"), Some(body)).await;
        f.backend.create_snapshot(&source, "ready").await.expect("snapshots");

        for (name, label) in [("of-disk", None), ("of-snapshot", Some("ready"))] {
            f.clone_from(&source, label, &f.opts(name)).await.expect("clones");
            f.backend.start(&f.name(name)).await.expect("starts");
            let clone = raw(&daemon, f, name).await;
            assert_eq!(clone["expanded_devices"]["eth0"], given["eth0"]);
            assert_eq!(clone["expanded_devices"]["root"], given["root"]);
            assert_eq!(clone["expanded_devices"]["shared"], json!({ "type": "none" }));
            assert_eq!(f.observed(&f.name(name)).await.disk, None);
        }
        let address = async |name: &str| raw(&daemon, f, name).await["config"]["volatile.eth0.hwaddr"].clone();
        let (one, two) = (address("of-disk").await, address("of-snapshot").await);
        assert!(one.is_string() && two.is_string() && one != two, "{one} {two}");
    })
    .await;
}

#[tokio::test]
async fn snapshots_taken_by_hand_are_not_ours() {
    let Some(daemon) = daemon::find() else { return };
    run(incus().await, async |f: &Fixture| {
        let mut opts = f.opts("one");
        let name = f.name("one");
        let sandbox = SandboxName::new("one").expect("a name");
        opts.labels = Labels::owned(&f.environment(), &sandbox, &name);
        f.backend.create(&opts).await.expect("creates");
        f.backend.create_snapshot(&name, "ours").await.expect("snapshots");
        f.backend.create_snapshot(&name, "gone").await.expect("snapshots");
        let snapshots = format!("/1.0/instances/{name}/snapshots");
        let body = json!({ "name": "theirs", "stateful": false });
        api::call(&daemon, Method::POST, &snapshots, Some(body)).await;
        let renamed = format!("{snapshots}/gone");
        api::call(&daemon, Method::POST, &renamed, Some(json!({ "name": "renamed" }))).await;
        let kept = f.observed(&name).await.snapshots;
        let owned: Vec<_> = kept
            .iter()
            .map(|(label, kept)| (label.as_str(), kept.labels == opts.labels))
            .collect();
        assert_eq!(owned, [("ours", true), ("renamed", false), ("theirs", false)]);
        assert_eq!(kept["theirs"].labels, Labels::default());
        // Of many, too, which are listed in another way.
        let more: BTreeSet<_> = (0..5).map(|index| f.name(&format!("more{index}"))).collect();
        for index in 0..5 {
            f.stopped(&format!("more{index}")).await;
        }
        let scope = Scope {
            environment: Some(f.environment()),
            names: more,
        };
        let all = f.backend.observe(&scope).await.expect("observes");
        let one = all.into_iter().find(|live| live.name == name).expect("is observed");
        assert_eq!(one.snapshots["ours"].labels, opts.labels);
        assert_eq!(one.snapshots["theirs"].labels, Labels::default());
    })
    .await;
}

#[tokio::test]
async fn edits_at_once_are_all_kept() {
    run(incus().await, async |f: &Fixture| {
        let name = f.stopped("one").await;
        let edit = async |key: String| {
            let changes = Changes {
                env: BTreeMap::from([(key, Some("1".to_owned()))]),
                ..Changes::default()
            };
            f.backend.configure(&name, &changes).await.expect("configures");
        };
        join_all((0..6).map(|index| edit(format!("KEY{index}")))).await;
        assert_eq!(f.observed(&name).await.env.len(), 6);
    })
    .await;
}

#[tokio::test]
async fn a_frozen_instance_goes_on() {
    let Some(daemon) = daemon::find() else { return };
    run(incus().await, async |f: &Fixture| {
        let name = f.running("one").await;
        let state = format!("/1.0/instances/{name}/state");
        api::call(&daemon, Method::PUT, &state, Some(json!({ "action": "freeze" }))).await;
        assert_eq!(f.observed(&name).await.status, Status::Frozen);
        f.backend.start(&name).await.expect("goes on");
        assert_eq!(f.observed(&name).await.status, Status::Running);
        api::call(&daemon, Method::PUT, &state, Some(json!({ "action": "freeze" }))).await;
        f.backend.delete(&name).await.expect("deletes");
    })
    .await;
}

#[tokio::test]
async fn hardened_unless_the_spec_says_otherwise() {
    let Some(daemon) = daemon::find() else { return };
    run(incus().await, async |f: &Fixture| {
        f.stopped("one").await;
        assert_eq!(raw(&daemon, f, "one").await["config"]["security.guestapi"], "false");
        let mut opts = f.opts("two");
        opts.config.insert("security.guestapi".to_owned(), "true".to_owned());
        f.backend.create(&opts).await.expect("creates");
        assert_eq!(f.observed(&f.name("two")).await.config, opts.config);
    })
    .await;
}
