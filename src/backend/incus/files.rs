//! What the backend does with files: a session for each call.
//!
//! The daemon's SFTP server is confined to the instance's root, and serves stopped instances too.

use std::time::Duration;

use reqwest::header::HeaderMap;
use tokio::io::AsyncRead;
use tokio::time::sleep;

use super::Incus;
use super::disk::is_diskless;
use crate::backend::error::NoDisk;
use crate::backend::retry::{retry_lost, retry_when};
use crate::backend::sftp::{self, LOOK, Session, bounded};
use crate::backend::{Error, ErrorKind, FileChange, FileEntry, Result};
use crate::model::{GuestPath, Inspection, InstanceName, Mode, Owner, Query};

/// How long the daemon's helper stays when nobody asks it anything: 15 s (Incus, `main_forkfile.go`).
const HELPER_GOES: Duration = Duration::from_secs(16);
/// How many helpers are waited for.
const HELPERS: u32 = 3;

/// Whether the daemon's helper runs but has lost its socket. The daemon removes sockets by the number of an open
/// file that can mean another instance's folder by then, and after that every attempt fails and keeps the next
/// one from working, until there was none for as long as the helper stays. (Repaired after 6.0.4.)
fn is_deaf(error: &Error) -> bool {
    error.to_string().contains("forkfile.sock")
}

impl Incus {
    /// Opens a session. Not kept for the next call: an open one delays starts and snapshots by up to a second,
    /// and the daemon's helper, which costs most of the opening, lives on for a while by itself.
    async fn session(&self, name: &InstanceName) -> Result<Session> {
        let url = self.client.url(["instances", name.as_str(), "sftp"]);
        // Nothing is written yet, so all of this may be repeated.
        let open = || {
            retry_when(
                || async {
                    let (stream, _) = self.client.upgrade(&url, HeaderMap::new(), "sftp").await?;
                    Session::start(stream).await
                },
                |error| error.kind() == ErrorKind::Busy && !is_deaf(error),
            )
        };
        let mut left = HELPERS;
        loop {
            match open().await {
                Err(error) if is_deaf(&error) && left > 0 => {
                    tracing::debug!(instance = %name, %error, "waiting for the helper to go");
                    left -= 1;
                    sleep(HELPER_GOES).await;
                }
                answer => return answer,
            }
        }
    }

    pub(super) async fn inspect_files(&self, name: &InstanceName, query: &Query) -> Result<Inspection> {
        // A session where nothing is to be seen, too: it tells whether there is a disk.
        bounded(
            LOOK,
            retry_lost(|| async {
                let session = self.session(name).await?;
                sftp::inspect(&session, query).await
            }),
        )
        .await
        .map_err(|error| match is_diskless(&error) {
            true => error.with_source(NoDisk),
            false => error,
        })
    }

    pub(super) async fn write_files(&self, name: &InstanceName, changes: &[FileChange]) -> Result<Vec<bool>> {
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        let session = self.session(name).await?;
        let result = sftp::change(&session, changes).await;
        session.end().await;
        result
    }

    pub(super) async fn write_from(
        &self,
        name: &InstanceName,
        path: &GuestPath,
        content: &mut (dyn AsyncRead + Send + Unpin),
        mode: Mode,
        owner: Option<Owner>,
    ) -> Result<()> {
        let session = self.session(name).await?;
        let result = sftp::write_from(&session, path, content, mode, owner).await;
        session.end().await;
        result
    }

    /// The first bytes of a file. Links to it are followed, inside.
    pub(super) async fn read_file(
        &self,
        name: &InstanceName,
        path: &GuestPath,
        max_bytes: u64,
    ) -> Result<(Vec<u8>, bool)> {
        let attempt = || async {
            let session = self.session(name).await?;
            sftp::first_bytes(&session, path, max_bytes).await
        };
        retry_lost(attempt).await
    }

    /// What lies in a folder. Links to it are followed, inside; those in it are not.
    pub(super) async fn list_folder(
        &self,
        name: &InstanceName,
        path: &GuestPath,
        recursive: bool,
    ) -> Result<Vec<FileEntry>> {
        let attempt = || async {
            let session = self.session(name).await?;
            sftp::list_folder(&session, path, recursive).await
        };
        bounded(LOOK, retry_lost(attempt)).await
    }
}
