//! Snapshots: listing, taking, deleting and going back to them.

use reqwest::Method;

use super::Incus;
use super::operation::COPY;
use super::{convert, wire};
use crate::backend::retry::{retry, retry_when};
use crate::backend::{ErrorKind, Result, Stop};
use crate::model::{InstanceName, Snapshot, Status};

impl Incus {
    /// The snapshots of an instance, oldest first.
    pub(super) async fn read_snapshots(&self, name: &InstanceName) -> Result<Vec<Snapshot>> {
        let snapshots = self.snapshots_of(name.as_str()).await;
        let snapshots =
            snapshots.map_err(|error| error.within(format_args!("cannot list the snapshots of `{name}`")))?;
        if snapshots.is_empty() {
            // An empty list is also the daemon's answer where there is no such instance.
            self.fetch(name)
                .await
                .map_err(|error| error.within(format_args!("cannot list the snapshots of `{name}`")))?;
        }
        let mut snapshots = snapshots;
        snapshots.sort_by_cached_key(|snapshot| (convert::order(&snapshot.created_at), snapshot.name.clone()));
        Ok(snapshots.iter().map(convert::snapshot).collect())
    }

    /// Takes a snapshot of the disk; memory is not part of it.
    pub(super) async fn take_snapshot(&self, name: &InstanceName, label: &str) -> Result<()> {
        self.forget_inherited(name, label);
        let url = self.client.url(["instances", name.as_str(), "snapshots"]);
        let body = wire::SnapshotsPost {
            name: label,
            stateful: false,
            expires_at: convert::mark(label),
        };
        // Only what was refused as busy: a snapshot of which nothing was heard may be there.
        let again = |error: &crate::backend::Error| error.kind() == ErrorKind::Busy;
        let take = || self.client.act_within(COPY, Method::POST, &url, Some(&body), None);
        retry_when(take, again).await?;
        Ok(())
    }

    /// Deletes a snapshot.
    pub(super) async fn drop_snapshot(&self, name: &InstanceName, label: &str) -> Result<()> {
        self.forget_inherited(name, label);
        let url = self.client.url(["instances", name.as_str(), "snapshots", label]);
        let mut lost = false;
        loop {
            let answer = retry_when(
                || self.client.act(Method::DELETE, &url, None::<&()>, None),
                |error| error.kind() == ErrorKind::Busy,
            );
            match answer.await {
                Ok(_) => return Ok(()),
                // The one that was not heard of has worked.
                Err(error) if error.kind() == ErrorKind::NotFound && lost => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Unreachable && !lost => lost = true,
                Err(error) => return Err(error),
            }
        }
    }

    /// Puts the disk back. The daemon puts settings and labels back as well, so they are kept and written
    /// again: what they should be is for the caller to say.
    pub(super) async fn go_back(&self, name: &InstanceName, label: &str) -> Result<()> {
        let url = self.client.url(["instances", name.as_str()]);
        // Before anything is stopped.
        let snapshot = self.client.url(["instances", name.as_str(), "snapshots", label]);
        let _: (wire::Snapshot, _) = self.client.get(&snapshot).await?;
        let (before, _) = self.fetch(name).await?;
        let ran = matches!(convert::status(&before.status), Status::Running | Status::Frozen);
        if ran {
            self.power_off(name, Stop::Force).await?;
        }
        let body = serde_json::json!({ "restore": label });
        retry(|| self.client.act_within(COPY, Method::PUT, &url, Some(&body), None)).await?;
        retry(|| async {
            let (after, etag) = self.fetch(name).await?;
            let mut put = before.put.clone();
            // The daemon's own notes are about the disk that is there now.
            let is_note = |key: &str| key.starts_with("volatile.") || key.starts_with("image.");
            put.config.retain(|key, _| !is_note(key));
            put.config
                .extend(after.put.config.into_iter().filter(|(key, _)| is_note(key)));
            self.client.act(Method::PUT, &url, Some(&put), etag).await
        })
        .await?;
        if ran { self.power_on(name).await } else { Ok(()) }
    }

    fn forget_inherited(&self, name: &InstanceName, label: &str) {
        if let Ok(mut inherited) = self.inherited.lock() {
            inherited.remove(&(name.to_string(), label.to_owned()));
        }
    }
}
