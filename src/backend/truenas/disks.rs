//! Disks that outlive their instances.
//!
//! 26 lets go of a container first and deletes its dataset then, and where that fails it says nothing. What is left stands
//! in the way of the next instance of that name. So a dataset that is to go is marked as that before its container is
//! let go of, and looked for afterwards; whoever finds a marked one that no container has finishes what was begun. Nothing
//! else there is touched, but for what is left of a clone: a dataset of a snapshot of the same source.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::TrueNas;
use super::convert;
use super::dialect::Machine;
use super::notes::value_of;
use crate::backend::retry::retry_when;
use crate::backend::{Error, ErrorKind, Result};

/// Key of the mark. Its value is the dataset itself: those below it inherit the mark, and 26 says of every one that it is
/// its own.
const DELETING: &str = "deleting";

/// A dataset, as far as it matters.
#[derive(Debug, Deserialize)]
struct Disk {
    id: String,
    #[serde(default)]
    origin: Value,
    #[serde(default)]
    user_properties: BTreeMap<String, Value>,
}

impl Disk {
    /// Whether somebody has begun to delete it with its instance.
    fn is_marked(&self) -> bool {
        let values = self.user_properties.iter();
        let values = values.filter_map(|(name, value)| Some((name, value_of(value)?)));
        convert::texts(values).get(DELETING) == Some(&self.id)
    }

    /// Whether it is a clone of a snapshot of that dataset.
    fn is_of(&self, dataset: &str) -> bool {
        let rest = value_of(&self.origin).and_then(|origin| origin.strip_prefix(dataset));
        rest.is_some_and(|rest| rest.starts_with('@'))
    }
}

impl TrueNas {
    async fn disks(&self, filter: Value) -> Result<Vec<Disk>> {
        let query = json!([[filter], { "extra": { "retrieve_children": false } }]);
        self.client.read("pool.dataset.query", query).await
    }

    async fn disk(&self, dataset: &str) -> Result<Option<Disk>> {
        Ok(self.disks(json!(["id", "=", dataset])).await?.into_iter().next())
    }

    /// Deletes a dataset that has neither children nor snapshots, and sees to it that it is gone.
    pub(super) async fn delete_dataset(&self, dataset: &str) -> Result<()> {
        let params = json!([dataset, { "recursive": false, "force": false }]);
        self.client.change("pool.dataset.delete", params).await?;
        if self.dialect.tells_failed_deletions() || self.disk(dataset).await?.is_none() {
            return Ok(());
        }
        Err(still_there(dataset))
    }

    /// Marks the disk of an instance that is about to be deleted.
    pub(super) async fn mark_disk(&self, machine: &Machine) -> Result<()> {
        let mark = BTreeMap::from([(DELETING.to_owned(), machine.dataset.clone())]);
        let mark: Vec<Value> = convert::properties(&mark)
            .into_iter()
            .map(|(key, value)| json!({ "key": key, "value": value }))
            .collect();
        let params = json!([machine.dataset, { "user_properties_update": mark }]);
        match self.client.change("pool.dataset.update", params).await {
            Err(error) if matches!(error.kind(), ErrorKind::Unreachable | ErrorKind::Unauthorised) => Err(error),
            // It helps whoever comes after somebody who was stopped, and no more.
            Err(error) => {
                tracing::debug!(dataset = machine.dataset, %error, "cannot mark a disk that is to go");
                Ok(())
            }
            Ok(_) => Ok(()),
        }
    }

    /// Deletes what is still there of the disk of an instance that is gone.
    pub(super) async fn drop_rest(&self, machine: &Machine) -> Result<()> {
        match self.disk(&machine.dataset).await? {
            Some(_) => self.drop_disk(&machine.dataset).await,
            None => Ok(()),
        }
    }

    /// Deletes the disk of an instance that is gone, with its snapshots.
    pub(super) async fn drop_disk(&self, dataset: &str) -> Result<()> {
        let attempt = || async {
            let dropped = async {
                self.drop_snapshots(dataset).await?;
                self.delete_dataset(dataset).await
            };
            match dropped.await {
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
                answer => answer,
            }
        };
        // Whoever takes snapshots by the clock may do so in between.
        let again = |error: &Error| !matches!(error.kind(), ErrorKind::Unreachable | ErrorKind::Unauthorised);
        let dropped = retry_when(attempt, again).await;
        dropped.map_err(|error| error.within(format_args!("cannot delete the disk `{dataset}`")))
    }

    /// Makes room for the disk of a new instance: deletes what a deletion, or the making of a clone of that source, has left
    /// there. Anything else stays, and is refused.
    pub(super) async fn make_room(&self, name: &str, source: Option<&Machine>) -> Result<()> {
        let Some(folder) = self.dialect.folder_of_disks().await? else {
            return Ok(());
        };
        // A clone goes where its source is.
        let of_source = source.and_then(|source| source.dataset.rsplit_once('/'));
        let folder = of_source.map_or(folder.as_str(), |(folder, _)| folder);
        let Some(disk) = self.disk(&format!("{folder}/{name}")).await? else {
            return Ok(());
        };
        if self.is_taken(&disk).await? {
            // Whoever makes the instance is told so.
            return Ok(());
        }
        if disk.is_marked() {
            tracing::info!(dataset = disk.id, "finishing a deletion that was begun");
            return self.drop_disk(&disk.id).await;
        }
        if source.is_some_and(|source| disk.is_of(&source.dataset)) {
            tracing::info!(dataset = disk.id, "deleting the disk of a clone that was not finished");
            return self.delete_dataset(&disk.id).await;
        }
        let message = format!(
            "the dataset `{}` stands in the way: no container has it, and sbx-apply is not known to have left it",
            disk.id
        );
        Err(Error::new(ErrorKind::AlreadyExists, message)
            .with_hint("rename or delete it in the web interface, or give the sandbox another name"))
    }

    /// Finishes the deletions of disks that others have begun, of instances that somebody is concerned with.
    pub(super) async fn finish_deletions(&self, concerns: impl Fn(&str) -> bool) -> Result<()> {
        let Some(folder) = self.dialect.folder_of_disks().await? else {
            return Ok(());
        };
        for disk in self.disks(json!(["id", "^", format!("{folder}/")])).await? {
            let name = disk.id.strip_prefix(&folder).map(|name| name.trim_start_matches('/'));
            if name.is_some_and(&concerns) && disk.is_marked() && !self.is_taken(&disk).await? {
                tracing::info!(dataset = disk.id, "finishing a deletion that was begun");
                self.drop_disk(&disk.id).await?;
            }
        }
        Ok(())
    }

    /// Whether an instance has it.
    async fn is_taken(&self, disk: &Disk) -> Result<bool> {
        let machines = self.dialect.machines().await?;
        Ok(machines.iter().any(|machine| machine.dataset == disk.id))
    }
}

/// Busy, because that is what it mostly is: something has it mounted, and lets go of it.
fn still_there(dataset: &str) -> Error {
    Error::new(
        ErrorKind::Busy,
        format!("TrueNAS says that the dataset `{dataset}` is deleted, and it is still there"),
    )
    .with_hint("look what uses it on the system, such as a share or a shell in its folder")
}
