//! One SFTP session: requests in flight side by side, and a deadline on every reply.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::packet::{self as p, Attributes, Reply, Writer};
use crate::backend::{Error, ErrorKind, Fence, Result};

/// How long a reply may take. A guest can make the server wait for ever, by putting a FIFO where a file was.
const DEADLINE: Duration = Duration::from_secs(20);
/// How long the end of a session is waited for: no longer than it could save.
const LET_GO: Duration = Duration::from_secs(1);
/// Requests in flight. With blocks of 32 KiB, the memory of a session is bounded by about 1 MiB.
const IN_FLIGHT: usize = 32;
/// What the daemon's server gives per READ, at most.
pub(super) const BLOCK: usize = 32 * 1024;
/// Larger replies are no SFTP: the server bounds them by 256 KiB.
const LONGEST: u32 = 1024 * 1024;

/// What can go wrong with one request.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server's answer.
    Status { code: u32, message: String },
    /// No answer in time, or none at all any more.
    Session(Error),
}

impl Failure {
    pub(super) fn is_missing(&self) -> bool {
        match self {
            // Below something that is no folder, there is nothing either; the server has no code for that.
            Self::Status { code, message } => {
                *code == p::NO_SUCH_FILE
                    || message.ends_with("not a directory")
                    || message.ends_with("too many levels of symbolic links")
            }
            Self::Session(_) => false,
        }
    }

    /// Whether the server may not do that: in a container, root cannot look into what is another's on its host.
    pub(super) fn is_denied(&self) -> bool {
        matches!(
            self,
            Self::Status {
                code: p::PERMISSION_DENIED,
                ..
            }
        )
    }

    /// As the backend's error; `what` says what was tried.
    pub(super) fn within(self, what: impl std::fmt::Display) -> Error {
        match self {
            Self::Session(error) => error.within(what),
            Self::Status { code, message } => {
                let kind = match code {
                    p::NO_SUCH_FILE => ErrorKind::NotFound,
                    p::PERMISSION_DENIED => ErrorKind::Unauthorised,
                    _ => ErrorKind::Failed,
                };
                Error::new(kind, format!("{what}: {message}"))
            }
        }
    }
}

type Answer<T> = std::result::Result<T, Failure>;
/// Who waits for which reply; none once no reply can come any more.
type Waiting = Arc<Mutex<Option<HashMap<u32, oneshot::Sender<Reply>>>>>;

/// A handle of an open file or folder.
#[derive(Debug, Clone)]
pub(super) struct Handle(Vec<u8>);

/// An open session. Dropping it ends it.
pub(in crate::backend) struct Session {
    requests: mpsc::Sender<Vec<u8>>,
    waiting: Waiting,
    number: AtomicU32,
    in_flight: Semaphore,
    reader: JoinHandle<()>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Session {
    /// Says hello on a fresh connection.
    pub(in crate::backend) async fn start<S>(stream: S) -> Result<Self>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (mut from, mut to) = tokio::io::split(stream);
        let hello = async {
            // INIT has no number but the version in its place.
            to.write_all(&Writer::new(p::INIT, 3).finish()).await?;
            to.flush().await?;
            read_packet(&mut from).await
        };
        let hello = timeout(DEADLINE, hello).await.map_err(|_| late())?.map_err(lost)?;
        if hello.first() != Some(&p::VERSION) {
            return Err(Error::new(ErrorKind::Failed, "what answers does not speak SFTP"));
        }
        let waiting: Waiting = Arc::new(Mutex::new(Some(HashMap::new())));
        let (requests, mut queue) = mpsc::channel::<Vec<u8>>(IN_FLIGHT);
        let fence = Fence::current();
        tokio::spawn(async move {
            while let Some(mut bytes) = queue.recv().await {
                // What queued up meanwhile goes along in one write.
                while let Ok(more) = queue.try_recv() {
                    bytes.extend(more);
                }
                // Here, and not where they queue up: a process may be stopped in between.
                if let Some(fence) = &fence
                    && fence.pass().await.is_err()
                {
                    break;
                }
                if to.write_all(&bytes).await.is_err() || to.flush().await.is_err() {
                    return;
                }
            }
            // The end of our side makes the server end its own.
            let _ = to.shutdown().await;
        });
        let answered = waiting.clone();
        let reader = tokio::spawn(async move {
            while let Ok(packet) = read_packet(&mut from).await {
                let Ok((number, reply)) = p::parse(&packet) else { break };
                let waiter = answered
                    .lock()
                    .ok()
                    .and_then(|mut waiting| waiting.as_mut()?.remove(&number));
                if let Some(waiter) = waiter {
                    // Nobody waits any more: no matter.
                    let _ = waiter.send(reply);
                }
            }
            // Whoever still waits hears of the end at once.
            if let Ok(mut waiting) = answered.lock() {
                *waiting = None;
            }
        });
        Ok(Self {
            requests,
            waiting,
            number: AtomicU32::new(0),
            in_flight: Semaphore::new(IN_FLIGHT),
            reader,
        })
    }

    /// Ends the session and waits, for a moment, until the daemon has written everything to disk and let go of the
    /// connection. A start or snapshot that finds it still there would wait for a whole second.
    pub(in crate::backend) async fn end(mut self) {
        let (nowhere, _) = mpsc::channel(1);
        self.requests = nowhere;
        let _ = timeout(LET_GO, &mut self.reader).await;
    }

    async fn ask(&self, kind: u8, body: impl FnOnce(Writer) -> Writer) -> Answer<Reply> {
        let _permit = self.in_flight.acquire().await.map_err(|_| ended())?;
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        match self.waiting.lock().as_deref_mut() {
            Ok(Some(waiting)) => waiting.insert(number, sender),
            _ => return Err(ended()),
        };
        let packet = body(Writer::new(kind, number)).finish();
        let exchange = async {
            self.requests.send(packet).await.map_err(|_| ended())?;
            receiver.await.map_err(|_| ended())
        };
        timeout(DEADLINE, exchange)
            .await
            .map_err(|_| Failure::Session(late()))?
    }

    async fn status(&self, kind: u8, body: impl FnOnce(Writer) -> Writer) -> Answer<()> {
        match self.ask(kind, body).await? {
            Reply::Status { code: p::OK, .. } => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    async fn handle(&self, kind: u8, body: impl FnOnce(Writer) -> Writer) -> Answer<Handle> {
        match self.ask(kind, body).await? {
            Reply::Handle(handle) => Ok(Handle(handle)),
            other => Err(unexpected(other)),
        }
    }

    async fn attributes(&self, kind: u8, path: &[u8]) -> Answer<Option<Attributes>> {
        match self.ask(kind, |packet| packet.bytes(path)).await {
            Ok(Reply::Attributes(attributes)) => Ok(Some(attributes)),
            Ok(other) => match unexpected(other) {
                failure if failure.is_missing() => Ok(None),
                failure => Err(failure),
            },
            Err(failure) => Err(failure),
        }
    }

    /// What a path is; links are not followed. None where there is nothing.
    pub(super) async fn lstat(&self, path: &[u8]) -> Answer<Option<Attributes>> {
        self.attributes(p::LSTAT, path).await
    }

    /// What a path leads to. None where there is nothing.
    pub(super) async fn stat(&self, path: &[u8]) -> Answer<Option<Attributes>> {
        self.attributes(p::STAT, path).await
    }

    /// Opens a file. Attributes given here would be ignored by the server.
    pub(super) async fn open(&self, path: &[u8], flags: u32) -> Answer<Handle> {
        self.handle(p::OPEN, |packet| packet.bytes(path).u32(flags).no_attributes())
            .await
    }

    async fn open_folder(&self, path: &[u8]) -> Answer<Handle> {
        self.handle(p::OPENDIR, |packet| packet.bytes(path)).await
    }

    pub(super) async fn close(&self, handle: &Handle) -> Answer<()> {
        self.status(p::CLOSE, |packet| packet.bytes(&handle.0)).await
    }

    /// A block of at most [`BLOCK`] bytes; empty at the end.
    pub(super) async fn read(&self, handle: &Handle, offset: u64) -> Answer<Vec<u8>> {
        let reply = self
            .ask(p::READ, |packet| packet.bytes(&handle.0).u64(offset).u32(BLOCK as u32))
            .await?;
        match reply {
            Reply::Data(data) => Ok(data),
            Reply::Status { code: p::EOF, .. } => Ok(Vec::new()),
            other => Err(unexpected(other)),
        }
    }

    pub(super) async fn write(&self, handle: &Handle, offset: u64, block: &[u8]) -> Answer<()> {
        self.status(p::WRITE, |packet| packet.bytes(&handle.0).u64(offset).bytes(block))
            .await
    }

    /// Sets the owner, then the mode: in one request, the server would scramble them. By the handle, because by
    /// the path it would follow links.
    pub(super) async fn set_attributes(&self, handle: &Handle, owner: Option<(u32, u32)>, mode: u32) -> Answer<()> {
        let owner = async {
            match owner {
                Some((uid, gid)) => {
                    self.status(p::FSETSTAT, |packet| packet.bytes(&handle.0).owner(uid, gid))
                        .await
                }
                None => Ok(()),
            }
        };
        let mode = self.status(p::FSETSTAT, |packet| packet.bytes(&handle.0).mode(mode));
        tokio::try_join!(biased; owner, mode).map(drop)
    }

    /// What lies in a folder, by name; without `.` and `..`. Links are not followed. Where there is more than
    /// `most`, some more than that, and not all.
    pub(super) async fn list(&self, path: &[u8], most: usize) -> Answer<Vec<(Vec<u8>, Attributes)>> {
        let handle = self.open_folder(path).await?;
        let mut entries = Vec::new();
        let result = loop {
            match self.ask(p::READDIR, |packet| packet.bytes(&handle.0)).await {
                Ok(Reply::Names(names)) => {
                    entries.extend(names);
                    // And `.` and `..`.
                    if entries.len() > most.saturating_add(2) {
                        break Ok(());
                    }
                }
                Ok(Reply::Status { code: p::EOF, .. }) => break Ok(()),
                Ok(other) => break Err(unexpected(other)),
                Err(failure) => break Err(failure),
            }
        };
        let closed = self.close(&handle).await;
        result.and(closed)?;
        // A name with a `/` would lead elsewhere; no server sends one.
        entries.retain(|(name, _)| !matches!(name.as_slice(), b"" | b"." | b"..") && !name.contains(&b'/'));
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(entries)
    }

    /// Makes a folder. Attributes given here would be ignored by the server.
    pub(super) async fn make_folder(&self, path: &[u8]) -> Answer<()> {
        self.status(p::MKDIR, |packet| packet.bytes(path).no_attributes()).await
    }

    pub(super) async fn remove_folder(&self, path: &[u8]) -> Answer<()> {
        self.status(p::RMDIR, |packet| packet.bytes(path)).await
    }

    /// Removes anything but a folder that holds something; a link itself.
    pub(super) async fn remove(&self, path: &[u8]) -> Answer<()> {
        self.status(p::REMOVE, |packet| packet.bytes(path)).await
    }

    /// Makes a link. Target first, as OpenSSH and this server have it, and not as the draft says.
    pub(super) async fn make_link(&self, path: &[u8], target: &[u8]) -> Answer<()> {
        self.status(p::SYMLINK, |packet| packet.bytes(target).bytes(path)).await
    }

    pub(super) async fn read_link(&self, path: &[u8]) -> Answer<Vec<u8>> {
        match self.ask(p::READLINK, |packet| packet.bytes(path)).await? {
            Reply::Names(names) => Ok(names.into_iter().next().map(|(name, _)| name).unwrap_or_default()),
            other => Err(unexpected(other)),
        }
    }

    /// Puts one path in another's place at once (OpenSSH, `PROTOCOL`, section 4.3).
    pub(super) async fn rename_over(&self, from: &[u8], to: &[u8]) -> Answer<()> {
        self.status(p::EXTENDED, |packet| {
            packet.bytes(b"posix-rename@openssh.com").bytes(from).bytes(to)
        })
        .await
    }
}

async fn read_packet(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let length = from.read_u32().await?;
    if length > LONGEST {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "an SFTP packet that is too long",
        ));
    }
    let mut packet = vec![0; length as usize];
    from.read_exact(&mut packet).await?;
    Ok(packet)
}

fn unexpected(reply: Reply) -> Failure {
    match reply {
        Reply::Status { code, message } => Failure::Status { code, message },
        _ => Failure::Session(Error::new(
            ErrorKind::Failed,
            "an SFTP answer that does not fit the question",
        )),
    }
}

fn late() -> Error {
    Error::new(
        ErrorKind::Timeout,
        format!("no answer from its files in {} s", DEADLINE.as_secs()),
    )
}

fn lost(error: io::Error) -> Error {
    Error::new(ErrorKind::Unreachable, "the connection to its files broke off").with_source(error)
}

fn ended() -> Failure {
    Failure::Session(Error::new(
        ErrorKind::Unreachable,
        "the connection to its files broke off",
    ))
}
