//! What the backend does with files: a session for each call.

use std::collections::BTreeSet;
use std::future::Future;
use std::time::Duration;

use reqwest::header::HeaderMap;
use tokio::io::AsyncRead;
use tokio::time::{sleep, timeout};

use super::change::{Source, change, write};
use super::inspect::{entry, inspect, walk};
use super::packet::Kind;
use super::read::read_blocks;
use super::session::Session;
use crate::backend::incus::Incus;
use crate::backend::retry::{retry_lost, retry_when};
use crate::backend::{Error, ErrorKind, FileChange, FileEntry, Result};
use crate::model::{GuestPath, Inspection, InstanceName, Mode, Owner, Query};

/// How long looking at files may take, whatever a guest does to draw it out: minutes mean that it does.
const LOOK: Duration = Duration::from_secs(120);
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

/// Lets a look at files take so long and no longer.
async fn bounded<T>(patience: Duration, look: impl Future<Output = Result<T>> + Send) -> Result<T> {
    timeout(patience, look).await.unwrap_or_else(|_| {
        Err(Error::new(
            ErrorKind::Timeout,
            format!("it took longer than {} s", patience.as_secs()),
        ))
    })
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

    pub(in crate::backend::incus) async fn inspect_files(
        &self,
        name: &InstanceName,
        query: &Query,
    ) -> Result<Inspection> {
        if query.is_empty() {
            return Ok(Inspection::default());
        }
        bounded(
            LOOK,
            retry_lost(|| async {
                let session = self.session(name).await?;
                inspect(&session, query).await
            }),
        )
        .await
    }

    pub(in crate::backend::incus) async fn write_files(
        &self,
        name: &InstanceName,
        changes: &[FileChange],
    ) -> Result<Vec<bool>> {
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        let session = self.session(name).await?;
        let result = change(&session, changes).await;
        session.end().await;
        result
    }

    pub(in crate::backend::incus) async fn write_from(
        &self,
        name: &InstanceName,
        path: &GuestPath,
        content: &mut (dyn AsyncRead + Send + Unpin),
        mode: Mode,
        owner: Option<Owner>,
    ) -> Result<()> {
        let session = self.session(name).await?;
        let result = async {
            super::change::make_parent(&session, path, owner).await?;
            write(&session, path, Source::Stream(Box::new(content), None), mode, owner).await
        };
        let result = result.await;
        session.end().await;
        result.map(drop)
    }

    /// The first bytes of a file. Links to it are followed, inside.
    pub(in crate::backend::incus) async fn read_file(
        &self,
        name: &InstanceName,
        path: &GuestPath,
        max_bytes: u64,
    ) -> Result<(Vec<u8>, bool)> {
        let attempt = || async {
            let session = self.session(name).await?;
            first_bytes(&session, path, max_bytes).await
        };
        retry_lost(attempt).await
    }

    /// What lies in a folder. Links to it are followed, inside; those in it are not.
    pub(in crate::backend::incus) async fn list_folder(
        &self,
        name: &InstanceName,
        path: &GuestPath,
        recursive: bool,
    ) -> Result<Vec<FileEntry>> {
        let attempt = || async {
            let session = self.session(name).await?;
            let found = session.stat(path.as_str().as_bytes()).await;
            let found = found.map_err(|failure| failure.within("cannot look at it"))?;
            match found.map(|found| found.kind()) {
                None => return Err(Error::not_found("there is no such folder")),
                Some(Kind::Directory) => {}
                Some(_) => return Err(Error::new(ErrorKind::Invalid, "it is no folder")),
            }
            let entries = walk(&session, path, recursive, &BTreeSet::new()).await?;
            Ok(entries
                .into_iter()
                .map(|(path, attributes)| entry(&path, attributes))
                .collect())
        };
        bounded(LOOK, retry_lost(attempt)).await
    }
}

async fn first_bytes(session: &Session, path: &GuestPath, max_bytes: u64) -> Result<(Vec<u8>, bool)> {
    let bytes = path.as_str().as_bytes();
    let found = session
        .stat(bytes)
        .await
        .map_err(|failure| failure.within("cannot look at it"))?;
    let found = found.ok_or_else(|| Error::not_found("there is no such file"))?;
    if found.kind() != Kind::File {
        return Err(Error::new(ErrorKind::Invalid, "it is no regular file"));
    }
    let limit = usize::try_from(max_bytes).unwrap_or(usize::MAX);
    let mut content = Vec::new();
    let mut more = false;
    let wanted = found.size.min(max_bytes);
    read_blocks(session, bytes, wanted, |block| {
        let room = limit - content.len();
        more = block.len() > room;
        content.extend_from_slice(&block[..block.len().min(room)]);
        !more
    })
    .await
    .map_err(|failure| failure.within("cannot read it"))?;
    Ok((content, more))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_look_that_is_drawn_out_ends() {
        let endless = std::future::pending::<Result<()>>();
        assert_eq!(
            bounded(Duration::from_millis(20), endless)
                .await
                .expect_err("late")
                .kind(),
            ErrorKind::Timeout
        );
    }
}
