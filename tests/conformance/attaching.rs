//! Mounts, volumes and ports.

use std::collections::{BTreeMap, BTreeSet};

use sbx_apply::backend::{ErrorKind, Stop};
use sbx_apply::model::{
    Attach, AttachedMount, AttachedVolume, Capability, CreateOpts, Labels, Owner, SandboxName, VolumeKey,
};

use super::fixture::{Fixture, fails, path};

/// An instance that an environment owns, stopped.
async fn owned(f: &Fixture) -> CreateOpts {
    let sandbox = SandboxName::new("one").expect("a name");
    let opts = CreateOpts {
        labels: Labels::owned(&f.environment(), &sandbox, &f.name("one")),
        bare: true,
        ..f.opts("one")
    };
    f.backend.create(&opts).await.expect("creates");
    opts
}

fn key(f: &Fixture) -> VolumeKey {
    VolumeKey {
        environment: f.environment(),
        sandbox: SandboxName::new("one").expect("a name"),
        name: "data".to_owned(),
    }
}

fn volume() -> Attach {
    let data = AttachedVolume {
        path: path("/data"),
        owner: Owner::ROOT,
        size: None,
    };
    Attach {
        volumes: [("data".to_owned(), Some(data))].into(),
        ..Attach::default()
    }
}

pub(crate) async fn what_is_attached_comes_back_and_goes(f: &Fixture) {
    if !f.able(Capability::Mounts) {
        return f.unsupported("attaching: this backend has none of it");
    }
    owned(f).await;
    let name = f.name("one");
    let folder = tempfile::tempdir().expect("a folder");
    let source = folder.path().canonicalize().expect("real");
    let mount = AttachedMount {
        source: source.display().to_string(),
        readonly: true,
        guarded: BTreeSet::new(),
    };
    let guest = "8080".parse().expect("a port");
    let host = crate::workspace::free_port();
    let mut changes = volume();
    changes.mounts.insert(path("/src"), Some(mount.clone()));
    if f.able(Capability::Ports) {
        changes.ports.insert(guest, Some(host));
    }
    f.backend.attach(&name, &changes).await.expect("attaches");
    let live = f.observed(&name).await;
    assert_eq!(live.workspace.mounts, [(path("/src"), mount)].into());
    assert_eq!(live.workspace.volumes, [("data".to_owned(), "/data".to_owned())].into());
    let ports: Vec<_> = live
        .workspace
        .ports
        .iter()
        .map(|(guest, host)| (*guest, host.clone()))
        .collect();
    let wanted = f.able(Capability::Ports).then(|| (guest, host.to_string()));
    assert_eq!(ports, wanted.into_iter().collect::<Vec<_>>());
    assert!(
        live.mounted.is_superset(&[path("/src"), path("/data")].into()),
        "{:?}",
        live.mounted
    );
    // Again is no error.
    f.backend.attach(&name, &changes).await.expect("attaches");
    changes.mounts.values_mut().for_each(|mount| *mount = None);
    changes.volumes.values_mut().for_each(|volume| *volume = None);
    changes.ports.values_mut().for_each(|port| *port = None);
    f.backend.attach(&name, &changes).await.expect("takes away");
    assert_eq!(f.observed(&name).await.workspace, Default::default());
    f.backend.attach(&name, &changes).await.expect("nothing to take away");
    assert_eq!(
        f.backend.volumes(&f.environment()).await.expect("lists"),
        [(key(f), None)].into()
    );
    f.backend.delete_volume(&key(f)).await.expect("deletes");
}

pub(crate) async fn a_volume_outlives_its_instance(f: &Fixture) {
    if !f.able(Capability::Volumes) {
        return f.unsupported("volumes: this backend has none");
    }
    let opts = owned(f).await;
    let name = f.name("one");
    f.backend.attach(&name, &volume()).await.expect("attaches");
    assert!(f.backend.delete_volume(&key(f)).await.is_err(), "it is attached");
    f.backend.stop(&name, Stop::Force).await.expect("stops");
    f.backend.delete(&name).await.expect("deletes");
    assert_eq!(
        f.backend.volumes(&f.environment()).await.expect("lists"),
        [(key(f), None)].into()
    );
    assert_eq!(
        f.backend.volumes(&f.other_environment()).await.expect("lists"),
        BTreeMap::new()
    );
    f.backend.create(&opts).await.expect("creates");
    f.backend.attach(&name, &volume()).await.expect("attaches");
    f.backend.delete(&name).await.expect("deletes");
    f.backend.delete_volume(&key(f)).await.expect("deletes");
    f.backend.delete_volume(&key(f)).await.expect("none is no error");
    assert_eq!(
        f.backend.volumes(&f.environment()).await.expect("lists"),
        BTreeMap::new()
    );
}

pub(crate) async fn what_is_no_capability_is_not_attached(f: &Fixture) {
    if f.can(Capability::Volumes) {
        return f.not_applicable("no attaching: this backend can");
    }
    owned(f).await;
    fails(
        f.backend.attach(&f.name("one"), &volume()).await,
        ErrorKind::Unsupported,
    );
}
