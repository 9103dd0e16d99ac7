//! Reading a file, its blocks in flight side by side.

use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;

use super::packet::FOR_READING;
use super::session::{BLOCK, Failure, Handle, Session};

/// Blocks of one file in flight.
const WINDOW: usize = 16;

/// Gives the blocks of a regular file to `sink`, in order, to the end or until it answers `false`. `size` is
/// what is expected; a file that has grown or shrunk is read to its end all the same.
///
/// Only for what an LSTAT or STAT has just told to be a regular file: opening a FIFO would hang.
pub(super) async fn read_blocks(
    session: &Session,
    path: &[u8],
    size: u64,
    sink: impl FnMut(&[u8]) -> bool + Send,
) -> Result<(), Failure> {
    let handle = session.open(path, FOR_READING).await?;
    let result = blocks(session, &handle, size, sink).await;
    let closed = session.close(&handle).await;
    result.and(closed)
}

async fn blocks(
    session: &Session,
    handle: &Handle,
    size: u64,
    mut sink: impl FnMut(&[u8]) -> bool + Send,
) -> Result<(), Failure> {
    let mut pending = FuturesOrdered::new();
    // Read so far, and asked for so far.
    let (mut at, mut next) = (0_u64, 0_u64);
    loop {
        // One beyond the expected size, to see the end.
        while pending.len() < WINDOW && (next <= size || pending.is_empty()) {
            pending.push_back(session.read(handle, next));
            next += BLOCK as u64;
        }
        let Some(block) = pending.next().await else {
            return Ok(());
        };
        let block = block?;
        at += block.len() as u64;
        if block.is_empty() || !sink(&block) {
            return Ok(());
        }
        if block.len() < BLOCK {
            if at >= size {
                return Ok(());
            }
            // Shorter than asked and not the end: go on from here.
            pending = FuturesOrdered::new();
            next = at;
        }
    }
}
