//! What is known of a sandbox.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::model::{InstanceName, Labels, LiveInstance, LiveSnapshot, Snapshot, Status};

/// What a disk is made from, below all layers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::backend::local) enum Image {
    /// This machine's system folders.
    Host,
    /// A folder with a root file system.
    Folder(PathBuf),
    /// What an archive held, by its key below `images`.
    Unpacked(String),
}

/// A sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::backend::local) struct Record {
    /// Below all layers.
    pub(in crate::backend::local) image: Image,
    /// The layer that is written to.
    pub(in crate::backend::local) upper: String,
    /// Frozen layers below it, uppermost first.
    pub(in crate::backend::local) layers: Vec<String>,
    pub(in crate::backend::local) labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::backend::local) cpu: Option<u32>,
    /// In the normal form of [`crate::model::Memory`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::backend::local) memory: Option<String>,
    pub(in crate::backend::local) env: BTreeMap<String, String>,
    pub(in crate::backend::local) config: BTreeMap<String, String>,
    /// What it may reach; everything when none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::backend::local) egress: Option<crate::backend::local::policy::Kept>,
    /// Mounts and volumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::backend::local) attached: Option<crate::backend::local::workspace::Attached>,
    /// Seconds since 1970.
    pub(in crate::backend::local) created_at: u64,
    /// Oldest first.
    pub(in crate::backend::local) snapshots: Vec<Kept>,
}

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::backend::local) struct Kept {
    pub(in crate::backend::local) label: String,
    /// Frozen layers, uppermost first.
    pub(in crate::backend::local) layers: Vec<String>,
    /// The sandbox's labels at that moment.
    pub(in crate::backend::local) labels: BTreeMap<String, String>,
    /// Seconds since 1970.
    pub(in crate::backend::local) created_at: u64,
}

impl Record {
    /// Every layer that it names.
    pub(in crate::backend::local) fn named(&self) -> impl Iterator<Item = &str> {
        let kept = self.snapshots.iter().flat_map(|kept| &kept.layers);
        std::iter::once(&self.upper)
            .chain(&self.layers)
            .chain(kept)
            .map(String::as_str)
    }

    /// The unpacked image that it is made of.
    pub(in crate::backend::local) fn unpacked(&self) -> Option<&str> {
        match &self.image {
            Image::Unpacked(key) => Some(key),
            Image::Host | Image::Folder(_) => None,
        }
    }

    /// A snapshot.
    pub(in crate::backend::local) fn kept(&self, label: &str) -> Option<&Kept> {
        self.snapshots.iter().find(|kept| kept.label == label)
    }

    /// All but its files, as an observation tells it.
    pub(in crate::backend::local) fn live(&self, name: &InstanceName, status: Status) -> LiveInstance {
        let snapshots = self.snapshots.iter().map(|kept| {
            let live = LiveSnapshot {
                snapshot: kept.shown(),
                labels: Labels(kept.labels.clone()),
            };
            (kept.label.clone(), live)
        });
        LiveInstance {
            name: name.clone(),
            status,
            labels: Labels(self.labels.clone()),
            cpu: self.cpu.map(|cpu| cpu.to_string()),
            memory: self.memory.clone(),
            disk: None,
            disk_effective: None,
            env: self.env.clone(),
            config: self.config.clone(),
            egress: None,
            snapshots: snapshots.collect(),
            created_at: Some(self.created_at),
            location: None,
            image: None,
            workspace: Default::default(),
            mounted: self
                .attached
                .as_ref()
                .map(|attached| attached.paths())
                .unwrap_or_default(),
        }
    }
}

impl Kept {
    /// In short.
    pub(in crate::backend::local) fn shown(&self) -> Snapshot {
        Snapshot {
            label: self.label.clone(),
            size: None,
            created_at: Some(self.created_at),
        }
    }
}
