//! The program's own streams, for bytes that pass through: of commands in sandboxes, and of their files.

use std::io;

use tokio::io::{AsyncReadExt as _, DuplexStream, duplex};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::view::{Channel, Output};

/// So many bytes are on their way at once.
const ROOM: usize = 64 << 10;

/// A stream of the program's, written to by a task of its own: a slow reader holds up nothing but the bytes meant
/// for it.
#[derive(Debug)]
pub(super) struct Outlet(JoinHandle<io::Result<()>>);

impl Outlet {
    /// The stream, and the end to write to.
    pub(super) fn open(output: &Output, channel: Channel) -> (DuplexStream, Self) {
        let (ours, mut theirs) = duplex(ROOM);
        let output = output.clone();
        let task = async move {
            let mut buffer = vec![0; ROOM];
            loop {
                let count = theirs.read(&mut buffer).await?;
                if count == 0 {
                    return Ok(());
                }
                let (output, bytes) = (output.clone(), buffer[..count].to_vec());
                // Nobody can wait for a pipe or a terminal of the program's without a thread.
                spawn_blocking(move || output.bytes(channel, &bytes))
                    .await
                    .map_err(io::Error::other)??;
            }
        };
        (ours, Self(tokio::spawn(task)))
    }

    /// Waits until all that was written has gone out. The end to write to must have been let go of.
    ///
    /// # Errors
    /// Whatever writing says; a reader that has gone away is a broken pipe.
    pub(super) async fn flush(self) -> io::Result<()> {
        self.0.await.map_err(io::Error::other)?
    }
}
