//! Interactive sessions: the sandbox has the terminal, and this side its other end.

use std::os::fd::OwnedFd;

use rustix::io::ioctl_fionbio;
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, copy};
use tokio::net::unix::pipe;
use tokio::sync::watch;
use tokio::time::timeout;

use super::Local;
use super::exec::{END, LINGER};
use super::helper::unexpected;
use super::state::failed;
use super::wire::{Reply, Request};
use crate::backend::options::ended;
use crate::backend::{ConsoleOpts, Error, Result, Terminal};
use crate::model::InstanceName;

impl Local {
    /// Opens a session and passes bytes on until it ends.
    pub(super) async fn session_at(
        &self,
        name: &InstanceName,
        opts: &ConsoleOpts,
        terminal: Terminal<'_>,
    ) -> Result<i32> {
        let command = opts.words();
        let mut command = self.command(name, &command, &opts.account, &opts.env)?;
        command.terminal = Some(*terminal.size.borrow());
        let mut helper = self.helpers.ask(&Request::Exec(command)).await?;
        match helper.reply().await? {
            Reply::Ready => {}
            other => return Err(unexpected(&other)),
        }
        let far = Far::new(helper.descriptor().await?)?;
        let Terminal {
            input,
            output,
            size,
            until,
        } = terminal;
        let result = {
            let showing = far.show(output);
            let passing = async { tokio::join!(far.feed(input), far.follow(size)) };
            let (end, ended) = (helper.reply(), ended(until));
            tokio::pin!(showing, passing, end, ended);
            let (mut shown, mut passed) = (false, false);
            let code = loop {
                tokio::select! {
                    reply = &mut end => break match reply {
                        Ok(Reply::Code(code)) => Ok(code),
                        Ok(other) => Err(unexpected(&other)),
                        Err(error) => Err(error),
                    },
                    () = &mut showing, if !shown => shown = true,
                    _ = &mut passing, if !passed => passed = true,
                    error = &mut ended => break Err(error),
                }
            };
            if !shown && code.is_ok() {
                // What it said last; a process that it left behind may keep the terminal for ever.
                let _ = timeout(LINGER, showing).await;
            }
            code
        };
        let _ = timeout(END, helper.end()).await;
        result
    }
}

/// This side's end of the sandbox's terminal.
struct Far(OwnedFd);

impl Far {
    fn new(descriptor: OwnedFd) -> Result<Self> {
        // Nobody else has this end, so nobody minds.
        ioctl_fionbio(&descriptor, true).map_err(cannot)?;
        Ok(Self(descriptor))
    }

    /// Gives it the size of the caller's, again and again.
    async fn follow(&self, mut size: watch::Receiver<(u16, u16)>) {
        while size.changed().await.is_ok() {
            let (columns, rows) = *size.borrow_and_update();
            let size = Winsize {
                ws_col: columns,
                ws_row: rows,
                ws_xpixel: 0,
                ws_ypixel: 0,
            };
            let _ = tcsetwinsize(&self.0, size);
        }
    }

    /// Types what comes, until there is no more, or nobody reads.
    async fn feed(&self, mut from: Box<dyn AsyncRead + Send + Unpin + '_>) {
        let to = self.0.try_clone().and_then(pipe::Sender::from_owned_fd_unchecked);
        if let Ok(mut to) = to {
            let _ = copy(&mut from, &mut to).await;
        }
    }

    /// Shows what is said, until the last process lets go of the terminal, which reads as a failure.
    async fn show(&self, mut to: Box<dyn AsyncWrite + Send + Unpin + '_>) {
        let from = self.0.try_clone().and_then(pipe::Receiver::from_owned_fd_unchecked);
        if let Ok(mut from) = from {
            let _ = copy(&mut from, &mut to).await;
            let _ = to.flush().await;
        }
    }
}

fn cannot(source: rustix::io::Errno) -> Error {
    failed("cannot use the terminal", source)
}
