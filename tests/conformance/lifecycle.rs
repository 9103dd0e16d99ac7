//! Life and death.

use std::time::Duration;

use futures_util::future::join_all;
use sbx_apply::backend::{Changes, CreateOpts, Error, ErrorKind, Stop, is_not_found};
use sbx_apply::model::{Capability, EgressMode, Query, Status};

use super::fixture::{Fixture, fails, file, path, shell};
use crate::support::daemon;

pub(crate) async fn an_instance_is_made_from_an_image(f: &Fixture) {
    let name = f.stopped("one").await;
    let instance = f.backend.get(&name).await.expect("is there");
    assert_eq!((&instance.name, instance.status), (&name, Status::Stopped));
    assert!(instance.addresses.is_empty(), "a stopped one has no addresses");
    assert!(f.found(&name, "/etc/passwd").await.is_some());
}

pub(crate) async fn an_instance_runs_at_once_unless_bare(f: &Fixture) {
    let mut opts = f.opts("one");
    opts.bare = false;
    f.backend.create(&opts).await.expect("creates");
    let instance = f.backend.get(&f.name("one")).await.expect("is there");
    assert_eq!(instance.status, Status::Running);
}

pub(crate) async fn an_unknown_image_is_not_found(f: &Fixture) {
    let mut opts = f.opts("one");
    opts.image = Some("no-such-image".to_owned());
    fails(f.backend.create(&opts).await, ErrorKind::NotFound);
    fails(f.backend.get(&f.name("one")).await, ErrorKind::NotFound);
}

pub(crate) async fn a_taken_name_is_refused(f: &Fixture) {
    let name = f.stopped("one").await;
    f.change(&name, &[file("/kept", "kept")]).await;
    fails(f.backend.create(&f.opts("one")).await, ErrorKind::AlreadyExists);
    assert_eq!(f.text(&name, "/kept").await, "kept");
}

pub(crate) async fn a_name_that_no_host_could_have_is_refused(f: &Fixture) {
    for bad in ["with space", "under_score", "-dash", "dash-", &"a".repeat(64)] {
        let opts = CreateOpts {
            name: bad.to_owned(),
            ..f.opts("ignored")
        };
        fails(f.backend.create(&opts).await, ErrorKind::Invalid);
    }
}

pub(crate) async fn start_and_stop_may_be_said_twice(f: &Fixture) {
    let name = f.stopped("one").await;
    for _ in 0..2 {
        f.backend.start(&name).await.expect("starts");
        assert_eq!(f.backend.get(&name).await.expect("is there").status, Status::Running);
    }
    for how in [Stop::Force, Stop::Force, Stop::Clean(Duration::from_secs(5))] {
        f.backend.stop(&name, how).await.expect("stops");
        assert_eq!(f.backend.get(&name).await.expect("is there").status, Status::Stopped);
    }
    f.backend.start(&name).await.expect("starts");
    let clean = f.backend.stop(&name, Stop::Clean(Duration::from_secs(5))).await;
    clean.expect("stops, and ends it when it does not listen");
    assert_eq!(f.backend.get(&name).await.expect("is there").status, Status::Stopped);
}

pub(crate) async fn a_deleted_instance_is_gone(f: &Fixture) {
    let name = f.stopped("one").await;
    f.backend
        .create_snapshot(&name, "with-a-snapshot")
        .await
        .expect("snapshots");
    f.backend.delete(&name).await.expect("deletes");
    fails(f.backend.get(&name).await, ErrorKind::NotFound);
    fails(f.backend.delete(&name).await, ErrorKind::NotFound);
    let all = f.backend.list().await.expect("lists");
    assert!(all.iter().all(|instance| instance.name != name));
    // The name is free again, and nothing is left of what had it.
    f.stopped("one").await;
    assert_eq!(f.backend.list_snapshots(&name).await.expect("lists"), []);
}

pub(crate) async fn deleting_ends_what_runs(f: &Fixture) {
    let name = f.stopped("one").await;
    f.backend.start(&name).await.expect("starts");
    f.backend.delete(&name).await.expect("deletes");
    fails(f.backend.get(&name).await, ErrorKind::NotFound);
}

pub(crate) async fn what_is_not_there_is_not_found(f: &Fixture) {
    const MISSING: ErrorKind = ErrorKind::NotFound;
    let (name, motd) = (&f.name("nobody"), &path("/etc/motd"));
    fails(f.backend.get(name).await, MISSING);
    fails(f.backend.list_snapshots(name).await, MISSING);
    fails(f.clone_from(name, None, &f.opts("clone")).await, MISSING);
    fails(f.clone_from(name, Some("ready"), &f.opts("clone")).await, MISSING);
    let changes = Changes {
        env: [("A".to_owned(), None)].into(),
        ..Changes::default()
    };
    fails(f.backend.configure(name, &changes).await, MISSING);
    fails(f.backend.start(name).await, MISSING);
    fails(f.backend.stop(name, Stop::Force).await, MISSING);
    fails(f.backend.delete(name).await, MISSING);
    fails(f.backend.create_snapshot(name, "ready").await, MISSING);
    fails(f.backend.delete_snapshot(name, "ready").await, MISSING);
    fails(f.backend.restore_snapshot(name, "ready").await, MISSING);
    let query = Query {
        paths: [motd.clone()].into(),
        ..Query::default()
    };
    fails(f.backend.inspect(name, &query).await, MISSING);
    fails(f.backend.read(name, motd, 10).await, MISSING);
    fails(f.backend.list_files(name, motd, false).await, MISSING);
    fails(f.backend.change_files(name, &[file("/etc/motd", "hi")]).await, MISSING);
    fails(f.backend.delete_file(name, motd).await, MISSING);
    fails(f.backend.output(name, &shell("true")).await, MISSING);
    fails(f.backend.ready(name, Duration::from_secs(5)).await, MISSING);
}

pub(crate) async fn not_found_is_matched_through_wrapping(f: &Fixture) {
    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] Error);

    let error = fails(f.backend.get(&f.name("nobody")).await, ErrorKind::NotFound);
    let middle = Error::new(ErrorKind::Failed, "middle").with_source(error);
    assert!(is_not_found(&Outer(middle)));
}

pub(crate) async fn different_instances_at_once(f: &Fixture) {
    let each = ["one", "two", "three", "four"].map(async |name| {
        let name = f.stopped(name).await;
        f.change(&name, &[file("/who", name.as_str())]).await;
        f.backend.create_snapshot(&name, "ready").await.expect("snapshots");
        f.backend.start(&name).await.expect("starts");
        assert_eq!(f.text(&name, "/who").await, name.as_str());
    });
    join_all(each).await;
}

pub(crate) async fn policy_is_refused_where_it_is_no_capability(f: &Fixture) {
    let capabilities = f.backend.capabilities();
    if capabilities.can(Capability::EgressHost) || capabilities.can(Capability::EgressGuest) {
        daemon::skipped("policy is refused: this backend has it");
        return;
    }
    let name = f.stopped("one").await;
    assert_eq!(f.backend.get_policy(&name).await.expect("reads"), None);
    fails(
        f.backend.set_egress_mode(&name, EgressMode::None).await,
        ErrorKind::Unsupported,
    );
    fails(
        f.backend.allow_domain(&name, "example.com").await,
        ErrorKind::Unsupported,
    );
    fails(
        f.backend.deny_domain(&name, "example.com").await,
        ErrorKind::Unsupported,
    );
}
