//! Commands and consoles.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::TrueNas;
use super::ssh::{Identity, NO_SERVER, Session, prelude, quoted};
use crate::backend::marked::{FIND_ALL, KILL_ALL, MARK, is_mark, mark};
use crate::backend::options::ended;
use crate::backend::retry::retry_when;
use crate::backend::{Account, ConsoleOpts, Error, ErrorKind, ExecOpts, Result, Streams, Terminal};
use crate::model::InstanceName;

/// How long an end by force may take.
const END: Duration = Duration::from_secs(5);
/// Between two looks whether commands run yet.
const PAUSE: Duration = Duration::from_millis(200);
/// Before the end of a wait for commands, nobody tries to get in any more.
const EARLY: Duration = Duration::from_secs(2);

/// Tells the marks of the commands that somebody listens to, one on each line: those of which a process descends from
/// something that is neither theirs nor pid 1. That is the SSH server's process for their connection, which goes with it.
const FIND_HELD: &str = r#"
for folder in /proc/[0-9]*; do
    mark=
    { while IFS= read -r line || [ -n "$line" ]; do
        case $line in *SBX_APPLY_EXEC=*) mark=${line#*SBX_APPLY_EXEC=} && break ;; esac
    done < "$folder/environ"; } 2>/dev/null
    [ -n "$mark" ] || continue
    { IFS= read -r line < "$folder/stat"; } 2>/dev/null || continue
    line=${line##*') '} line=${line#* }
    parent=${line%% *}
    [ "$parent" -gt 1 ] || continue
    theirs=
    { while IFS= read -r line || [ -n "$line" ]; do
        case $line in *SBX_APPLY_EXEC=*) theirs=1 && break ;; esac
    done < "/proc/$parent/environ"; } 2>/dev/null
    [ -n "$theirs" ] || printf '%.16s\n' "$mark"
done
:
"#;

impl TrueNas {
    /// Runs a command to its end and gives its exit code.
    pub(super) async fn execute(&self, name: &InstanceName, opts: &ExecOpts, streams: Streams<'_>) -> Result<i32> {
        let (session, machine) = self.enter(name).await?;
        let mark = mark()?;
        let prelude = prelude(
            &opts.command,
            &Identity {
                account: &opts.account,
                declared: &machine.carried.env,
                env: &opts.env,
                mark: &mark,
            },
        );
        let Streams {
            stdin,
            stdout,
            stderr,
            until,
        } = streams;
        let streams = Streams {
            stdin,
            stdout,
            stderr,
            until: None,
        };
        let run = async {
            tokio::select! {
                result = session.run(&prelude, streams) => result,
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
        match result {
            Err(error) if self.end(name, &session, &mark).await => Err(error.settled()),
            result => result,
        }
    }

    /// Opens a session and passes bytes on until it ends. Where SSH does not answer, the web shell does.
    pub(super) async fn session_at(
        &self,
        name: &InstanceName,
        opts: &ConsoleOpts,
        terminal: Terminal<'_>,
    ) -> Result<i32> {
        let words = opts.words();
        let mark = mark()?;
        let until = Instant::now() + NO_SERVER;
        let (session, machine) = match self.enter_until(name, until).await {
            Err(error) if matches!(error.kind(), ErrorKind::Unreachable | ErrorKind::Unsupported) => {
                tracing::warn!(instance = %name, %error, "no SSH: the console goes through the web shell");
                let machine = self.machine(name).await?;
                let identity = Identity {
                    account: &opts.account,
                    declared: &machine.carried.env,
                    env: &opts.env,
                    mark: &mark,
                };
                return self
                    .shell_session(&machine, &prelude(&words, &identity), terminal, &error)
                    .await;
            }
            entered => entered?,
        };
        let identity = Identity {
            account: &opts.account,
            declared: &machine.carried.env,
            env: &opts.env,
            mark: &mark,
        };
        let prelude = prelude(&words, &identity);
        let Terminal {
            input,
            output,
            size,
            until,
        } = terminal;
        let terminal = Terminal {
            input,
            output,
            size,
            until: None,
        };
        let result = tokio::select! {
            result = session.interact(&prelude, terminal) => result,
            error = ended(until) => Err(error),
        };
        match result {
            Err(error) if self.end(name, &session, &mark).await => Err(error.settled()),
            result => result,
        }
    }

    /// Ends a command: whatever went wrong, nothing of it must go on unseen. Closing its channel ends nothing. Tells whether
    /// it has ended for sure.
    async fn end(&self, name: &InstanceName, session: &Arc<Session>, mark: &str) -> bool {
        let killing = async {
            if self.kill_all(session, mark).await.is_ok() {
                return Ok(());
            }
            // The connection itself may be what was lost.
            let (session, _) = self.enter(name).await?;
            self.kill_all(&session, mark).await
        };
        match timeout(END, killing).await {
            Ok(Ok(())) => return true,
            Ok(Err(error)) => tracing::debug!(instance = %name, %error, "cannot end what the command has started"),
            Err(_) => tracing::debug!(instance = %name, "ending what the command has started takes too long"),
        }
        false
    }

    /// Ends all processes of the command with that mark.
    async fn kill_all(&self, session: &Session, mark: &str) -> Result<()> {
        let script = format!("set -- {}\n{KILL_ALL}", quoted(&format!("{MARK}={mark}")));
        session.ask(&script).await.map(drop)
    }

    /// Ends the commands whose callers are gone: their connection has ended, and they go on.
    pub(super) async fn end_orphans(&self, name: &InstanceName) -> Result<()> {
        let (session, _) = self.enter(name).await?;
        let marks = async |script: &str| {
            let said = session.ask(script).await?;
            let marks = said.lines().filter(|line| is_mark(line)).map(str::to_owned);
            Ok::<BTreeSet<String>, Error>(marks.collect())
        };
        let all = marks(FIND_ALL).await?;
        if all.is_empty() {
            return Ok(());
        }
        // Asked afterwards: whatever was found and has a caller is among them.
        let held = marks(FIND_HELD).await?;
        for mark in all.difference(&held) {
            tracing::info!(instance = %name, "ending a command that another run has left");
            self.kill_all(&session, mark).await?;
        }
        Ok(())
    }

    /// Waits until commands run.
    pub(super) async fn accepts_commands(&self, name: &InstanceName, patience: Duration) -> Result<()> {
        let account = Account {
            home: "/".to_owned(),
            ..Account::root()
        };
        let none = BTreeMap::new();
        let hopeless = |error: &Error| {
            matches!(
                error.kind(),
                ErrorKind::NotFound | ErrorKind::Unauthorised | ErrorKind::Unsupported
            )
        };
        // So early that why it failed is told, and not only that it took too long.
        let until = Instant::now() + patience - EARLY.min(patience / 2);
        let attempt = || async {
            let (session, _) = self.enter_until(name, until).await?;
            let mark = mark()?;
            let identity = Identity {
                account: &account,
                declared: &none,
                env: &none,
                mark: &mark,
            };
            let words = ["/bin/sh", "-c", ":"].map(str::to_owned);
            let streams = Streams::default();
            match session.run(&prelude(&words, &identity), streams).await? {
                0 => Ok(()),
                code => Err(Error::new(
                    ErrorKind::Failed,
                    format!("a first command ended with {code}"),
                )),
            }
        };
        let mut last = None;
        let waiting = async {
            loop {
                match retry_when(attempt, |error| !hopeless(error)).await {
                    Err(error) if !hopeless(&error) => last = Some(error),
                    answer => return answer,
                }
                sleep(PAUSE).await;
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
