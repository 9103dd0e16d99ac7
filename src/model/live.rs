//! What a backend holds.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use super::{
    Digest, EnvironmentName, GuestPath, InstanceName, Labels, LivePolicy, Mode, Owner, Protocol, Resolved,
    SecretHashes, SnapshotName, SpecRecord, VolumeKey, Workspace,
};

/// Whether an instance runs, in a word that every backend can say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It runs.
    Running,
    /// It does not.
    Stopped,
    /// Its processes are held.
    Frozen,
    /// Something else: starting, failing, or a word we do not know.
    Other,
}

impl Status {
    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Frozen => "frozen",
            Self::Other => "unknown",
        }
    }
}

/// An instance, in short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Its name.
    pub name: InstanceName,
    /// Whether it runs.
    pub status: Status,
    /// Addresses of global scope; empty where it does not run.
    pub addresses: Vec<IpAddr>,
}

/// A snapshot, in short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Its name below the instance.
    pub label: String,
    /// Bytes on disk, where the backend knows.
    pub size: Option<u64>,
    /// When it was taken, in seconds since 1970-01-01T00:00:00Z.
    pub created_at: Option<u64>,
}

/// A snapshot with what the tool wrote on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveSnapshot {
    /// What anybody can see.
    pub snapshot: Snapshot,
    /// The instance's labels at that moment; of another instance, or none, where we did not take it, or
    /// somebody has renamed it.
    pub labels: Labels,
}

/// All that one request tells of an instance: everything but its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveInstance {
    /// Its name.
    pub name: InstanceName,
    /// Whether it runs.
    pub status: Status,
    /// What the tool wrote on it.
    pub labels: Labels,
    /// CPUs, in the normal form of the spec (`2`), or as the backend has it where it is no such thing.
    pub cpu: Option<String>,
    /// Bound on memory, in the normal form of [`super::Memory`].
    pub memory: Option<String>,
    /// Size of the root disk, in the normal form of [`super::Bytes`]. Its own: not what it gets from elsewhere.
    pub disk: Option<String>,
    /// Size that the root disk has in effect, in the same form: its own, or what the backend's defaults give
    /// it (Incus: a profile).
    pub disk_effective: Option<String>,
    /// Environment variables.
    pub env: BTreeMap<String, String>,
    /// Backend settings that a spec could declare.
    pub config: BTreeMap<String, String>,
    /// The outbound network policy that is in force; none where there is none.
    pub egress: Option<LivePolicy>,
    /// Mounts, volumes and ports that are attached as we do it, whoever declared them.
    pub workspace: Workspace,
    /// Snapshots by name.
    pub snapshots: BTreeMap<String, LiveSnapshot>,
    /// When it was made, in seconds since 1970-01-01T00:00:00Z.
    pub created_at: Option<u64>,
    /// Where it lives, in a cluster.
    pub location: Option<String>,
    /// The image that it was made from, as far as the backend knows, by a name that a spec can have. No plan looks at
    /// it: what counts is what the spec said when it was made.
    pub image: Option<String>,
    /// Where something else than its disk is mounted in it, or will be when it starts, whoever attached that: a folder of
    /// the host, a volume, its profiles' devices too. What lies there is none of its disk.
    pub mounted: BTreeSet<GuestPath>,
}

impl LiveInstance {
    /// The snapshot of that name, if there is one.
    #[must_use]
    pub fn snapshot(&self, name: &SnapshotName) -> Option<&LiveSnapshot> {
        self.snapshots.get(name.as_str())
    }
}

/// Which files of an instance to look at, in one session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// These paths themselves; links are not followed. Small contents come along.
    pub paths: BTreeSet<GuestPath>,
    /// Paths whose contents are hashed but do not come along: secrets, and the entries of trees.
    pub opaque: BTreeSet<GuestPath>,
    /// Everything below these folders. What is not also named above is not read: it has no digest.
    pub below: BTreeSet<GuestPath>,
    /// Of what lies below those, these folders are left out, with all that is in them: see [`LiveInstance::mounted`].
    pub closed: BTreeSet<GuestPath>,
    /// Files of more bytes than this are not read: they have no digest. A guest can make a file of any size.
    pub bound: u64,
}

impl Default for Query {
    fn default() -> Self {
        Self {
            paths: BTreeSet::new(),
            opaque: BTreeSet::new(),
            below: BTreeSet::new(),
            closed: BTreeSet::new(),
            bound: Self::BOUND,
        }
    }
}

impl Query {
    /// The bound where nothing larger is declared: 64 MiB.
    pub const BOUND: u64 = 64 << 20;

    /// Whether it asks for nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty() && self.opaque.is_empty() && self.below.is_empty()
    }
}

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shape {
    /// A regular file.
    File {
        /// SHA-256 of its bytes; none where they were not read, see [`Query`].
        digest: Option<Digest>,
        /// How many there are.
        size: u64,
        /// The bytes, when they are few ([`Inspection::KEPT`]) and were asked for.
        content: Option<Arc<[u8]>>,
    },
    /// A folder.
    Directory,
    /// A symbolic link and its target, lossily decoded.
    Symlink(String),
    /// A device, a FIFO or a socket. Never opened.
    Special,
}

/// Something that stands at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What it is.
    pub shape: Shape,
    /// Permission bits, setuid, setgid and sticky included.
    pub mode: Mode,
    /// Owner.
    pub owner: Owner,
}

/// The answer to a [`Query`]. A path that was asked for and is not in here does not exist.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inspection(pub BTreeMap<GuestPath, Found>);

impl Inspection {
    /// Contents of up to this many bytes come along, for diffs and accounts.
    pub const KEPT: u64 = 64 * 1024;

    /// What stands at a path.
    #[must_use]
    pub fn get(&self, path: &GuestPath) -> Option<&Found> {
        self.0.get(path)
    }
}

/// A folder or a file of this machine that an instance has mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostMount {
    /// Its path on this machine.
    pub source: PathBuf,
    /// Whether the instance may only read it.
    pub readonly: bool,
}

/// Everything that a plan is made from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Live {
    /// Every instance within reach of the environment's names or labels, by name. Foreign ones included: a
    /// name that is taken is refused.
    pub instances: BTreeMap<InstanceName, LiveInstance>,
    /// Files of the instances that were looked at.
    pub files: BTreeMap<InstanceName, Inspection>,
    /// The instances whose files were not looked at, because they do not run and the backend reaches those of running ones
    /// only, or because looking would have changed them: what was last applied counts as what stands there.
    pub unseen: BTreeSet<InstanceName>,
    /// The instances that have no disk: whoever made or deleted them was stopped in between.
    pub diskless: BTreeSet<InstanceName>,
    /// Hashes of secrets.
    pub secrets: SecretHashes,
    /// Of the images that instances may have to be made from, those that are known not to be there, each with what
    /// the backend says about that.
    pub missing_images: BTreeMap<String, String>,
    /// Of the instances that were looked into, those in which no egress policy could be put in force, each with why.
    pub lacking_inside: BTreeMap<InstanceName, String>,
    /// Settings of the spec, key and value, that an instance cannot have there; each with what the backend says about that.
    pub refused_settings: BTreeMap<(String, String), String>,
    /// What the names in outbound network policies resolve to, as this machine sees it.
    pub names: BTreeMap<String, Resolved>,
    /// The addresses of the machine that plans, where there are such policies.
    pub machine: BTreeSet<IpAddr>,
    /// The volumes that the environment owns, whether attached or not, each with how much it may hold; see
    /// [`Workspace::volume_sizes`]. Looked for only where there may be some.
    pub volumes: BTreeMap<VolumeKey, Option<String>>,
    /// What instances have mounted of this machine, whosever they are and whoever mounted it. Looked for only where something
    /// is to be mounted, and where the backend looks for sources by their paths again when a guest restarts.
    pub host_mounts: BTreeMap<InstanceName, Vec<HostMount>>,
    /// Ports of the host that cannot be had, of those that are yet to be opened; each with what is the matter with it, as in
    /// `is taken: somebody listens there`.
    pub taken_ports: BTreeMap<(u16, Protocol), String>,
    /// What is recorded of the spec's own files, by every environment of the backend. Looked for only where the spec was
    /// read from files.
    pub spec_records: BTreeMap<EnvironmentName, SpecRecord>,
}
