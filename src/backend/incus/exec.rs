//! Commands inside running instances.
//!
//! One websocket per stream and one for control, as `interactive: false` wants it. The daemon could also keep
//! the output in files of its own for us to fetch and delete; that is more requests, leaves secrets on its disk
//! when we are interrupted, and cannot stream.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::OptionFuture;
use futures_util::{SinkExt as _, StreamExt as _};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::{self, Message};

use super::Incus;
use super::operation::started;
use super::websocket::{Listener, Socket};
use super::wire::{Config, Envelope, ExecPost};
use crate::backend::marked::{FIND_ALL, KILL_ALL, MARK, is_mark, mark};
use crate::backend::options::ended;
use crate::backend::retry::retry_when;
use crate::backend::{Account, Error, ErrorKind, Exec as _, ExecOpts, Result, Streams};
use crate::model::InstanceName;

/// How long output may keep coming after the command has ended: what it left behind may hold the streams.
pub(super) const LINGER: Duration = Duration::from_secs(2);
/// How long an end by force may take.
const END: Duration = Duration::from_secs(5);
/// How long the daemon takes to notice that a command's caller has gone (0.3 s on 6.0.4), in so many looks.
const NOTICE: Duration = Duration::from_millis(250);
const NOTICES: usize = 8;
/// SIGKILL.
const KILL: i32 = 9;
type Reader<'a> = Box<dyn AsyncRead + Send + Unpin + 'a>;
type Writer<'a> = Box<dyn AsyncWrite + Send + Unpin + 'a>;

impl Incus {
    /// Runs a command to its end and gives its exit code.
    pub(super) async fn execute(&self, name: &InstanceName, opts: &ExecOpts, streams: Streams<'_>) -> Result<i32> {
        let mark = mark()?;
        let (id, fds) = self.announce(name, post(opts, true), &mark).await?;
        let secret = |fd| secret(&fds, fd);
        let (stdin, stdout, stderr, control) = (secret("0")?, secret("1")?, secret("2")?, secret("control")?);
        // The command starts when all of them are connected.
        let (mut control, stdin, stdout, stderr) = tokio::try_join!(
            self.client.websocket(&id, control),
            self.client.websocket(&id, stdin),
            self.client.listen(&id, stdout),
            self.client.listen(&id, stderr),
        )?;

        let until = streams.until;
        let run = async {
            let output =
                async { tokio::try_join!(drain(stdout, streams.stdout), drain(stderr, streams.stderr)).map(drop) };
            let end = self.exit_code(&id);
            tokio::pin!(output, end);
            // A command need not read what it is given, so feeding it is never waited for.
            let feeding = OptionFuture::from(Some(feed(stdin, streams.stdin)));
            tokio::pin!(feeding);
            let (mut fed, mut drained, mut controlled) = (false, false, true);
            let code = loop {
                tokio::select! {
                    code = &mut end => break code?,
                    result = &mut output, if !drained => { result?; drained = true }
                    result = &mut feeding, if !fed => { result.transpose()?; fed = true }
                    // Nothing is said here, but pings want to be answered.
                    message = control.next(), if controlled => controlled = matches!(message, Some(Ok(_))),
                }
            };
            if !drained {
                tokio::select! {
                    result = &mut output => result?,
                    () = sleep(LINGER) => {}
                }
            }
            Ok(code)
        };
        let run = async {
            tokio::select! {
                result = run => result,
                error = ended(until) => Err(error),
            }
        };
        let result = match opts.timeout {
            None => run.await,
            Some(patience) => match timeout(patience, run).await {
                Ok(result) => result,
                Err(_) => Err(Error::new(
                    ErrorKind::Timeout,
                    format!(
                        "`{}` took longer than {} s",
                        opts.command.join(" "),
                        patience.as_secs_f64()
                    ),
                )),
            },
        };
        let result = match result {
            Err(error) if self.end(name, &mark, &id, &mut control).await => Err(error.settled()),
            result => result,
        };
        // Closing is a courtesy that nobody waits for.
        let _ = timeout(Duration::from_millis(100), control.close(None)).await;
        result
    }

    /// Waits for the end of a command, and gives its code.
    pub(super) async fn exit_code(&self, id: &str) -> Result<i32> {
        let operation = match self.client.wait(id).await {
            // So the daemon says of these codes, a shell's own included (Incus, `instance_exec.go`).
            Err(error) if error.to_string() == "Command not found" => return Ok(127),
            Err(error) if error.to_string() == "Command not executable" => return Ok(126),
            answer => answer?,
        };
        let code = operation
            .metadata
            .as_ref()
            .and_then(|metadata| metadata.get("return"))
            .and_then(Value::as_i64);
        code.and_then(|code| i32::try_from(code).ok())
            .ok_or_else(|| Error::new(ErrorKind::Failed, "the daemon did not say how the command ended"))
    }

    /// Ends a command: whatever went wrong, nothing of it must go on unseen. The daemon's signal reaches its first
    /// process only; the others would go on, and keep a package manager's lock, for example. Says whether all has ended.
    pub(super) async fn end(&self, name: &InstanceName, mark: &str, id: &str, control: &mut Socket) -> bool {
        let others = timeout(END, self.kill_all(name, mark)).await;
        if let Ok(Err(error)) = &others {
            tracing::debug!(instance = %name, %error, "cannot end what the command has started");
        }
        let signal = json!({ "command": "signal", "signal": KILL });
        let _ = control.send(Message::text(signal.to_string())).await;
        let first = timeout(END, self.client.wait(id)).await;
        matches!(others, Ok(Ok(()))) && first.is_ok_and(|waited| waited.is_ok())
    }

    /// Ends all processes of the command with that mark.
    async fn kill_all(&self, name: &InstanceName, mark: &str) -> Result<()> {
        let url = self.client.url(["instances", name.as_str(), "exec"]);
        let mark = format!("{MARK}={mark}");
        let opts = ExecOpts {
            command: ["/bin/sh", "-c", KILL_ALL, "sh", &mark].map(str::to_owned).to_vec(),
            account: Account {
                home: "/".to_owned(),
                ..Account::root()
            },
            env: Config::new(),
            timeout: None,
        };
        self.client
            .act(Method::POST, &url, Some(&post(&opts, false)), None)
            .await?;
        Ok(())
    }

    /// Ends the commands whose callers are gone: the daemon ends the first process of each, and the others go on.
    pub(super) async fn end_orphans(&self, name: &InstanceName) -> Result<()> {
        let opts = ExecOpts {
            command: ["/bin/sh", "-c", FIND_ALL].map(str::to_owned).to_vec(),
            account: Account {
                home: "/".to_owned(),
                ..Account::root()
            },
            env: Config::new(),
            timeout: Some(END),
        };
        let found = self.output(name, &opts).await?.stdout;
        let found = String::from_utf8_lossy(&found).into_owned();
        let marks: BTreeSet<&str> = found.lines().filter(|line| is_mark(line)).collect();
        if marks.is_empty() {
            return Ok(());
        }
        // Asked afterwards: whatever was found and has a caller is among them. The daemon takes a moment to notice that
        // one has gone.
        let mut orphans: Vec<&str> = Vec::new();
        for _ in 0..NOTICES {
            let operations = self.operations().await?;
            let has_caller = |mark: &str| {
                let metadata = operations.iter().filter_map(|operation| operation.metadata.as_ref());
                let mut called = metadata.filter_map(|metadata| metadata.get("environment")?.get(MARK)?.as_str());
                called.any(|called| called == mark)
            };
            orphans = marks.iter().copied().filter(|mark| !has_caller(mark)).collect();
            if orphans.len() == marks.len() {
                break;
            }
            sleep(NOTICE).await;
        }
        for mark in orphans {
            tracing::info!(instance = %name, "ending a command that another run has left");
            self.kill_all(name, mark).await?;
        }
        Ok(())
    }

    /// Asks for a command, and gives its operation and the secrets of its streams.
    pub(super) async fn announce(
        &self,
        name: &InstanceName,
        mut body: ExecPost<'_>,
        mark: &str,
    ) -> Result<(String, Value)> {
        let url = self.client.url(["instances", name.as_str(), "exec"]);
        body.environment.insert(MARK.to_owned(), mark.to_owned());
        let envelope: Envelope<Value> = retry_when(
            || self.client.change(Method::POST, &url, Some(&body), None),
            |error| error.kind() == ErrorKind::Busy,
        )
        .await?;
        let operation = started(envelope)?;
        let fds = operation
            .metadata
            .and_then(|mut metadata| metadata.get_mut("fds").map(Value::take));
        Ok((operation.id, fds.unwrap_or_default()))
    }

    /// Waits until commands run.
    pub(super) async fn accepts_commands(&self, name: &InstanceName, patience: Duration) -> Result<()> {
        let url = self.client.url(["instances", name.as_str(), "exec"]);
        let opts = ExecOpts {
            command: ["/bin/sh", "-c", ":"].map(str::to_owned).to_vec(),
            account: Account {
                home: "/".to_owned(),
                ..Account::root()
            },
            env: Config::new(),
            timeout: None,
        };
        let body = post(&opts, false);
        let hopeless = |error: &Error| matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Unauthorised);
        let attempt = || async {
            let metadata = self.client.act(Method::POST, &url, Some(&body), None).await?;
            match metadata.get("return").and_then(Value::as_i64) {
                Some(0) => Ok(()),
                code => Err(Error::new(
                    ErrorKind::Failed,
                    format!("a first command ended with {code:?}"),
                )),
            }
        };
        let mut last = None;
        let waiting = async {
            loop {
                // What does not run yet, or has no shell yet, may a moment later.
                match retry_when(attempt, |error| !hopeless(error)).await {
                    Err(error) if !hopeless(&error) => last = Some(error),
                    answer => return answer,
                }
            }
        };
        match timeout(patience, waiting).await {
            Ok(answer) => answer,
            Err(_) => {
                let late = Error::new(
                    ErrorKind::Timeout,
                    format!("no command ran within {} s", patience.as_secs_f64()),
                );
                Err(match last {
                    Some(error) => late.with_source(error),
                    None => late,
                })
            }
        }
    }
}

/// The secret of one of a command's streams.
pub(super) fn secret<'a>(fds: &'a Value, fd: &str) -> Result<&'a str> {
    fds.get(fd).and_then(Value::as_str).ok_or_else(|| {
        Error::new(
            ErrorKind::Failed,
            format!("the daemon opened no stream {fd} for the command"),
        )
    })
}

fn post(opts: &ExecOpts, websockets: bool) -> ExecPost<'_> {
    let account = &opts.account;
    let mut environment = Config::from([
        ("HOME".to_owned(), account.home.clone()),
        ("USER".to_owned(), account.name.clone()),
    ]);
    environment.extend(opts.env.clone());
    ExecPost {
        command: &opts.command,
        environment,
        interactive: false,
        wait_for_websocket: websockets,
        record_output: false,
        user: account.owner.uid,
        group: account.owner.gid,
        cwd: &account.home,
        width: 0,
        height: 0,
    }
}

/// Sends what there is to read, then an empty text, which is the end.
async fn feed(mut socket: Socket, from: Option<Reader<'_>>) -> Result<()> {
    if let Some(mut from) = from {
        let mut buffer = vec![0; 32 * 1024];
        loop {
            let read = from.read(&mut buffer).await;
            let count =
                read.map_err(|error| Error::new(ErrorKind::Failed, "cannot read its input").with_source(error))?;
            if count == 0 {
                break;
            }
            if socket.send(Message::binary(buffer[..count].to_vec())).await.is_err() {
                // It has ended, or closed its input: no failure.
                return Ok(());
            }
        }
    }
    let _ = socket.send(Message::text("")).await;
    // What the daemon says here means nothing, but has to be read for its pings to be answered.
    while let Some(Ok(_)) = socket.next().await {}
    Ok(())
}

/// Writes what comes, to its end: a text message or the closing of the websocket.
async fn drain(mut socket: Listener, mut to: Option<Writer<'_>>) -> Result<()> {
    let lost =
        |error: tungstenite::Error| Error::new(ErrorKind::Unreachable, "its output broke off").with_source(error);
    let unwritten =
        |error: std::io::Error| Error::new(ErrorKind::Failed, "cannot pass on its output").with_source(error);
    loop {
        match socket.next().await {
            Some(Ok(Message::Binary(bytes))) => {
                if let Some(to) = &mut to {
                    to.write_all(&bytes).await.map_err(unwritten)?;
                    to.flush().await.map_err(unwritten)?;
                }
            }
            None | Some(Ok(Message::Text(_) | Message::Close(_))) => break,
            Some(Err(tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed)) => break,
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(lost(error)),
        }
    }
    Ok(())
}
