//! Mounts, volumes and ports: what a spec declares, what is attached to an instance, and what has to change about that.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::{Bytes, EnvironmentName, GuestPath, Owner, Place, Protocol, SandboxName};

/// A folder or a file of the repository, live inside the sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// What is mounted: a real path below the spec's root, on this machine.
    pub source: PathBuf,
    /// Whether it is a file, not a folder.
    pub is_file: bool,
    /// Whether the sandbox may only read it.
    pub readonly: bool,
    /// Of one that may be written to: the files of the spec in it, by their paths below `source`. They stay read-only.
    pub guarded: BTreeSet<String>,
    /// Of one that may be written to: things in it by which a guest could have this machine run something.
    pub exposed: BTreeSet<String>,
    /// Whose the source is on this machine: its uid.
    pub owner: u32,
    /// Where the spec says so.
    pub at: Place,
}

/// A disk of its own that survives the sandbox's replacement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Where it is mounted in the sandbox.
    pub path: GuestPath,
    /// How much it may hold, and where the spec says so; as much as there is room for when none.
    pub size: Option<(Bytes, Place)>,
    /// Where the spec says so.
    pub at: Place,
}

/// A port of the sandbox that answers on 127.0.0.1 and ::1 of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// In the sandbox.
    pub guest: GuestPort,
    /// On the host.
    pub host: u16,
    /// Where the spec says so.
    pub at: Place,
}

/// A port in a sandbox: `8080`, `53/udp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GuestPort {
    /// Its number.
    pub number: u16,
    /// Its protocol.
    pub protocol: Protocol,
}

impl fmt::Display for GuestPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.protocol {
            Protocol::Tcp => write!(f, "{}", self.number),
            Protocol::Udp => write!(f, "{}/udp", self.number),
        }
    }
}

/// Why a text is no port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a port is a number from 1 to 65535, and `/udp` where it is not TCP's")]
pub struct InvalidPort;

impl FromStr for GuestPort {
    type Err = InvalidPort;

    fn from_str(text: &str) -> Result<Self, InvalidPort> {
        let (number, protocol) = match text.split_once('/') {
            None | Some((_, "tcp")) => (text.split('/').next().unwrap_or_default(), Protocol::Tcp),
            Some((number, "udp")) => (number, Protocol::Udp),
            Some(_) => return Err(InvalidPort),
        };
        let number = number.parse().ok().filter(|number| *number > 0).ok_or(InvalidPort)?;
        Ok(Self { number, protocol })
    }
}

/// A mount as it is to be attached, or is attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachedMount {
    /// The path on the backend's machine; of one that is not as we would attach it, with words that say what is odd.
    pub source: String,
    /// Whether the sandbox may only read it.
    pub readonly: bool,
    /// Paths below it that the sandbox may only read.
    pub guarded: BTreeSet<String>,
}

/// A volume as it is to be attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachedVolume {
    /// Where.
    pub path: GuestPath,
    /// Whose its folder is when it is made.
    pub owner: Owner,
    /// How much it may hold; what it may hold already, or as much as there is room for, when none.
    pub size: Option<Bytes>,
}

/// What is attached to an instance, of all that a spec could have declared; what hands have attached is not in here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Workspace {
    /// Mounts, by path in the sandbox.
    pub mounts: BTreeMap<GuestPath, AttachedMount>,
    /// Volumes by name, each with the path where it is; words that say what is odd instead of a path where it is not
    /// as we would attach it.
    pub volumes: BTreeMap<String, String>,
    /// How much each of them may hold, in the normal form of [`Bytes`], or as the backend has it; nothing where nothing bounds
    /// it. Known where volumes were looked for.
    pub volume_sizes: BTreeMap<String, String>,
    /// The port of the host that leads to each; words that say what is odd instead of a number.
    pub ports: BTreeMap<GuestPort, String>,
    /// The ports of the host at which something of these listens while it runs, those that are odd too.
    pub listening: BTreeSet<(u16, Protocol)>,
}

/// Whose a volume is, and what it is called.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeKey {
    /// The environment.
    pub environment: EnvironmentName,
    /// The sandbox.
    pub sandbox: SandboxName,
    /// Its name within that.
    pub name: String,
}

/// What has to change about what is attached: what is not named stays, and none takes away. A volume that is taken away
/// keeps its data.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attach {
    /// Mounts, by path.
    pub mounts: BTreeMap<GuestPath, Option<AttachedMount>>,
    /// Volumes, by name. One that is not there is made.
    pub volumes: BTreeMap<String, Option<AttachedVolume>>,
    /// Ports of the host, by the port that each leads to.
    pub ports: BTreeMap<GuestPort, Option<u16>>,
}

/// What a running sandbox takes without a restart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HotPlug {
    /// Mounts that it may write to.
    pub mounts: bool,
    /// Mounts that it may only read.
    pub readonly_mounts: bool,
    /// Volumes.
    pub volumes: bool,
    /// Ports.
    pub ports: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_read_as_they_print() {
        for text in ["1", "8080", "53/udp"] {
            assert_eq!(text.parse::<GuestPort>().expect(text).to_string(), text);
        }
        for bad in ["", "0", "65536", "80/sctp", "80/", "/udp"] {
            assert_eq!(bad.parse::<GuestPort>(), Err(InvalidPort), "{bad}");
        }
    }
}
