//! Locks between the tools on this machine: they end with the process that holds them.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use tokio::time::{Instant, sleep};

use crate::backend::{Error, ErrorKind, Result};

/// How long a lock is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// A lock that is held.
#[derive(Debug)]
pub(in crate::backend::local) struct Lock(File);

impl Lock {
    /// Takes a lock, alone or with others who share it, as soon as it is free.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] after a minute.
    pub(in crate::backend::local) async fn take(path: &Path, alone: bool, what: &str) -> Result<Self> {
        let end = Instant::now() + PATIENCE;
        let mut pause = Duration::from_micros(200);
        loop {
            let taken = Self::attempt(path, alone)
                .map_err(|source| super::failed(format!("cannot lock {}", path.display()), source))?;
            if let Some(lock) = taken {
                return Ok(lock);
            }
            if Instant::now() >= end {
                return Err(
                    Error::new(ErrorKind::Busy, format!("another operation is under way on {what}")).with_hint(
                        "it is over when the command that does it has ended: look for one that hangs, or was stopped",
                    ),
                );
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    /// One attempt; none where somebody else holds it.
    fn attempt(path: &Path, alone: bool) -> io::Result<Option<Self>> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        let how = match alone {
            true => FlockOperation::NonBlockingLockExclusive,
            false => FlockOperation::NonBlockingLockShared,
        };
        match flock(&file, how) {
            Err(Errno::WOULDBLOCK) => return Ok(None),
            answer => answer?,
        }
        // Whoever deletes a sandbox removes its lock: then this is nobody's any more.
        let current = match path.metadata() {
            Ok(current) => current,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let own = file.metadata()?;
        Ok((own.ino() == current.ino() && own.dev() == current.dev()).then_some(Self(file)))
    }

    /// Whether nobody holds it alone. Makes nothing.
    pub(in crate::backend::local) fn is_free(path: &Path) -> bool {
        File::open(path).is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockShared).is_ok())
    }

    /// Removes the file of a lock that is held alone: what it guarded is gone.
    pub(in crate::backend::local) fn remove(self, path: &Path) {
        // One that stays is an empty file and does no harm.
        let _ = std::fs::remove_file(path);
        drop(self.0);
    }
}
