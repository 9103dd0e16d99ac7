//! A sandbox as the spec wants it, every default, template and variable filled in.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::{
    Bytes, Field, File, GuestPath, Ignored, Kind, Memory, Mount, Place, Policy, Port, Ready, Run, SandboxName, Seconds,
    SnapshotName, Tree, User, Volume,
};

/// What a sandbox's disk is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// An image, as written.
    Image {
        /// Its name.
        name: String,
        /// Where the spec says so.
        at: Place,
    },
    /// Another sandbox of the same spec.
    Clone {
        /// Which.
        sandbox: SandboxName,
        /// One of its snapshots; none: its disk as it is.
        snapshot: Option<SnapshotName>,
        /// What to do when the source has changed since.
        on_stale: OnStale,
        /// Whether the spec says `on-stale` itself.
        on_stale_explicit: bool,
        /// Where the spec says so.
        at: Place,
    },
}

/// What becomes of a clone whose source has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnStale {
    /// It stays and is shown as stale.
    #[default]
    Keep,
    /// It is made anew.
    Replace,
}

/// Whether a sandbox runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Power {
    /// It does.
    #[default]
    Running,
    /// It does not.
    Stopped,
}

impl Power {
    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Stopped => "stopped",
        }
    }
}

/// A declared sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    /// Its name, a count's number included.
    pub name: SandboxName,
    /// The name as written: `task` for `task-1` of a counted one, else the same.
    pub base: SandboxName,
    /// Where the spec says so.
    pub at: Place,
    /// What its disk is made from.
    pub origin: Origin,
    /// CPUs.
    pub cpu: Option<(u32, Place)>,
    /// Bound on memory.
    pub memory: Option<(Memory, Place)>,
    /// Size of the root disk.
    pub disk: Option<(Bytes, Place)>,
    /// Whether it runs.
    pub state: Power,
    /// Environment variables of everything that runs in it.
    pub env: BTreeMap<String, String>,
    /// Where the spec says each of them.
    pub env_places: BTreeMap<String, Place>,
    /// Backend settings, by the backend's own keys.
    pub config: BTreeMap<String, (String, Place)>,
    /// The unprivileged user.
    pub user: Option<User>,
    /// Files, by path.
    pub files: BTreeMap<GuestPath, File>,
    /// Trees, by path.
    pub trees: BTreeMap<GuestPath, Tree>,
    /// Set-up steps, in their order.
    pub run: Vec<Run>,
    /// When it counts as ready.
    pub ready: Option<Ready>,
    /// Snapshots, in their order.
    pub snapshots: Vec<(SnapshotName, Place)>,
    /// Mounts, by path in the sandbox.
    pub mounts: BTreeMap<GuestPath, Mount>,
    /// Volumes, by name.
    pub volumes: BTreeMap<String, Volume>,
    /// Published ports.
    pub ports: Vec<Port>,
    /// Sandboxes that must be done before this one is started on, counts expanded.
    pub depends_on: BTreeSet<SandboxName>,
    /// Outbound network policy; unrestricted when none.
    pub egress: Option<Policy>,
    /// Whether its disk is guarded.
    pub protect: Option<Place>,
    /// How long it may live.
    pub ttl: Option<(Seconds, Place)>,
    /// Cluster member or `@group` to create it on.
    pub target: Option<(String, Place)>,
    /// Accepted drift.
    pub ignore: Vec<Ignored>,
    /// Its files, trees and set-up steps that come from files of this machine, by kind and name.
    pub sources: BTreeMap<(Kind, String), Sourced>,
}

/// Where something of this machine comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sourced {
    /// Its real path.
    pub path: PathBuf,
    /// Where the spec says so.
    pub at: Place,
}

impl Sandbox {
    /// The sandbox that this one is cloned from, if any.
    #[must_use]
    pub fn source(&self) -> Option<&SandboxName> {
        match &self.origin {
            Origin::Clone { sandbox, .. } => Some(sandbox),
            Origin::Image { .. } => None,
        }
    }

    /// Where the spec says a field of the sandbox itself; where it says the sandbox when it does not.
    #[must_use]
    pub fn place_of(&self, field: &Field) -> &Place {
        let place = match (field.kind, field.field.as_str()) {
            (Kind::Sandbox, "image" | "clone-from") => match &self.origin {
                Origin::Image { at, .. } | Origin::Clone { at, .. } => Some(at),
            },
            (Kind::Sandbox, "cpu") => self.cpu.as_ref().map(|(_, at)| at),
            (Kind::Sandbox, "memory") => self.memory.as_ref().map(|(_, at)| at),
            (Kind::Sandbox, "disk") => self.disk.as_ref().map(|(_, at)| at),
            (Kind::Sandbox, field) => match field.split_once(':') {
                Some(("env", name)) => self.env_places.get(name),
                Some(("config", key)) => self.config.get(key).map(|(_, at)| at),
                _ => None,
            },
            _ => None,
        };
        place.unwrap_or(&self.at)
    }

    /// Every sandbox that this one needs, its clone source included.
    pub fn needs(&self) -> impl Iterator<Item = &SandboxName> {
        self.source().into_iter().chain(&self.depends_on)
    }
}
