//! A simulated instance, and what somebody with root on the host could do to it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::disk::{Disk, Node};
use super::look::describe;
use super::walk::Obstacle;
use crate::backend::{Error, ErrorKind, Result};
use crate::model::{
    Found, GuestPath, InstanceName, Labels, LiveInstance, LivePolicy, LiveSnapshot, Mode, Owner, Snapshot, Status,
    Workspace,
};

/// A simulated instance: all that the backend knows of it, open to a test's hands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Its name.
    pub name: InstanceName,
    /// Whether it runs.
    pub status: Status,
    /// What the tool wrote on it.
    pub labels: Labels,
    /// CPUs, as the backend has them: any text may stand here.
    pub cpu: Option<String>,
    /// Bound on memory.
    pub memory: Option<String>,
    /// Size of the root disk.
    pub disk: Option<String>,
    /// Environment variables.
    pub env: BTreeMap<String, String>,
    /// Backend settings.
    pub config: BTreeMap<String, String>,
    /// The outbound network policy that is in force.
    pub egress: Option<LivePolicy>,
    /// Mounts, volumes and ports that we have attached.
    pub workspace: Workspace,
    /// Snapshots by name.
    pub snapshots: BTreeMap<String, KeptDisk>,
    /// When it was made, by the backend's counter.
    pub created_at: u64,
    /// Where it lives, in a cluster.
    pub location: Option<String>,
    /// The address that it has while it runs.
    pub address: IpAddr,
    /// Where somebody has attached something of the host. What lies in it is among the files.
    pub mounted: BTreeSet<GuestPath>,
    /// Its files.
    pub root: Disk,
}

/// A snapshot: a disk and the labels of that moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptDisk {
    /// The instance's labels when it was taken; none where somebody has taken it by hand.
    pub labels: Labels,
    /// When it was taken, by the backend's counter.
    pub created_at: u64,
    /// The files.
    pub root: Disk,
}

impl Machine {
    /// A stopped instance with this disk and nothing else.
    pub(super) fn bare(root: Disk) -> Self {
        Self {
            name: InstanceName::observed("bare"),
            status: Status::Stopped,
            labels: Labels::default(),
            cpu: None,
            memory: None,
            disk: None,
            env: BTreeMap::new(),
            config: BTreeMap::new(),
            egress: None,
            workspace: Workspace::default(),
            snapshots: BTreeMap::new(),
            created_at: 0,
            location: None,
            address: IpAddr::from([10, 0, 0, 1]),
            mounted: BTreeSet::new(),
            root,
        }
    }

    /// What stands at a path, links on the way followed and the last not. No content comes along.
    #[must_use]
    pub fn found(&self, path: &str) -> Option<Found> {
        self.root
            .at(path, false)
            .map(|node| describe(node, false, Some(u64::MAX)))
    }

    /// A file's bytes, links followed; none where there is no regular file.
    #[must_use]
    pub fn read(&self, path: &str) -> Option<Vec<u8>> {
        let path = GuestPath::new(path).ok()?;
        self.root.bytes(&path).ok().map(<[u8]>::to_vec)
    }

    /// Writes a file as root with an editor would: one that is there keeps its mode and owner, a new one is
    /// 0644 and root's.
    ///
    /// # Errors
    /// When the path is none, or a parent is no folder.
    pub fn write(&mut self, path: &str, content: impl AsRef<[u8]>) -> Result<()> {
        let (mode, owner) = self
            .found(path)
            .map_or((Mode::FILE, Owner::ROOT), |found| (found.mode, found.owner));
        self.write_as(path, content, mode, owner)
    }

    /// Writes a file with this mode and owner; missing parents are made.
    ///
    /// # Errors
    /// When the path is none, or a parent is no folder.
    pub fn write_as(&mut self, path: &str, content: impl AsRef<[u8]>, mode: Mode, owner: Owner) -> Result<()> {
        self.put(path, Node::file(Arc::from(content.as_ref()), mode, owner), owner)
    }

    /// Makes a folder, or gives the one that is there this mode and owner.
    ///
    /// # Errors
    /// When the path is none, or a parent is no folder.
    pub fn directory(&mut self, path: &str, mode: Mode, owner: Owner) -> Result<()> {
        let at = valid(path)?;
        self.root
            .directory(&at, mode, owner)
            .map_err(|obstacle| cannot(path, obstacle))
    }

    /// Makes a symbolic link in place of whatever stands there.
    ///
    /// # Errors
    /// When the path is none, or a parent is no folder.
    pub fn symlink(&mut self, path: &str, target: &str, owner: Owner) -> Result<()> {
        self.put(path, Node::symlink(target, owner), owner)
    }

    /// Makes a FIFO in place of whatever stands there.
    ///
    /// # Errors
    /// When the path is none, or a parent is no folder.
    pub fn fifo(&mut self, path: &str) -> Result<()> {
        self.put(path, Node::special(Mode::FILE, Owner::ROOT), Owner::ROOT)
    }

    /// Gives a regular file another mode and owner.
    ///
    /// # Errors
    /// When there is none.
    pub fn attributes(&mut self, path: &str, mode: Mode, owner: Owner) -> Result<()> {
        let at = valid(path)?;
        self.root
            .attributes(&at, mode, owner)
            .map_err(|obstacle| cannot(path, obstacle))
    }

    /// Removes what stands at a path, a folder with all that it holds.
    ///
    /// # Errors
    /// When there is nothing.
    pub fn remove(&mut self, path: &str) -> Result<()> {
        match self.root.remove(&valid(path)?) {
            true => Ok(()),
            false => Err(cannot(path, Obstacle::Missing)),
        }
    }

    fn put(&mut self, path: &str, node: Node, parents: Owner) -> Result<()> {
        let at = valid(path)?;
        self.root
            .put(&at, node, parents)
            .map_err(|obstacle| cannot(path, obstacle))
    }

    /// Whether it runs, so that commands can be run in it.
    pub(super) fn runs(&self) -> bool {
        self.status == Status::Running
    }

    /// Its snapshots, oldest first; those of one moment by name.
    pub(super) fn snapshots(&self) -> Vec<Snapshot> {
        let mut snapshots: Vec<_> = self.snapshots.iter().map(|(label, kept)| kept.shown(label)).collect();
        snapshots.sort_by_key(|snapshot| snapshot.created_at);
        snapshots
    }

    /// All but its files, as an observation tells it.
    pub(super) fn live(&self) -> LiveInstance {
        let snapshots = self.snapshots.iter().map(|(label, kept)| {
            let live = LiveSnapshot {
                snapshot: kept.shown(label),
                labels: kept.labels.clone(),
            };
            (label.clone(), live)
        });
        LiveInstance {
            name: self.name.clone(),
            status: self.status,
            labels: self.labels.clone(),
            cpu: self.cpu.clone(),
            memory: self.memory.clone(),
            disk: self.disk.clone(),
            disk_effective: self.disk.clone(),
            env: self.env.clone(),
            config: self.config.clone(),
            egress: self.egress.clone(),
            workspace: self.workspace.clone(),
            snapshots: snapshots.collect(),
            created_at: Some(self.created_at),
            location: self.location.clone(),
            image: None,
            mounted: self.all_mounted(),
        }
    }
}

impl KeptDisk {
    fn shown(&self, label: &str) -> Snapshot {
        Snapshot {
            label: label.to_owned(),
            size: None,
            created_at: Some(self.created_at),
        }
    }
}

fn valid(path: &str) -> Result<GuestPath> {
    GuestPath::new(path)
        .map_err(|source| Error::new(ErrorKind::Invalid, format!("`{path}` is no path")).with_source(source))
}

/// The failure of a change to a file.
pub(super) fn cannot(path: impl std::fmt::Display, obstacle: Obstacle) -> Error {
    let kind = match obstacle {
        Obstacle::Missing => ErrorKind::NotFound,
        Obstacle::NotFile | Obstacle::NoTarget => ErrorKind::Invalid,
        Obstacle::NotFolder | Obstacle::Dangling | Obstacle::Loop => ErrorKind::Failed,
    };
    Error::new(kind, format!("`{path}`: {obstacle}"))
}
