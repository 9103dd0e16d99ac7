//! The outer end: starting helpers, and talking to them.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::sync::OnceCell;

use super::ids::Ids;
use super::inside::ENTRY;
use super::state::failed;
use super::wire::{LONGEST, Reply, Request};
use crate::backend::{Error, ErrorKind, Result};

/// This program, whatever its file is called by now.
pub(super) const OWN: &str = "/proc/self/exe";

/// What starts helpers.
#[derive(Debug)]
pub(super) struct Helpers {
    /// The program that has [`ENTRY`].
    program: PathBuf,
    /// Its file where nobody can write to it, for all helpers but the one that gives it; where root inside could
    /// be who owns it.
    protected: Option<OnceCell<OwnedFd>>,
}

/// A helper at work.
#[derive(Debug)]
pub(super) struct Helper {
    stream: UnixStream,
    /// Its process; taken to have its streams.
    pub(super) child: Child,
}

impl Helpers {
    pub(super) fn new(program: PathBuf, ids: Ids) -> Self {
        Self {
            program,
            protected: (!ids.is_root()).then(OnceCell::new),
        }
    }

    /// Starts one whose output nobody needs, and sends the request.
    pub(super) async fn ask(&self, request: &Request) -> Result<Helper> {
        self.start(request, Stdio::null(), Stdio::null()).await
    }

    /// Does a task to its end.
    pub(super) async fn perform(&self, request: &Request) -> Result<()> {
        let mut helper = self.ask(request).await?;
        match helper.reply().await? {
            Reply::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Starts one with these streams.
    pub(super) async fn start(&self, request: &Request, stdout: Stdio, stderr: Stdio) -> Result<Helper> {
        let Some(protected) = &self.protected else {
            return launch(&self.program, request, stdout, stderr).await;
        };
        let program = protected.get_or_try_init(|| self.protect()).await?;
        // The one that is started has a copy until it has become the program.
        let program = PathBuf::from(format!("/proc/self/fd/{}", program.as_raw_fd()));
        launch(&program, request, stdout, stderr).await
    }

    async fn protect(&self) -> Result<OwnedFd> {
        let mut helper = launch(&self.program, &Request::Program, Stdio::null(), Stdio::null()).await?;
        let answer = match helper.reply().await? {
            Reply::Ready => helper.descriptor().await,
            other => Err(unexpected(&other)),
        };
        helper.end().await;
        answer
    }
}

async fn launch(program: &Path, request: &Request, stdout: Stdio, stderr: Stdio) -> Result<Helper> {
    let cannot = |source| failed("cannot start a helper", source);
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(cannot)?;
    ours.set_nonblocking(true).map_err(cannot)?;
    let mut command = Command::new(program);
    command
        .arg0("sbx-apply")
        .arg(ENTRY)
        .env_clear()
        .current_dir("/")
        // What is typed on the tool's terminal, Ctrl-C above all, is the tool's to decide on.
        .process_group(0)
        .stdin(OwnedFd::from(theirs))
        .stdout(stdout)
        .stderr(stderr);
    let child = command.spawn().map_err(cannot)?;
    // The command keeps its copies of the streams open for as long as it is there.
    drop(command);
    let mut helper = Helper {
        stream: UnixStream::from_std(ours).map_err(cannot)?,
        child,
    };
    helper.send(request).await?;
    Ok(helper)
}

impl Helper {
    /// Sends a value.
    pub(super) async fn send(&mut self, value: &impl Serialize) -> Result<()> {
        let bytes = serde_json::to_vec(value).map_err(|error| failed("cannot ask a helper", error))?;
        self.send_bytes(&bytes).await
    }

    /// Sends bytes.
    pub(super) async fn send_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        let length = u32::try_from(bytes.len()).map_err(|_| gone())?;
        self.stream.write_all(&length.to_le_bytes()).await.map_err(|_| gone())?;
        self.stream.write_all(bytes).await.map_err(|_| gone())
    }

    /// The next answer; a failure is an error.
    pub(super) async fn reply(&mut self) -> Result<Reply> {
        match self.receive().await? {
            Reply::Failed { kind, message } => Err(Reply::error(kind, message)),
            reply => Ok(reply),
        }
    }

    /// The next value.
    pub(super) async fn receive<T: DeserializeOwned>(&mut self) -> Result<T> {
        let bytes = self.bytes().await?;
        serde_json::from_slice(&bytes).map_err(|error| failed("a helper does not make sense", error))
    }

    /// The next bytes.
    pub(super) async fn bytes(&mut self) -> Result<Vec<u8>> {
        let length = self.stream.read_u32_le().await.map_err(|_| gone())? as usize;
        if length > LONGEST {
            return Err(Error::new(ErrorKind::Failed, "a helper says too much at once"));
        }
        let mut bytes = vec![0; length];
        self.stream.read_exact(&mut bytes).await.map_err(|_| gone())?;
        Ok(bytes)
    }

    /// Sends a descriptor.
    pub(super) async fn send_descriptor(&self, descriptor: BorrowedFd<'_>) -> Result<()> {
        let send = || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            let descriptors = [descriptor];
            control.push(SendAncillaryMessage::ScmRights(&descriptors));
            Ok(sendmsg(
                self.stream.as_fd(),
                &[IoSlice::new(&[0])],
                &mut control,
                SendFlags::empty(),
            )?)
        };
        let sent = self.stream.async_io(tokio::io::Interest::WRITABLE, send).await;
        sent.map(drop).map_err(|_| gone())
    }

    /// A descriptor that comes between two frames.
    pub(super) async fn descriptor(&self) -> Result<OwnedFd> {
        let receive = || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut byte = [0];
            let mut buffers = [std::io::IoSliceMut::new(&mut byte)];
            recvmsg(self.stream.as_fd(), &mut buffers, &mut control, RecvFlags::CMSG_CLOEXEC)?;
            Ok(control.drain().find_map(|message| match message {
                RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
                _ => None,
            }))
        };
        let received = self.stream.async_io(tokio::io::Interest::READABLE, receive).await;
        received.ok().flatten().ok_or_else(gone)
    }

    /// Lets it go, which ends what it does, and waits until it is gone.
    pub(super) async fn end(self) {
        let Self { stream, mut child } = self;
        drop(stream);
        let _ = child.wait().await;
    }
}

/// An answer to another question.
pub(super) fn unexpected(reply: &Reply) -> Error {
    Error::new(
        ErrorKind::Failed,
        format!("a helper gave an unexpected answer: {reply:?}"),
    )
}

fn gone() -> Error {
    Error::new(ErrorKind::Failed, "a helper ended before it was done")
}
