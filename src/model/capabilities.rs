//! What a backend can do, as data.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::{Enforcement, HotPlug};

/// Something a spec may need and a backend may lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Capability {
    /// Snapshots.
    Snapshots,
    /// Clones of a sandbox's current disk.
    CloneFromDisk,
    /// Clones of a snapshot.
    CloneFromSnapshot,
    /// A bound on CPUs.
    CpuLimit,
    /// A bound on memory.
    MemoryLimit,
    /// A bound on memory as a share of the host's.
    MemoryShare,
    /// A size of the root disk.
    DiskSize,
    /// Files and trees.
    Files,
    /// Files of a stopped sandbox; without it, they are written after the start.
    FilesWhenStopped,
    /// Secret files.
    Secrets,
    /// Set-up steps, readiness and `exec`.
    Exec,
    /// Making the user's account.
    Users,
    /// Files of others than root.
    Owners,
    /// Settings by the backend's own keys.
    Config,
    /// Placement on a cluster's member or group.
    Target,
    /// A network besides the loopback device. Nothing needs it by itself: who lacks it says so in a remark.
    Network,
    /// Outbound network policy, enforced outside the guest.
    EgressHost,
    /// The same, where it opens nothing at all.
    EgressNone,
    /// Outbound network policy, enforced inside the guest.
    EgressGuest,
    /// Outbound network policy that opens IPv6 addresses. Without it, IPv6 stays closed altogether.
    EgressIpv6,
    /// Folders of this machine, live inside.
    Mounts,
    /// Disks that survive a replacement.
    Volumes,
    /// A bound on what a volume may hold.
    VolumeSize,
    /// Ports on 127.0.0.1 of the host.
    Ports,
    /// Deletion of what has outlived its time.
    Expiry,
}

impl Capability {
    /// All of them.
    pub const ALL: [Self; 25] = [
        Self::Snapshots,
        Self::CloneFromDisk,
        Self::CloneFromSnapshot,
        Self::CpuLimit,
        Self::MemoryLimit,
        Self::MemoryShare,
        Self::DiskSize,
        Self::Files,
        Self::FilesWhenStopped,
        Self::Secrets,
        Self::Exec,
        Self::Users,
        Self::Owners,
        Self::Config,
        Self::Target,
        Self::Network,
        Self::EgressHost,
        Self::EgressNone,
        Self::EgressGuest,
        Self::EgressIpv6,
        Self::Mounts,
        Self::Volumes,
        Self::VolumeSize,
        Self::Ports,
        Self::Expiry,
    ];

    /// Its name: `clone-from-snapshot`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Snapshots => "snapshots",
            Self::CloneFromDisk => "clone-from-disk",
            Self::CloneFromSnapshot => "clone-from-snapshot",
            Self::CpuLimit => "cpu-limit",
            Self::MemoryLimit => "memory-limit",
            Self::MemoryShare => "memory-share",
            Self::DiskSize => "disk-size",
            Self::Files => "files",
            Self::FilesWhenStopped => "files-when-stopped",
            Self::Secrets => "secrets",
            Self::Exec => "exec",
            Self::Users => "users",
            Self::Owners => "owners",
            Self::Config => "config",
            Self::Target => "target",
            Self::Network => "network",
            Self::EgressHost => "egress-host",
            Self::EgressNone => "egress-none",
            Self::EgressGuest => "egress-guest",
            Self::EgressIpv6 => "egress-ipv6",
            Self::Mounts => "mounts",
            Self::Volumes => "volumes",
            Self::VolumeSize => "volume-size",
            Self::Ports => "ports",
            Self::Expiry => "expiry",
        }
    }
}

/// What binds what a backend can do. The default is a backend that nothing binds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// A bound on memory is a multiple of so many bytes.
    pub memory_unit: u64,
    /// And so many bytes at least.
    pub memory_least: u64,
    /// Whether going back to a snapshot deletes those that are newer.
    pub restore_deletes_newer: bool,
    /// Whether a snapshot cannot be deleted while there are clones of it.
    pub keeps_cloned_snapshots: bool,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            memory_unit: 1,
            memory_least: 0,
            restore_deletes_newer: false,
            keeps_cloned_snapshots: false,
        }
    }
}

/// What a backend can do and how fast it wants to be driven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// The backend's name.
    pub backend: &'static str,
    /// What it can do.
    pub able: BTreeSet<Capability>,
    /// How many operations at once serve it best.
    pub concurrency: usize,
    /// Why it lacks what others have: shown with the error, by capability.
    pub reasons: Vec<(Capability, String)>,
    /// Backend settings, by key or by a prefix that ends in `.`, that take hold with the next start only.
    pub restart_config: &'static [&'static str],
    /// Whether a running sandbox is stopped and started again when a policy is put on it or taken off. A policy that
    /// changes disturbs nobody.
    pub egress_restarts: bool,
    /// What of mounts, volumes and ports a running sandbox takes without a restart.
    pub hot_plug: HotPlug,
    /// Whether the spec's files in folders of a mount stay what they are: where not, only those right in it do, for a
    /// guest could move such a folder away.
    pub guards_folders: bool,
    /// Real paths on this machine that the backend works with, such as the folder that it keeps sandboxes in, or its daemon's
    /// socket: who can get at one of these from inside can have the backend do anything.
    pub own_paths: Vec<PathBuf>,
    /// What binds what it can do.
    pub bounds: Bounds,
    /// What a user wants to know of each of these before they are attached, by capability: shown in plans that do so.
    pub workspace_remarks: Vec<(Capability, String)>,
    /// What a user wants to know before sandboxes are made: shown in plans that make some.
    pub remarks: Vec<String>,
    /// What a user wants to know before an egress policy is put in force: shown in plans that do so.
    pub egress_remarks: Vec<String>,
}

impl Capabilities {
    /// Whether it can.
    #[must_use]
    pub fn can(&self, capability: Capability) -> bool {
        self.able.contains(&capability)
    }

    /// Where an outbound network policy is enforced that does not say: outside the guest, but for backends that can do it
    /// inside alone.
    #[must_use]
    pub fn enforcement(&self) -> Enforcement {
        match !self.can(Capability::EgressHost) && self.can(Capability::EgressGuest) {
            true => Enforcement::Guest,
            false => Enforcement::Host,
        }
    }

    /// Whether a change of that setting takes hold with the next start only.
    #[must_use]
    pub fn needs_restart(&self, key: &str) -> bool {
        self.restart_config
            .iter()
            .any(|known| *known == key || (known.ends_with('.') && key.starts_with(known)))
    }

    /// What the backend works with that a mount of this source would show.
    #[must_use]
    pub fn own_path_in(&self, source: &Path) -> Option<&Path> {
        let mut own = self.own_paths.iter().map(PathBuf::as_path);
        own.find(|own| own.starts_with(source) || source.starts_with(own))
    }

    /// Why it cannot, where there is more to say than that.
    #[must_use]
    pub fn reason(&self, capability: Capability) -> Option<&str> {
        self.reasons
            .iter()
            .find(|(of, _)| *of == capability)
            .map(|(_, reason)| reason.as_str())
    }
}
