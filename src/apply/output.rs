//! A command's output as lines, while it runs.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;
use tokio::sync::mpsc::UnboundedSender;

use super::Stream;

/// Longer lines are cut into pieces of this many bytes.
const LINE: usize = 8 * 1024;

/// How many of the last bytes are kept for an error's message.
const TAIL: usize = 2 * 1024;

/// The end of what both streams wrote.
#[derive(Debug, Clone, Default)]
pub(super) struct Tail(Arc<Mutex<Vec<u8>>>);

impl Tail {
    pub(super) fn push(&self, bytes: &[u8]) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend_from_slice(bytes);
        let surplus = kept.len().saturating_sub(TAIL);
        kept.drain(..surplus);
    }

    pub(super) fn text(&self) -> String {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&kept).trim_end().to_owned()
    }
}

/// Sends what is written to it on, line by line.
pub(super) struct Lines {
    stream: Stream,
    sender: UnboundedSender<(Stream, String)>,
    tail: Tail,
    rest: Vec<u8>,
}

impl Lines {
    pub(super) fn new(stream: Stream, sender: UnboundedSender<(Stream, String)>, tail: Tail) -> Self {
        Self {
            stream,
            sender,
            tail,
            rest: Vec::new(),
        }
    }

    fn send(&self, line: &[u8]) {
        let line = String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line)).into_owned();
        // Nobody listens any more only when the whole apply is being dropped.
        let _ = self.sender.send((self.stream, line));
    }
}

impl AsyncWrite for Lines {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.tail.push(bytes);
        self.rest.extend_from_slice(bytes);
        while let Some(end) = self.rest.iter().take(LINE).position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            self.send(&line[..end]);
        }
        while self.rest.len() >= LINE {
            let piece: Vec<u8> = self.rest.drain(..LINE).collect();
            self.send(&piece);
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        if !self.rest.is_empty() {
            let rest = std::mem::take(&mut self.rest);
            self.send(&rest);
        }
    }
}
