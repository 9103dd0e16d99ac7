//! Commands inside running sandboxes.

use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::OptionFuture;
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, copy};
use tokio::net::unix::pipe;
use tokio::time::{Instant, sleep, timeout};

use super::Local;
use super::helper::{Helper, unexpected};
use super::state::failed;
use super::wire::{Exec as Command, Reply, Request};
use crate::backend::options::ended;
use crate::backend::{Account, ConsoleOpts, Error, ErrorKind, Exec, ExecOpts, Result, Streams, Terminal};
use crate::model::InstanceName;

/// How long output may keep coming after the command has ended: what it left behind may hold the streams.
pub(super) const LINGER: Duration = Duration::from_secs(2);
/// How long an end by force may take.
pub(super) const END: Duration = Duration::from_secs(5);

#[async_trait]
impl Exec for Local {
    async fn run(&self, name: &InstanceName, opts: &ExecOpts, streams: Streams<'_>) -> Result<i32> {
        self.execute(name, opts, streams)
            .await
            .map_err(|error| error.within(format_args!("cannot run a command in `{name}`")))
    }

    async fn console(&self, name: &InstanceName, opts: &ConsoleOpts, terminal: Terminal<'_>) -> Result<i32> {
        self.session_at(name, opts, terminal)
            .await
            .map_err(|error| error.within(format_args!("cannot open a console in `{name}`")))
    }

    async fn ready(&self, name: &InstanceName, patience: Duration) -> Result<()> {
        let end = Instant::now() + patience;
        loop {
            self.store.record(name)?;
            if self.store.process(name).is_some() {
                return Ok(());
            }
            if Instant::now() >= end {
                return Err(Error::new(
                    ErrorKind::Timeout,
                    format!("`{name}` took no commands within {patience:?}"),
                ));
            }
            sleep(Duration::from_millis(10).min(patience)).await;
        }
    }
}

impl Local {
    /// What a helper needs to run a command, streams aside.
    pub(super) fn command(
        &self,
        name: &InstanceName,
        command: &[String],
        account: &Account,
        env: &std::collections::BTreeMap<String, String>,
    ) -> Result<Command> {
        let record = self.store.record(name)?;
        let process = self
            .store
            .process(name)
            .ok_or_else(|| Error::new(ErrorKind::Invalid, "it does not run"))?;
        let mut all = record.env;
        all.insert("HOME".to_owned(), account.home.clone());
        all.insert("USER".to_owned(), account.name.clone());
        all.extend(env.clone());
        Ok(Command {
            ids: self.ids,
            process,
            in_use: self.in_use(name)?,
            groups: self.groups.membership(name),
            command: command.to_vec(),
            env: all,
            uid: account.owner.uid,
            gid: account.owner.gid,
            folder: account.home.clone(),
            stdin: false,
            terminal: None,
        })
    }

    async fn execute(&self, name: &InstanceName, opts: &ExecOpts, streams: Streams<'_>) -> Result<i32> {
        let mut command = self.command(name, &opts.command, &opts.account, &opts.env)?;
        command.stdin = streams.stdin.is_some();
        let until = streams.until;
        let wanted = |wanted: bool| if wanted { Stdio::piped() } else { Stdio::null() };
        let request = Request::Exec(command);
        let mut helper = self
            .helpers
            .start(
                &request,
                wanted(streams.stdout.is_some()),
                wanted(streams.stderr.is_some()),
            )
            .await?;
        let feeding = match streams.stdin {
            None => None,
            Some(stdin) => Some(feed(input(&helper).await?, stdin)),
        };
        let (stdout, stderr) = (helper.child.stdout.take(), helper.child.stderr.take());
        let run = async {
            let output =
                async { tokio::try_join!(drain(stdout, streams.stdout), drain(stderr, streams.stderr)).map(drop) };
            let end = helper.reply();
            let feeding = OptionFuture::from(feeding);
            tokio::pin!(output, end, feeding);
            // A command need not read what it is given, so feeding it is never waited for.
            let (mut fed, mut drained) = (false, false);
            let code = loop {
                tokio::select! {
                    reply = &mut end => match reply? {
                        Reply::Code(code) => break code,
                        other => return Err(unexpected(&other)),
                    },
                    result = &mut output, if !drained => { result?; drained = true }
                    result = &mut feeding, if !fed => { result.transpose()?; fed = true }
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
            Some(patience) => timeout(patience, run).await.unwrap_or_else(|_| {
                Err(Error::new(
                    ErrorKind::Timeout,
                    format!(
                        "`{}` took longer than {} s",
                        opts.command.join(" "),
                        patience.as_secs_f64()
                    ),
                ))
            }),
        };
        // Where it went wrong, the helper ends everything that the command has started before it goes.
        let all_ended = timeout(END, helper.end()).await.is_ok();
        result.map_err(|error| if all_ended { error.settled() } else { error })
    }
}

/// Gives the command an input of its own, and the end that feeds it.
async fn input(helper: &Helper) -> Result<pipe::Sender> {
    let (from, to) = pipe_with(PipeFlags::CLOEXEC).map_err(|source| failed("cannot make a pipe", source))?;
    helper.send_descriptor(std::os::fd::AsFd::as_fd(&from)).await?;
    pipe::Sender::from_owned_fd(to).map_err(|source| failed("cannot use a pipe", source))
}

async fn feed(mut to: pipe::Sender, mut from: Box<dyn AsyncRead + Send + Unpin + '_>) -> Result<()> {
    match copy(&mut from, &mut to).await {
        // It does not read any further.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(failed("cannot pass on the input", error)),
        Ok(_) => Ok(()),
    }
}

async fn drain(
    from: Option<impl AsyncRead + Unpin>,
    to: Option<Box<dyn AsyncWrite + Send + Unpin + '_>>,
) -> Result<()> {
    let (Some(mut from), Some(mut to)) = (from, to) else {
        return Ok(());
    };
    let cannot = |source| failed("cannot pass on the output", source);
    copy(&mut from, &mut to).await.map_err(cannot)?;
    to.flush().await.map_err(cannot)
}
