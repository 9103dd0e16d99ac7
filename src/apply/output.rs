//! A command's output as lines, while it runs.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;
use tokio::sync::mpsc::UnboundedSender;

use super::Stream;
use crate::model::Mask;

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

/// Sends what is written to it on, line by line and masked.
pub(super) struct Lines {
    stream: Stream,
    sender: UnboundedSender<(Stream, String)>,
    tail: Tail,
    mask: Mask,
    rest: Vec<u8>,
}

impl Lines {
    pub(super) fn new(stream: Stream, sender: UnboundedSender<(Stream, String)>, tail: Tail, mask: Mask) -> Self {
        Self {
            stream,
            sender,
            tail,
            mask,
            rest: Vec::new(),
        }
    }

    fn send(&self, line: &[u8]) {
        let line = self.mask.over(line.strip_suffix(b"\r").unwrap_or(line));
        self.tail.push(&line);
        self.tail.push(b"\n");
        // Nobody listens any more only when the whole apply is being dropped.
        let _ = self
            .sender
            .send((self.stream, String::from_utf8_lossy(&line).into_owned()));
    }
}

impl AsyncWrite for Lines {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        // A piece ends where no secret can go on.
        let enough = LINE + self.mask.longest();
        self.rest.extend_from_slice(bytes);
        loop {
            if let Some(end) = self.rest.iter().take(enough).position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                self.send(&line[..end]);
            } else if self.rest.len() >= enough {
                // All that begins in the piece ends in what is there.
                let (masked, length) = self.mask.over_first(&self.rest, LINE);
                self.rest.drain(..length);
                self.send(&masked);
            } else {
                return Poll::Ready(Ok(bytes.len()));
            }
        }
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tokio::io::AsyncWriteExt as _;

    use super::*;
    use crate::model::{SecretKey, Secrets};

    /// The lines that come of these writes while `hunter2` is a secret, and the tail.
    async fn lines(writes: &[Vec<u8>]) -> (Vec<String>, String) {
        let values = BTreeMap::from([("TOKEN".to_owned(), Arc::from(&b"hunter2\n"[..]))]);
        let mask = Secrets::new(values, SecretKey::new([0; SecretKey::BYTES])).mask();
        let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
        let tail = Tail::default();
        let mut out = Lines::new(Stream::Stdout, sender, tail.clone(), mask);
        for bytes in writes {
            out.write_all(bytes).await.expect("takes all");
        }
        drop(out);
        let mut lines = Vec::new();
        while let Some((_, line)) = receiver.recv().await {
            lines.push(line);
        }
        (lines, tail.text())
    }

    #[tokio::test]
    async fn many_secrets_in_one_long_line_are_masked_to_the_last() {
        let long = b"hunter2".repeat(3 * LINE / 7);
        for size in [LINE, 3_000, 100_000] {
            let writes: Vec<Vec<u8>> = long.chunks(size).map(<[u8]>::to_vec).collect();
            let (lines, tail) = lines(&writes).await;
            let whole = lines.concat() + &tail;
            assert!(
                whole.bytes().all(|byte| matches!(byte, b'*' | b'\n')),
                "{size}: {whole}"
            );
        }
    }

    #[tokio::test]
    async fn secrets_are_masked_wherever_a_write_or_a_piece_ends() {
        let said = lines(&[b"a hun".to_vec(), b"ter2 b\r\nc".to_vec()]).await;
        assert_eq!(
            said,
            (vec!["a *** b".to_owned(), "c".to_owned()], "a *** b\nc".to_owned())
        );
        for before in LINE - 10..LINE + 10 {
            let text = [vec![b'x'; before], b"hunter2yhunter2".to_vec(), vec![b'z'; LINE]].concat();
            for size in [1_000, 8_191, 100_000] {
                let writes: Vec<Vec<u8>> = text.chunks(size).map(<[u8]>::to_vec).collect();
                let (lines, tail) = lines(&writes).await;
                let whole = lines.concat();
                assert_eq!(whole.matches("***").count(), 2, "{before} {size}");
                assert_eq!(whole.len(), text.len() - 8, "{before} {size}");
                assert!(!tail.contains("hunter"), "{before} {size}");
            }
        }
    }
}
