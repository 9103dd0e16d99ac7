//! One SSH connection into a sandbox.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use russh::client::{self, Handle, Msg};
use russh::keys::{PrivateKey, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate};
use russh::{Channel, ChannelMsg, Disconnect, Sig};
use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::script;
use crate::backend::kept::Kept;
use crate::backend::{Error, ErrorKind, Output, Result, Streams, Terminal, sftp};

/// How long a connection may take to be there, and to be let in.
const CONNECT: Duration = Duration::from_secs(10);
const LOGIN: Duration = Duration::from_secs(20);
/// Channels at once: OpenSSH allows ten on a connection, and two are kept for ending what went wrong.
const CHANNELS: usize = 8;
/// How long output may keep coming after the command has ended: what it left behind may hold the streams.
const LINGER: Duration = Duration::from_secs(2);
/// OpenSSH's number for standard error (RFC 4254, section 5.2).
const STDERR: u32 = 1;

type Writer<'a> = Box<dyn AsyncWrite + Send + Unpin + 'a>;

/// What is presented, held against what is expected.
struct Check {
    /// The key that it must be; any where it is not known yet.
    expected: Option<PublicKey>,
    seen: Arc<Mutex<Option<PublicKey>>>,
}

impl client::Handler for Check {
    type Error = russh::Error;

    async fn check_server_key(&mut self, presented: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        let PublicKeyOrCertificate::PublicKey { key, .. } = presented else {
            return Ok(false);
        };
        if let Ok(mut seen) = self.seen.lock() {
            *seen = Some(key.clone());
        }
        let good = |expected: &PublicKey| expected.key_data() == key.key_data();
        Ok(self.expected.as_ref().is_none_or(good))
    }
}

/// An open connection, logged in as root.
pub(in crate::backend::truenas) struct Session {
    handle: Handle<Check>,
    channels: Semaphore,
    /// The key that the other side has proved to have.
    pub(super) host_key: PublicKey,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

impl Session {
    /// Connects and logs in. The other side has to have the host key, where one is given.
    ///
    /// # Errors
    /// [`ErrorKind::Unreachable`] where nobody listens, or not yet; [`ErrorKind::Unauthorised`] where it is somebody else,
    /// or the key does not open it.
    pub(super) async fn open(
        host: &str,
        port: u16,
        key: &Arc<PrivateKey>,
        expected: Option<PublicKey>,
    ) -> Result<Self> {
        let unreachable = || Error::new(ErrorKind::Unreachable, format!("no SSH server answers at {host}"));
        let stream = timeout(CONNECT, TcpStream::connect((host, port))).await;
        let stream = stream.map_err(|_| unreachable())?;
        let stream = stream.map_err(|error| unreachable().with_source(error))?;
        stream.set_nodelay(true).ok();
        let mut config = client::Config {
            keepalive_interval: Some(Duration::from_secs(15)),
            keepalive_max: 4,
            ..client::Config::default()
        };
        if let Some(expected) = &expected {
            // Another of its keys would not be the one that is known.
            config.preferred.key = vec![expected.algorithm()].into();
        }
        let seen = Arc::new(Mutex::new(None));
        let check = Check {
            expected,
            seen: seen.clone(),
        };
        let connecting = timeout(LOGIN, client::connect_stream(Arc::new(config), stream, check)).await;
        let mut handle = match connecting.map_err(|_| unreachable())? {
            Ok(handle) => handle,
            Err(russh::Error::UnknownKey) => return Err(another(host)),
            Err(russh::Error::NoCommonAlgo { .. }) => {
                return Err(Error::new(
                    ErrorKind::Unauthorised,
                    format!("the SSH server at {host} has no key of a kind that is known"),
                ));
            }
            Err(error) => return Err(unreachable().with_source(error)),
        };
        let key = PrivateKeyWithHashAlg::new(key.clone(), None);
        let accepted = timeout(LOGIN, handle.authenticate_publickey("root", key)).await;
        let accepted = accepted
            .map_err(|_| unreachable())?
            .map_err(|error| unreachable().with_source(error))?;
        if !accepted.success() {
            return Err(Error::new(
                ErrorKind::Unauthorised,
                format!("the SSH server at {host} does not let the environment's key in"),
            )
            .with_hint("is it still in /root/.ssh/authorized_keys, and may root log in by key?"));
        }
        let host_key = seen.lock().ok().and_then(|mut seen| seen.take());
        Ok(Self {
            handle,
            channels: Semaphore::new(CHANNELS),
            host_key: host_key.ok_or_else(unreachable)?,
        })
    }

    /// Whether it can still be used.
    pub(super) fn is_open(&self) -> bool {
        !self.handle.is_closed()
    }

    async fn channel(&self) -> Result<Channel<Msg>> {
        let opening = timeout(LOGIN, self.handle.channel_open_session()).await;
        opening.map_err(|_| lost())?.map_err(|error| lost().with_source(error))
    }

    /// Runs what a prelude says, with streams, to its end. Gives its exit code, 128 + N after signal N.
    pub(in crate::backend::truenas) async fn run(&self, prelude: &str, streams: Streams<'_>) -> Result<i32> {
        let _permit = self.channels.acquire().await.map_err(|_| lost())?;
        self.run_aside(prelude, streams).await
    }

    /// The same where everything else may wait for it.
    pub(super) async fn run_aside(&self, prelude: &str, streams: Streams<'_>) -> Result<i32> {
        let channel = self.channel().await?;
        let text = script::from_input(prelude.len());
        channel
            .exec(true, text)
            .await
            .map_err(|error| lost().with_source(error))?;
        let (mut from, to) = channel.split();
        let feeding = async {
            // What has ended need not read what it is given.
            if to.data_bytes(prelude.as_bytes().to_vec()).await.is_err() {
                return Ok(());
            }
            if let Some(mut stdin) = streams.stdin {
                let mut buffer = vec![0; 32 * 1024];
                loop {
                    let read = stdin.read(&mut buffer).await;
                    let count = read
                        .map_err(|error| Error::new(ErrorKind::Failed, "cannot read its input").with_source(error))?;
                    if count == 0 || to.data_bytes(buffer[..count].to_vec()).await.is_err() {
                        break;
                    }
                }
            }
            let _ = to.eof().await;
            Ok::<_, Error>(())
        };
        let (mut stdout, mut stderr) = (streams.stdout, streams.stderr);
        let hearing = async {
            let mut code = None;
            loop {
                let message = match code {
                    None => from.wait().await,
                    Some(_) => match timeout(LINGER, from.wait()).await {
                        Ok(message) => message,
                        Err(_) => break,
                    },
                };
                match message {
                    Some(ChannelMsg::Data { data }) => pass_on(&mut stdout, &data).await?,
                    Some(ChannelMsg::ExtendedData { data, ext: STDERR }) => pass_on(&mut stderr, &data).await?,
                    Some(ChannelMsg::Failure) => {
                        return Err(Error::new(ErrorKind::Failed, "the SSH server runs no commands"));
                    }
                    Some(message) => match ended(&message) {
                        Some(how) => code = Some(how),
                        None if matches!(message, ChannelMsg::Close) => break,
                        None => {}
                    },
                    None => break,
                }
            }
            code.ok_or_else(lost)
        };
        tokio::pin!(feeding, hearing);
        let mut fed = false;
        let result = loop {
            tokio::select! {
                code = &mut hearing => break code,
                answer = &mut feeding, if !fed => match answer {
                    Ok(()) => fed = true,
                    Err(error) => break Err(error),
                },
            }
        };
        let _ = timeout(Duration::from_millis(100), to.close()).await;
        result
    }

    /// Runs what a prelude says, and gives what it said.
    pub(super) async fn output(&self, prelude: &str, input: &[u8]) -> Result<Output> {
        let (mut stdout, mut stderr) = (Kept::default(), Kept::default());
        let streams = Streams {
            stdin: Some(Box::new(input)),
            stdout: Some(Box::new(&mut stdout)),
            stderr: Some(Box::new(&mut stderr)),
            until: None,
        };
        let code = self.run_aside(prelude, streams).await?;
        Ok(Output {
            code,
            stdout: stdout.0,
            stderr: stderr.0,
        })
    }

    /// What a script of ours says.
    pub(in crate::backend::truenas) async fn ask(&self, script: &str) -> Result<String> {
        let said = self.output(script, &[]).await?;
        Ok(String::from_utf8_lossy(&said.stdout).into_owned())
    }

    /// An interactive session on the caller's terminal. Gives its exit code.
    pub(in crate::backend::truenas) async fn interact(&self, prelude: &str, terminal: Terminal<'_>) -> Result<i32> {
        let _permit = self.channels.acquire().await.map_err(|_| lost())?;
        // Through a terminal it would be shown, and cut; so it waits in a file.
        let keep = "umask 077\nfile=$(mktemp) && cat > \"$file\" && printf %s \"$file\"\n";
        let kept = self.output(keep, prelude.as_bytes()).await?;
        let path = String::from_utf8_lossy(&kept.stdout).into_owned();
        if kept.code != 0 || path.is_empty() {
            return Err(Error::new(ErrorKind::Failed, "the sandbox takes no temporary file"));
        }
        let channel = self.channel().await?;
        let Terminal {
            mut input,
            output,
            mut size,
            ..
        } = terminal;
        let gone = |error: russh::Error| lost().with_source(error);
        let (columns, rows) = *size.borrow_and_update();
        channel
            .request_pty(false, "xterm-256color", columns.into(), rows.into(), 0, 0, &[])
            .await
            .map_err(gone)?;
        channel.exec(true, script::from_file(&path)).await.map_err(gone)?;
        let (mut from, to) = channel.split();
        let typing = async {
            let mut buffer = vec![0; 4096];
            while let Ok(count @ 1..) = input.read(&mut buffer).await {
                if to.data_bytes(buffer[..count].to_vec()).await.is_err() {
                    break;
                }
            }
            // The end of what is typed is not that of the session.
            std::future::pending::<()>().await;
        };
        let following = async {
            while size.changed().await.is_ok() {
                let (columns, rows) = *size.borrow_and_update();
                if to.window_change(columns.into(), rows.into(), 0, 0).await.is_err() {
                    break;
                }
            }
            std::future::pending::<()>().await;
        };
        let mut output = Some(output);
        let hearing = async {
            let mut code = None;
            loop {
                let message = match code {
                    None => from.wait().await,
                    Some(_) => match timeout(LINGER, from.wait()).await {
                        Ok(message) => message,
                        Err(_) => break,
                    },
                };
                match message {
                    Some(ChannelMsg::Data { data }) => pass_on(&mut output, &data).await?,
                    Some(message) => match ended(&message) {
                        Some(how) => code = Some(how),
                        None if matches!(message, ChannelMsg::Close) => break,
                        None => {}
                    },
                    None => break,
                }
            }
            code.ok_or_else(lost)
        };
        let result = tokio::select! {
            code = hearing => code,
            () = typing => Err(lost()),
            () = following => Err(lost()),
        };
        let _ = timeout(Duration::from_millis(100), to.close()).await;
        result
    }

    /// Opens a session for files.
    pub(in crate::backend::truenas) async fn files(&self) -> Result<sftp::Session> {
        let channel = self.channel().await?;
        let no_files = || {
            Error::new(ErrorKind::Failed, "the sandbox's SSH server serves no files").with_hint(
                "install an SFTP server in its image: the package is called openssh-sftp-server, or openssh-server",
            )
        };
        let asked = channel.request_subsystem(true, "sftp").await;
        asked.map_err(|error| lost().with_source(error))?;
        let started = sftp::Session::start(channel.into_stream()).await;
        started.map_err(|error| match error.kind() {
            ErrorKind::Unreachable | ErrorKind::Failed => no_files().with_source(error),
            _ => error,
        })
    }

    /// Says goodbye.
    pub(super) async fn close(&self) {
        let goodbye = self.handle.disconnect(Disconnect::ByApplication, "", "");
        let _ = timeout(Duration::from_millis(200), goodbye).await;
        // What was said has to be sent before the connection is dropped.
        sleep(Duration::from_millis(1)).await;
    }
}

/// How a command ended, where a message tells.
fn ended(message: &ChannelMsg) -> Option<i32> {
    match message {
        ChannelMsg::ExitStatus { exit_status } => Some(i32::try_from(*exit_status).unwrap_or(255)),
        ChannelMsg::ExitSignal { signal_name, .. } => Some(128 + number(signal_name)),
        _ => None,
    }
}

/// A signal's number (Linux, `signal(7)`).
fn number(signal: &Sig) -> i32 {
    match signal {
        Sig::HUP => 1,
        Sig::INT => 2,
        Sig::QUIT => 3,
        Sig::ILL => 4,
        Sig::ABRT => 6,
        Sig::FPE => 8,
        Sig::KILL => 9,
        Sig::USR1 => 10,
        Sig::SEGV => 11,
        Sig::PIPE => 13,
        Sig::ALRM => 14,
        Sig::TERM => 15,
        Sig::Custom(name) => match name.trim_end_matches("@openssh.com") {
            "TRAP" => 5,
            "BUS" => 7,
            "USR2" => 12,
            "XCPU" => 24,
            "XFSZ" => 25,
            "SYS" => 31,
            _ => 127,
        },
    }
}

async fn pass_on(to: &mut Option<Writer<'_>>, bytes: &[u8]) -> Result<()> {
    let Some(to) = to else { return Ok(()) };
    let unwritten = |error: io::Error| Error::new(ErrorKind::Failed, "cannot pass on its output").with_source(error);
    to.write_all(bytes).await.map_err(unwritten)?;
    to.flush().await.map_err(unwritten)
}

fn lost() -> Error {
    Error::new(ErrorKind::Unreachable, "the SSH connection to the sandbox broke off")
}

fn another(host: &str) -> Error {
    Error::new(
        ErrorKind::Unauthorised,
        format!("what answers at {host} has not the host key that the sandbox had when it was made"),
    )
    .with_hint(
        "somebody may stand in between, or root inside has made new host keys; if it was you, make the sandbox anew: \
         `apply` replaces one that was deleted",
    )
}
