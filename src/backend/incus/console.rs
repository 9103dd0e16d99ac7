//! Interactive sessions: one websocket for the terminal's bytes, both ways, and one for its size.

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use super::Incus;
use super::exec::{LINGER, secret};
use super::websocket::Socket;
use super::wire::{Config, ExecPost};
use crate::backend::marked::mark;
use crate::backend::options::ended;
use crate::backend::{ConsoleOpts, Result, Terminal};
use crate::model::InstanceName;

impl Incus {
    /// Opens a session and passes bytes on until it ends.
    pub(super) async fn session_at(
        &self,
        name: &InstanceName,
        opts: &ConsoleOpts,
        terminal: Terminal<'_>,
    ) -> Result<i32> {
        let command = opts.words();
        let mark = mark()?;
        let (width, height) = *terminal.size.borrow();
        let mut environment = Config::from([
            ("HOME".to_owned(), opts.account.home.clone()),
            ("USER".to_owned(), opts.account.name.clone()),
        ]);
        environment.extend(opts.env.clone());
        let body = ExecPost {
            command: &command,
            environment,
            interactive: true,
            wait_for_websocket: true,
            record_output: false,
            user: opts.account.owner.uid,
            group: opts.account.owner.gid,
            cwd: &opts.account.home,
            width,
            height,
        };
        let (id, fds) = self.announce(name, body, &mark).await?;
        let (bytes, control) = (secret(&fds, "0")?, secret(&fds, "control")?);
        // The command starts when both are connected.
        let (mut control, bytes) =
            tokio::try_join!(self.client.websocket(&id, control), self.client.websocket(&id, bytes))?;
        let Terminal {
            input,
            output,
            size,
            until,
        } = terminal;
        let (to, from) = bytes.split();
        let result = {
            let passing = pass(to, from, input, output);
            let following = follow(&mut control, size);
            let (end, ended) = (self.exit_code(&id), ended(until));
            tokio::pin!(passing, following, end, ended);
            let (mut passed, mut followed) = (false, false);
            let code = loop {
                tokio::select! {
                    code = &mut end => break code,
                    () = &mut passing, if !passed => passed = true,
                    () = &mut following, if !followed => followed = true,
                    error = &mut ended => break Err(error),
                }
            };
            if !passed && code.is_ok() {
                // What it said last; a process that it left behind may keep the terminal for ever.
                let _ = timeout(LINGER, passing).await;
            }
            code
        };
        if result.is_err() {
            self.end(name, &mark, &id, &mut control).await;
        }
        result
    }
}

/// Passes bytes on, both ways, until nothing is shown any more. The end of what is typed is not that of the session.
async fn pass(
    mut to: SplitSink<Socket, Message>,
    from: SplitStream<Socket>,
    input: Box<dyn AsyncRead + Send + Unpin + '_>,
    output: Box<dyn AsyncWrite + Send + Unpin + '_>,
) {
    let typing = async {
        feed(&mut to, input).await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = show(from, output) => {}
        () = typing => {}
    }
    // The daemon does not call the command ended before this side has let go, too.
    let _ = to.close().await;
}

/// Types what comes, until there is no more, or nobody reads.
async fn feed(to: &mut SplitSink<Socket, Message>, mut from: Box<dyn AsyncRead + Send + Unpin + '_>) {
    let mut buffer = vec![0; 4096];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if to.send(Message::binary(buffer[..count].to_vec())).await.is_err() {
            return;
        }
    }
}

/// Shows what is said, to its end: a text message or the closing of the websocket.
async fn show(mut from: SplitStream<Socket>, mut to: Box<dyn AsyncWrite + Send + Unpin + '_>) {
    while let Some(Ok(message)) = from.next().await {
        match message {
            Message::Binary(bytes) => match to.write_all(&bytes).await {
                Ok(()) if to.flush().await.is_ok() => {}
                _ => return,
            },
            Message::Text(_) | Message::Close(_) => return,
            _ => {}
        }
    }
}

/// Tells the size of the caller's terminal, again and again. Nothing is said the other way, but pings want to be
/// answered.
async fn follow(control: &mut Socket, mut size: watch::Receiver<(u16, u16)>) {
    loop {
        tokio::select! {
            changed = size.changed() => {
                if changed.is_err() {
                    return;
                }
                let (width, height) = *size.borrow_and_update();
                let args = json!({ "width": width.to_string(), "height": height.to_string() });
                let told = json!({ "command": "window-resize", "args": args });
                if control.send(Message::text(told.to_string())).await.is_err() {
                    return;
                }
            }
            message = control.next() => {
                if !matches!(message, Some(Ok(_))) {
                    return;
                }
            }
        }
    }
}
