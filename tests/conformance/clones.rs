//! Clones.

use futures_util::future::join_all;
use sbx_apply::backend::ErrorKind;
use sbx_apply::model::{Bytes, Capability, InstanceName, Labels, Memory, Status};

use super::fixture::{Fixture, fails, file};

async fn source(f: &Fixture) -> InstanceName {
    let name = f.stopped("source").await;
    f.change(&name, &[file("/text", "then")]).await;
    f.backend.create_snapshot(&name, "ready").await.expect("snapshots");
    f.change(&name, &[file("/text", "now"), file("/later", "")]).await;
    name
}

pub(crate) async fn a_clone_of_a_snapshot_has_its_content(f: &Fixture) {
    let source = source(f).await;
    f.clone_from(&source, Some("ready"), &f.opts("clone"))
        .await
        .expect("clones");
    assert_eq!(f.text(&f.name("clone"), "/text").await, "then");
    assert_eq!(f.found(&f.name("clone"), "/later").await, None);
    assert_eq!(f.text(&source, "/text").await, "now");
}

pub(crate) async fn a_clone_of_the_disk_has_the_current_content(f: &Fixture) {
    let source = source(f).await;
    f.clone_from(&source, None, &f.opts("clone")).await.expect("clones");
    assert_eq!(f.text(&f.name("clone"), "/text").await, "now");
}

pub(crate) async fn a_clone_of_a_running_instance_has_its_disk(f: &Fixture) {
    let source = f.running("source").await;
    f.change(&source, &[file("/text", "while it ran")]).await;
    f.clone_from(&source, None, &f.opts("clone")).await.expect("clones");
    let clone = f.backend.get(&f.name("clone")).await.expect("is there");
    assert_eq!(clone.status, Status::Stopped);
    assert_eq!(f.text(&f.name("clone"), "/text").await, "while it ran");
}

pub(crate) async fn a_clone_runs_unless_bare(f: &Fixture) {
    let source = f.stopped("source").await;
    let mut opts = f.opts("clone");
    opts.bare = false;
    f.clone_from(&source, None, &opts).await.expect("clones");
    let clone = f.backend.get(&f.name("clone")).await.expect("is there");
    assert_eq!(clone.status, Status::Running);
}

pub(crate) async fn a_clone_inherits_nothing(f: &Fixture) {
    let mut opts = f.opts("source");
    opts.cpu = f.able(Capability::CpuLimit).then_some(1);
    opts.memory = f
        .able(Capability::MemoryLimit)
        .then_some(Memory::Bytes(Bytes(256 << 20)));
    opts.disk = f.able(Capability::DiskSize).then_some(Bytes(1 << 30));
    opts.env.insert("OF_THE_SOURCE".to_owned(), "1".to_owned());
    opts.env.insert("SHARED".to_owned(), "source".to_owned());
    if f.able(Capability::CpuLimit) && f.able(Capability::Config) {
        opts.config.insert("limits.processes".to_owned(), "500".to_owned());
    }
    if f.able(Capability::Config) {
        opts.config.insert("user.note".to_owned(), "source".to_owned());
    }
    opts.labels.0.insert(Labels::COMPLETE.to_owned(), "true".to_owned());
    opts.labels.0.insert(Labels::PROTECT.to_owned(), "true".to_owned());
    f.backend.create(&opts).await.expect("creates");
    f.backend
        .create_snapshot(&f.name("source"), "ready")
        .await
        .expect("snapshots");

    for (name, label) in [("of-disk", None), ("of-snapshot", Some("ready"))] {
        let mut opts = f.opts(name);
        opts.env.insert("SHARED".to_owned(), "clone".to_owned());
        if f.able(Capability::Config) {
            opts.config.insert("user.note".to_owned(), "clone".to_owned());
        }
        opts.labels.0.insert(Labels::INSTANCE.to_owned(), name.to_owned());
        f.clone_from(&f.name("source"), label, &opts).await.expect("clones");
        let live = f.observed(&f.name(name)).await;
        assert_eq!((live.cpu, live.memory, live.disk), (None, None, None));
        assert_eq!(live.env, opts.env);
        assert_eq!(live.config, opts.config);
        assert_eq!(live.labels, opts.labels);
    }
}

pub(crate) async fn a_clone_brings_no_snapshots(f: &Fixture) {
    let source = source(f).await;
    for (name, label) in [("of-disk", None), ("of-snapshot", Some("ready"))] {
        f.clone_from(&source, label, &f.opts(name)).await.expect("clones");
        assert_eq!(f.backend.list_snapshots(&f.name(name)).await.expect("lists"), []);
    }
}

pub(crate) async fn clone_and_source_part_ways(f: &Fixture) {
    let source = source(f).await;
    f.clone_from(&source, Some("ready"), &f.opts("clone"))
        .await
        .expect("clones");
    f.change(&f.name("clone"), &[file("/text", "the clone's")]).await;
    assert_eq!(f.text(&source, "/text").await, "now");
    f.backend.delete(&source).await.expect("deletes the source");
    assert_eq!(f.text(&f.name("clone"), "/text").await, "the clone's");
}

pub(crate) async fn a_clone_that_cannot_be_made_leaves_nothing(f: &Fixture) {
    let source = source(f).await;
    let missing = f.clone_from(&source, Some("none"), &f.opts("clone")).await;
    fails(missing, ErrorKind::NotFound);
    fails(f.backend.get(&f.name("clone")).await, ErrorKind::NotFound);
    let taken = f.stopped("taken").await;
    f.change(&taken, &[file("/kept", "kept")]).await;
    let clone = f.clone_from(&source, Some("ready"), &f.opts("taken")).await;
    fails(clone, ErrorKind::AlreadyExists);
    assert_eq!(f.text(&taken, "/kept").await, "kept");
}

pub(crate) async fn many_clones_of_one_source_at_once(f: &Fixture) {
    let source = &source(f).await;
    let clones = ["one", "two", "three", "four"].map(async |name| {
        f.clone_from(source, Some("ready"), &f.opts(name))
            .await
            .expect("clones");
        assert_eq!(f.text(&f.name(name), "/text").await, "then");
    });
    join_all(clones).await;
}
