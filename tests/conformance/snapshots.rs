//! Snapshots.

use std::collections::BTreeMap;

use sbx_apply::backend::{Changes, ErrorKind};
use sbx_apply::model::{InstanceName, Labels, LiveInstance, Status};

use super::fixture::{Fixture, fails, file, nothing};

async fn labels(f: &Fixture, name: &InstanceName) -> Vec<String> {
    let snapshots = f.backend.list_snapshots(name).await.expect("lists");
    snapshots.into_iter().map(|snapshot| snapshot.label).collect()
}

async fn label(f: &Fixture, name: &InstanceName, value: &str) {
    let changes = Changes {
        labels: BTreeMap::from([(Labels::APPLIED.to_owned(), Some(value.to_owned()))]),
        ..Changes::default()
    };
    f.backend.configure(name, &changes).await.expect("labels");
}

pub(crate) async fn snapshots_are_listed_oldest_first(f: &Fixture) {
    let name = f.stopped("one").await;
    assert_eq!(labels(f, &name).await, [""; 0]);
    for label in ["zebra", "ant", "middle.1_x"] {
        f.backend.create_snapshot(&name, label).await.expect("snapshots");
    }
    assert_eq!(labels(f, &name).await, ["zebra", "ant", "middle.1_x"]);
    let observed = f.observed(&name).await.snapshots;
    assert_eq!(observed.keys().collect::<Vec<_>>(), ["ant", "middle.1_x", "zebra"]);
    for (label, live) in observed {
        assert_eq!(live.snapshot.label, label);
        assert!(live.snapshot.created_at.is_some());
    }
}

pub(crate) async fn a_snapshot_keeps_the_labels_of_its_moment(f: &Fixture) {
    let name = f.stopped("one").await;
    label(f, &name, "then").await;
    f.backend.create_snapshot(&name, "ready").await.expect("snapshots");
    label(f, &name, "now").await;
    let live = f.observed(&name).await;
    assert_eq!(live.labels.get(Labels::APPLIED), Some("now"));
    assert_eq!(live.snapshots["ready"].labels.get(Labels::APPLIED), Some("then"));
}

pub(crate) async fn a_taken_snapshot_is_refused(f: &Fixture) {
    let name = f.stopped("one").await;
    f.backend.create_snapshot(&name, "ready").await.expect("snapshots");
    fails(
        f.backend.create_snapshot(&name, "ready").await,
        ErrorKind::AlreadyExists,
    );
}

pub(crate) async fn unknown_snapshots_are_not_found(f: &Fixture) {
    let name = f.stopped("one").await;
    fails(f.backend.delete_snapshot(&name, "none").await, ErrorKind::NotFound);
    fails(f.backend.restore_snapshot(&name, "none").await, ErrorKind::NotFound);
}

pub(crate) async fn a_deleted_snapshot_is_gone(f: &Fixture) {
    let name = f.stopped("one").await;
    for label in ["a", "b"] {
        f.backend.create_snapshot(&name, label).await.expect("snapshots");
    }
    f.backend.delete_snapshot(&name, "a").await.expect("deletes");
    assert_eq!(labels(f, &name).await, ["b"]);
    fails(f.backend.delete_snapshot(&name, "a").await, ErrorKind::NotFound);
    // Its name is free again.
    f.backend.create_snapshot(&name, "a").await.expect("snapshots again");
    assert_eq!(labels(f, &name).await, ["b", "a"]);
}

pub(crate) async fn restoring_puts_the_disk_back_and_nothing_else(f: &Fixture) {
    let name = f.stopped("one").await;
    f.change(&name, &[file("/changed", "then"), file("/removed", "then")])
        .await;
    label(f, &name, "then").await;
    f.backend.create_snapshot(&name, "ready").await.expect("snapshots");
    let edits = [file("/changed", "now"), nothing("/removed"), file("/added", "now")];
    f.change(&name, &edits).await;
    label(f, &name, "now").await;
    let variable = Changes {
        env: BTreeMap::from([("NOW".to_owned(), Some("1".to_owned()))]),
        ..Changes::default()
    };
    f.backend.configure(&name, &variable).await.expect("configures");
    let before = f.observed(&name).await;

    f.backend.restore_snapshot(&name, "ready").await.expect("restores");

    assert_eq!(f.text(&name, "/changed").await, "then");
    assert_eq!(f.text(&name, "/removed").await, "then");
    assert_eq!(f.found(&name, "/added").await, None);
    assert_eq!(without_sizes(f.observed(&name).await), without_sizes(before));
}

/// What a snapshot weighs depends on how much of it is shared, which changes with its neighbours.
fn without_sizes(mut live: LiveInstance) -> LiveInstance {
    for snapshot in live.snapshots.values_mut() {
        snapshot.snapshot.size = None;
    }
    live
}

pub(crate) async fn a_restored_instance_runs_on(f: &Fixture) {
    let name = f.running("one").await;
    f.change(&name, &[file("/text", "then")]).await;
    f.backend.create_snapshot(&name, "ready").await.expect("snapshots");
    f.change(&name, &[file("/text", "now")]).await;
    f.backend.restore_snapshot(&name, "ready").await.expect("restores");
    assert_eq!(f.backend.get(&name).await.expect("is there").status, Status::Running);
    assert_eq!(f.text(&name, "/text").await, "then");
}
