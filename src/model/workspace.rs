//! Mounts, volumes and ports.

use std::path::PathBuf;

use super::{GuestPath, Place};

/// A folder of the repository, live inside the sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The folder on this machine: a real path below the spec's root.
    pub source: PathBuf,
    /// Whether the sandbox may only read it.
    pub readonly: bool,
    /// Where the spec says so.
    pub at: Place,
}

/// A disk of its own that survives the sandbox's replacement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Where it is mounted in the sandbox.
    pub path: GuestPath,
    /// Where the spec says so.
    pub at: Place,
}

/// A port of the sandbox that answers on 127.0.0.1 of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// In the sandbox.
    pub port: u16,
    /// On the host.
    pub host: u16,
    /// Where the spec says so.
    pub at: Place,
}
