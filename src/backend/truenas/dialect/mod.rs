//! What differs between the versions of TrueNAS: how instances are called, made and changed.
//!
//! 25.04 and 25.10 drive Incus by `virt.*`; 26 drives libvirt by `container.*`. Snapshots are ZFS's in all of them, by
//! `zfs.snapshot.*` in 25.04 and by `pool.snapshot.*` later.

mod container;
mod image;
mod nic;
mod virt;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::client::Client;
use super::convert::Carried;
use crate::backend::{Error, Result, Stop};
use crate::model::{Bounds, Capability, GuestPath, Status};

/// An instance, as every version can tell it.
#[derive(Debug, Clone)]
pub(super) struct Machine {
    /// What calls name it by.
    pub(super) id: Value,
    pub(super) name: String,
    pub(super) status: Status,
    /// What stands in its variables.
    pub(super) carried: Carried,
    /// Addresses of global scope, where the version tells them.
    pub(super) addresses: Vec<IpAddr>,
    /// The bound on CPUs, as it is written.
    pub(super) cpu: Option<String>,
    /// The bound on memory, in bytes.
    pub(super) memory: Option<u64>,
    /// What it was made from, as far as the system knows.
    pub(super) image: Option<String>,
    /// Its disk.
    pub(super) dataset: String,
    /// Where something else than its disk is mounted, where a listing tells.
    pub(super) mounted: BTreeSet<GuestPath>,
    /// Network cards of its own, where a listing tells.
    pub(super) has_card: bool,
}

/// An instance to be.
#[derive(Debug)]
pub(super) struct New<'a> {
    pub(super) name: &'a str,
    /// As the spec names it.
    pub(super) image: &'a str,
    /// What stands in its variables.
    pub(super) variables: BTreeMap<String, String>,
    /// What stands there as long as it has not the disk that it is to have, where it is not made with it.
    pub(super) unfinished: BTreeMap<String, String>,
    pub(super) cpu: Option<u32>,
    /// Bytes.
    pub(super) memory: Option<u64>,
}

/// What changes of an instance; what is none stays.
#[derive(Debug, Default)]
pub(super) struct Update {
    pub(super) variables: Option<BTreeMap<String, String>>,
    pub(super) cpu: Option<Option<u32>>,
    pub(super) memory: Option<Option<u64>>,
}

/// Where new instances go.
#[derive(Debug, Clone, Default)]
pub(super) struct Places {
    /// The pool of disks; the system's choice when none.
    pub(super) pool: Option<String>,
    /// The interface or bridge of network cards; that of the default route when none.
    pub(super) network: Option<String>,
    /// Whether a card is bridged or a MAC-VLAN; told by the interface when none.
    pub(super) nic: Option<String>,
}

/// One version's way.
#[async_trait]
pub(super) trait Dialect: fmt::Debug + Send + Sync {
    /// What it cannot do that others can, each with the reason.
    fn unable(&self) -> Vec<(Capability, String)>;

    /// What binds what it can do.
    fn bounds(&self) -> Bounds {
        Bounds {
            restore_deletes_newer: true,
            ..Bounds::default()
        }
    }

    /// The service that snapshots are called by.
    fn snapshots(&self) -> &'static str;

    /// The call that lists the snapshots of some datasets with their properties, those of users too.
    fn list_snapshots(&self, datasets: &[&str]) -> (String, Value);

    /// The call that gives a snapshot another name, both `DATASET@LABEL`; none where the version has no such.
    fn rename_snapshot(&self, from: &str, to: &str) -> Option<(&'static str, Value)>;

    /// The methods that run as jobs.
    fn jobs(&self) -> &'static [&'static str];

    /// The pool in which notes are kept, and disks where no other is named.
    async fn pool(&self) -> Result<String>;

    /// Where network cards of new instances hang, for people.
    async fn network(&self) -> Result<String>;

    /// Every instance.
    async fn machines(&self) -> Result<Vec<Machine>>;

    /// One instance.
    async fn machine(&self, name: &str) -> Result<Machine>;

    /// Where something else than its disk is mounted in it.
    async fn mounted(&self, machine: &Machine) -> Result<BTreeSet<GuestPath>>;

    /// Whether there is an image; no error where it cannot be told cheaply.
    async fn find_image(&self, image: &str) -> Result<()>;

    /// Makes a stopped instance from an image.
    async fn create(&self, new: &New<'_>) -> Result<()>;

    /// Makes a stopped instance with the disk of a snapshot, `DATASET@LABEL`, of an instance.
    async fn create_from(&self, source: &Machine, snapshot: &str, new: &New<'_>) -> Result<()>;

    async fn update(&self, machine: &Machine, update: Update) -> Result<()>;

    async fn start(&self, machine: &Machine) -> Result<()>;

    async fn stop(&self, machine: &Machine, how: Stop) -> Result<()>;

    /// Deletes it with its disk. It does not run, and 26 wants it without snapshots.
    async fn delete(&self, machine: &Machine) -> Result<()>;

    /// Whether snapshots have to go before their instance.
    fn snapshots_go_first(&self) -> bool;

    /// Whether it says so where a dataset could not be deleted.
    fn tells_failed_deletions(&self) -> bool {
        true
    }

    /// The dataset that the disks of new instances are below, where one may be left there that no instance has.
    async fn folder_of_disks(&self) -> Result<Option<String>> {
        Ok(None)
    }

    /// Whether [`Machine::addresses`] are told.
    fn tells_addresses(&self) -> bool;

    /// Its root folder, as the system's own files are called.
    async fn root(&self, machine: &Machine) -> Result<String>;

    /// What opens a shell in it: the options of the web shell. The script is run by a shell of the sandbox.
    fn shell(&self, machine: &Machine, script: &str) -> Shell;
}

/// How the web shell is asked for a script.
#[derive(Debug)]
pub(super) struct Shell {
    /// The options of its first message.
    pub(super) options: Value,
    /// What has to be typed afterwards, where the command can be one word only.
    pub(super) typed: Option<String>,
}

/// Which version answers.
#[derive(Debug, Clone)]
pub(super) struct Version {
    /// As the system says it: `25.10.1`.
    pub(super) text: String,
    major: u32,
    minor: u32,
}

impl Version {
    /// Asks.
    pub(super) async fn ask(client: &Client) -> Result<Self> {
        let said: String = client.read("system.version", json!([])).await?;
        Self::read(&said).ok_or_else(|| {
            Error::unsupported(format!("`{said}` is no version of TrueNAS that is known"))
                .with_hint("TrueNAS 25.04, 25.10 and 26 are known")
        })
    }

    /// `TrueNAS-25.04.2.6`, `25.10.0-RC.1`, `TrueNAS-SCALE-26.0.0`.
    fn read(said: &str) -> Option<Self> {
        let start = said.find(|c: char| c.is_ascii_digit())?;
        let text = &said[start..];
        let mut numbers = text.split(|c: char| !c.is_ascii_digit());
        let major = numbers.next()?.parse().ok()?;
        let minor = numbers
            .next()
            .and_then(|number| number.parse().ok())
            .unwrap_or_default();
        Some(Self {
            text: text.to_owned(),
            major,
            minor,
        })
    }

    /// The way of this version.
    pub(super) fn dialect(&self, client: Arc<Client>, places: Places) -> Result<Box<dyn Dialect>> {
        match (self.major, self.minor) {
            (25, minor @ (4 | 10)) => Ok(Box::new(virt::Virt::new(client, places, minor))),
            (26.., _) => Ok(Box::new(container::Container::new(client, places))),
            _ => Err(
                Error::unsupported(format!("TrueNAS {} has no containers that can be driven", self.text))
                    .with_hint("25.04, 25.10 and 26 have them"),
            ),
        }
    }
}

/// What a capability lacks on every version.
fn never() -> Vec<(Capability, String)> {
    use Capability as C;
    let because = |capability, why: &str| (capability, why.to_owned());
    vec![
        because(
            C::DiskSize,
            "TrueNAS sets no size for a container's disk: set a quota on the pool's dataset by hand",
        ),
        because(
            C::Config,
            "TrueNAS takes no settings of containers but those that the language has words for",
        ),
        because(
            C::MemoryShare,
            "TrueNAS bounds memory by a size and not by a share: write one, such as `1GiB`",
        ),
        because(C::Target, "TrueNAS is no cluster: take `target` out"),
        because(
            C::EgressHost,
            "TrueNAS has no rules for what leaves a container: they stand inside, as best effort, with `enforce \"guest\"`",
        ),
        because(
            C::EgressNone,
            "TrueNAS has no rules for what leaves a container: they stand inside, as best effort, with `enforce \"guest\"`",
        ),
        because(C::Mounts, "TrueNAS is another machine: mounts are of this one"),
        because(C::Volumes, "volumes on TrueNAS come with a later version"),
        because(C::VolumeSize, "volumes on TrueNAS come with a later version"),
        because(
            C::Ports,
            "TrueNAS is another machine: its containers have addresses of their own, so reach the port there",
        ),
        because(
            C::FilesWhenStopped,
            "TrueNAS reaches the files of running containers only: they are mounted while one runs",
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_systems_write_them() {
        for (said, major, minor, text) in [
            ("TrueNAS-25.04.2.6", 25, 4, "25.04.2.6"),
            ("25.10.0-RC.1", 25, 10, "25.10.0-RC.1"),
            ("TrueNAS-SCALE-26.0.0-BETA.3", 26, 0, "26.0.0-BETA.3"),
        ] {
            let version = Version::read(said).expect(said);
            assert_eq!(
                (version.major, version.minor, version.text.as_str()),
                (major, minor, text)
            );
        }
        assert!(Version::read("master").is_none());
    }
}
