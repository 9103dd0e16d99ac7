//! The state behind the handles: instances, images, members, and what was asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::disk::Disk;
use super::hold::Holds;
use super::image;
use super::machine::Machine;
use crate::backend::{Error, ErrorKind, ExecOpts, Output, Result};
use crate::model::{EnvironmentName, InstanceName, Note, NoteKey, Protocol, VolumeKey};

/// What a test hooks in to answer commands.
pub(super) type Hook = Arc<dyn Fn(&mut Machine, &ExecOpts) -> Option<Output> + Send + Sync>;

/// Everything that the handles of one backend share.
pub(super) struct World {
    pub(super) machines: BTreeMap<InstanceName, Machine>,
    pub(super) images: BTreeMap<String, Disk>,
    /// Cluster members by name, each with its groups.
    pub(super) members: BTreeMap<String, BTreeSet<String>>,
    /// What is kept of each environment.
    pub(super) notes: BTreeMap<(EnvironmentName, NoteKey), Note>,
    /// Volumes, attached or not.
    pub(super) volumes: BTreeMap<VolumeKey, Option<String>>,
    /// Ports of the host that somebody else has.
    pub(super) taken_ports: BTreeMap<(u16, Protocol), String>,
    pub(super) holds: Holds,
    pub(super) journal: Vec<String>,
    /// Calls by name, reading and changing ones.
    pub(super) calls: BTreeMap<&'static str, usize>,
    pub(super) hook: Option<Hook>,
    pub(super) time: u64,
    made: u32,
}

impl Default for World {
    fn default() -> Self {
        Self {
            machines: BTreeMap::new(),
            images: [image::BASE, image::NEXT]
                .map(|name| (name.to_owned(), image::base()))
                .into(),
            members: BTreeMap::new(),
            notes: BTreeMap::new(),
            volumes: BTreeMap::new(),
            taken_ports: BTreeMap::new(),
            holds: Holds::default(),
            journal: Vec::new(),
            calls: BTreeMap::new(),
            hook: None,
            time: 1_750_000_000,
            made: 0,
        }
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World")
            .field("machines", &self.machines.keys())
            .finish_non_exhaustive()
    }
}

impl World {
    /// This moment. No two are alike, so that whatever was made later is younger.
    pub(super) fn tick(&mut self) -> u64 {
        let now = self.time;
        self.time += 1;
        now
    }

    /// The address of the next instance.
    pub(super) fn next_address(&mut self) -> IpAddr {
        self.made += 1;
        // 10.0.0.0/8 holds more instances than any test makes.
        IpAddr::V4(Ipv4Addr::from_bits(0x0A00_0000 | (self.made & 0x00FF_FFFF)))
    }

    /// The disk that an image gives.
    pub(super) fn image(&self, image: &str) -> Result<&Disk> {
        let disk = self.images.get(image);
        disk.ok_or_else(|| Error::not_found(format!("there is no image `{image}`")))
    }

    pub(super) fn machine(&self, name: &InstanceName) -> Result<&Machine> {
        self.machines.get(name).ok_or_else(|| no_instance(name))
    }

    pub(super) fn machine_mut(&mut self, name: &InstanceName) -> Result<&mut Machine> {
        self.machines.get_mut(name).ok_or_else(|| no_instance(name))
    }

    /// The member that a target means, or the first one where none is named.
    pub(super) fn member(&self, target: Option<&str>) -> Result<Option<String>> {
        let Some(target) = target else {
            return Ok(self.members.keys().next().cloned());
        };
        if self.members.is_empty() {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("no target `{target}`: this is no cluster"),
            ));
        }
        let meant = self
            .members
            .iter()
            .find(|(member, groups)| match target.strip_prefix('@') {
                Some(group) => groups.contains(group),
                None => *member == target,
            });
        match meant {
            Some((member, _)) => Ok(Some(member.clone())),
            None => Err(Error::not_found(format!("the cluster has no `{target}`"))),
        }
    }
}

/// Nothing of that name.
pub(super) fn no_instance(name: &InstanceName) -> Error {
    Error::not_found(format!("there is no instance `{name}`"))
}

/// No such snapshot.
pub(super) fn no_snapshot(name: &InstanceName, label: &str) -> Error {
    Error::not_found(format!("`{name}` has no snapshot `{label}`"))
}
