//! Mounts, volumes and ports: kept, and held against the rules of the contract. Nothing of this machine is looked at.

use std::collections::{BTreeMap, BTreeSet};

use super::Memory;
use super::hold::Hold;
use super::machine::Machine;
use crate::backend::{Error, ErrorKind, Result};
use crate::model::{
    Attach, Bytes, Capability, EnvironmentName, GuestPath, InstanceName, Labels, Ownership, Protocol, Status, VolumeKey,
};

impl Memory {
    pub(super) fn kept_volumes(&self, environment: &EnvironmentName) -> BTreeMap<VolumeKey, Option<String>> {
        let world = self.world();
        let of_it = world.volumes.iter().filter(|(key, _)| key.environment == *environment);
        of_it.map(|(key, size)| (key.clone(), size.clone())).collect()
    }

    pub(super) fn taken(&self, ports: &BTreeSet<(u16, Protocol)>) -> BTreeMap<(u16, Protocol), String> {
        let world = self.world();
        let taken = world.taken_ports.iter().filter(|(port, _)| ports.contains(port));
        taken.map(|(port, who)| (*port, who.clone())).collect()
    }

    /// Has somebody else listen on a port of the host.
    pub fn take_port(&self, port: u16, protocol: Protocol, who: &str) {
        self.world()
            .taken_ports
            .insert((port, protocol), format!("is taken: {who}"));
    }

    /// The volumes that there are.
    #[must_use]
    pub fn volumes(&self) -> BTreeMap<VolumeKey, Option<String>> {
        self.world().volumes.clone()
    }

    pub(super) async fn attach_all(&self, name: &InstanceName, changes: &Attach) -> Result<()> {
        self.note("attach", [format!("attach {name}{}", summary(changes))]);
        for (needed, capability) in [
            (!changes.mounts.is_empty(), Capability::Mounts),
            (!changes.volumes.is_empty(), Capability::Volumes),
            (!changes.ports.is_empty(), Capability::Ports),
        ] {
            if needed {
                self.need(capability)?;
            }
        }
        let held = self.hold(name, Hold::Change)?;
        self.pause().await;
        let key = self.owner_of(name)?;
        strict(changes)?;
        if let Some(port) = self.in_the_way(name, changes) {
            return Err(Error::new(
                ErrorKind::AlreadyExists,
                format!("the port {port} is taken"),
            ));
        }
        self.see_to_volumes(&key, changes)?;
        let hot = self.able().hot_plug;
        held.change(|machine| {
            let readonly = changes
                .mounts
                .values()
                .flatten()
                .any(|mount| mount.readonly || !mount.guarded.is_empty());
            if machine.status != Status::Stopped && readonly && !hot.readonly_mounts {
                return Err(Error::new(
                    ErrorKind::Invalid,
                    format!("`{}` runs: it takes nothing to read only", machine.name),
                ));
            }
            machine.attach(changes);
            Ok(())
        })
    }

    /// Makes volumes that are missing, and has the others hold more.
    fn see_to_volumes(&self, owner: &VolumeKey, changes: &Attach) -> Result<()> {
        let mut world = self.world();
        for (name, volume) in &changes.volumes {
            let Some(volume) = volume else { continue };
            let name = name.clone();
            let size = world.volumes.entry(VolumeKey { name, ..owner.clone() }).or_default();
            let before = size.as_ref().and_then(|size| size.parse::<Bytes>().ok());
            if let Some(wanted) = volume.size {
                if before.is_some_and(|before| wanted < before) {
                    return Err(Error::new(ErrorKind::Invalid, "a volume cannot shrink"));
                }
                *size = Some(wanted.to_string());
            }
        }
        Ok(())
    }

    /// Whose the volumes of an instance are.
    fn owner_of(&self, name: &InstanceName) -> Result<VolumeKey> {
        let labels: Labels = self.world().machine(name)?.labels.clone();
        match labels.ownership(name) {
            Ownership::Owned { environment, sandbox } => Ok(VolumeKey {
                environment,
                sandbox,
                name: String::new(),
            }),
            Ownership::Foreign => Err(Error::new(ErrorKind::Invalid, format!("no environment owns `{name}`"))),
        }
    }

    fn in_the_way(&self, name: &InstanceName, changes: &Attach) -> Option<u16> {
        let world = self.world();
        let wanted = changes
            .ports
            .iter()
            .filter_map(|(guest, host)| Some(((*host)?, guest.protocol)));
        let mut wanted = wanted.filter(|(host, protocol)| {
            let others = world
                .machines
                .values()
                .filter(|machine| machine.name != *name && machine.runs());
            let mut theirs = others.flat_map(|machine| &machine.workspace.ports);
            world.taken_ports.contains_key(&(*host, *protocol))
                || theirs.any(|(guest, other)| guest.protocol == *protocol && *other == host.to_string())
        });
        wanted.next().map(|(host, _)| host)
    }

    pub(super) async fn drop_volume(&self, key: &VolumeKey) -> Result<()> {
        self.note("delete_volume", [format!("delete volume {}/{}", key.sandbox, key.name)]);
        self.need(Capability::Volumes)?;
        self.pause().await;
        let mut world = self.world();
        let has = |machine: &Machine| {
            let ours = Ownership::Owned {
                environment: key.environment.clone(),
                sandbox: key.sandbox.clone(),
            };
            machine.labels.ownership(&machine.name) == ours && machine.workspace.volumes.contains_key(&key.name)
        };
        if world.machines.values().any(has) {
            return Err(Error::new(
                ErrorKind::Failed,
                format!("the volume `{}` is attached", key.name),
            ));
        }
        world.volumes.remove(key);
        Ok(())
    }
}

/// Refuses what no backend could attach.
fn strict(changes: &Attach) -> Result<()> {
    let refuse = |message: String| Err(Error::new(ErrorKind::Invalid, message));
    for (path, mount) in &changes.mounts {
        if let Some(mount) = mount
            && (!mount.source.starts_with('/') || (mount.readonly && !mount.guarded.is_empty()))
        {
            return refuse(format!("`{path}` is no mount"));
        }
    }
    match changes.ports.values().flatten().any(|host| *host == 0) {
        true => refuse("0 is no port".to_owned()),
        false => Ok(()),
    }
}

impl Machine {
    fn attach(&mut self, changes: &Attach) {
        let found = &mut self.workspace;
        for (path, mount) in &changes.mounts {
            match mount {
                Some(mount) => drop(found.mounts.insert(path.clone(), mount.clone())),
                None => drop(found.mounts.remove(path)),
            }
        }
        for (name, volume) in &changes.volumes {
            match volume {
                Some(volume) => drop(found.volumes.insert(name.clone(), volume.path.to_string())),
                None => drop(found.volumes.remove(name)),
            }
        }
        for (guest, host) in &changes.ports {
            match host {
                Some(host) => drop(found.ports.insert(*guest, host.to_string())),
                None => drop(found.ports.remove(guest)),
            }
        }
        let listening = found.ports.iter();
        let listening = listening.filter_map(|(guest, host)| Some((host.parse().ok()?, guest.protocol)));
        found.listening = listening.collect();
    }

    /// Where something else than its disk is.
    pub(super) fn all_mounted(&self) -> BTreeSet<GuestPath> {
        let volumes = self
            .workspace
            .volumes
            .values()
            .filter_map(|path| GuestPath::new(path.as_str()).ok());
        let mounts = self.workspace.mounts.keys().cloned();
        self.mounted.iter().cloned().chain(mounts).chain(volumes).collect()
    }
}

fn summary(changes: &Attach) -> String {
    let mut text = String::new();
    let mut add = |set: bool, what: String| text.push_str(&format!(" {}{what}", if set { "" } else { "-" }));
    for (path, mount) in &changes.mounts {
        add(mount.is_some(), format!("mount:{path}"));
    }
    for (name, volume) in &changes.volumes {
        add(volume.is_some(), format!("volume:{name}"));
    }
    for (guest, host) in &changes.ports {
        add(host.is_some(), format!("port:{guest}"));
    }
    text
}
