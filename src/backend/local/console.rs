//! Interactive sessions: the sandbox has the terminal, and this side its other end.

use std::os::fd::OwnedFd;

use rustix::stdio::stdin;
use rustix::termios::{Winsize, tcgetwinsize, tcsetwinsize};
use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncWrite, copy};
use tokio::signal::unix::{SignalKind, signal};

use super::Local;
use super::helper::unexpected;
use super::state::failed;
use super::wire::{Reply, Request};
use crate::backend::{ConsoleOpts, Result, Streams};
use crate::model::InstanceName;

/// A login shell: that of the image, whichever it has.
const SHELL: [&str; 3] = [
    "/bin/sh",
    "-c",
    "if [ -x /bin/bash ]; then exec /bin/bash -l; else exec /bin/sh -l; fi",
];

impl Local {
    /// Opens a session and passes bytes on until it ends. The terminal follows the size of this process's own, where
    /// its standard input is one.
    pub(super) async fn session_at(
        &self,
        name: &InstanceName,
        opts: &ConsoleOpts,
        streams: Streams<'_>,
    ) -> Result<i32> {
        let command = match opts.command.is_empty() {
            true => SHELL.map(str::to_owned).to_vec(),
            false => opts.command.clone(),
        };
        let mut command = self.command(name, &command, &opts.account, &opts.env)?;
        command.terminal = Some(opts.size);
        let mut helper = self.helpers.ask(&Request::Exec(command)).await?;
        match helper.reply().await? {
            Reply::Ready => {}
            other => return Err(unexpected(&other)),
        }
        let terminal = Terminal(helper.descriptor().await?);
        let result = {
            let mut resized = signal(SignalKind::window_change())
                .map_err(|source| failed("cannot follow the terminal's size", source))?;
            let (typing, showing) = (terminal.feed(streams.stdin), terminal.show(streams.stdout));
            let end = helper.reply();
            tokio::pin!(typing, showing, end);
            let (mut typed, mut shown) = (false, false);
            let code = loop {
                tokio::select! {
                    reply = &mut end => match reply {
                        Ok(Reply::Code(code)) => break Ok(code),
                        Ok(other) => break Err(unexpected(&other)),
                        Err(error) => break Err(error),
                    },
                    () = &mut typing, if !typed => typed = true,
                    () = &mut showing, if !shown => shown = true,
                    _ = resized.recv() => terminal.follow(),
                }
            };
            if !shown {
                // What it said last; a process that it left behind may keep the terminal for ever.
                let _ = tokio::time::timeout(super::exec::LINGER, showing).await;
            }
            code
        };
        let _ = tokio::time::timeout(super::exec::END, helper.end()).await;
        result
    }
}

/// This side's end of a terminal.
struct Terminal(OwnedFd);

impl Terminal {
    /// Gives it the size of this process's own terminal.
    fn follow(&self) {
        if let Ok(size) = tcgetwinsize(stdin()) {
            let size = Winsize {
                ws_xpixel: 0,
                ws_ypixel: 0,
                ..size
            };
            let _ = tcsetwinsize(&self.0, size);
        }
    }

    /// Types what comes, until there is no more, or nobody reads.
    async fn feed(&self, from: Option<Box<dyn AsyncRead + Send + Unpin + '_>>) {
        if let Some((mut from, mut to)) = from.zip(self.file()) {
            let _ = copy(&mut from, &mut to).await;
        }
    }

    /// Shows what is said, until the last process lets go of the terminal.
    async fn show(&self, to: Option<Box<dyn AsyncWrite + Send + Unpin + '_>>) {
        if let Some((mut to, mut from)) = to.zip(self.file()) {
            let _ = copy(&mut from, &mut to).await;
        }
    }

    /// Its bytes. No terminal can be waited for without a thread of its own.
    fn file(&self) -> Option<File> {
        let own = self.0.try_clone().ok()?;
        Some(File::from_std(own.into()))
    }
}
