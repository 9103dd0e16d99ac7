//! `console`: a session in a sandbox.

use std::ffi::OsString;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::super::Code;
use super::super::error::Error;
use super::super::sandbox::{Named, find};
use super::super::session;
use super::super::settings::Settings;
use super::super::streams::Outlet;
use super::super::terminal::{Raw, current};
use super::exec::{InsideArgs, told_apart};
use crate::backend::{ConsoleOpts, Terminal};
use crate::view::Channel;

const EXAMPLES: &str = "\
A login shell, or CMD, on this terminal, as the sandbox's user. Every key goes to it, Ctrl-C too;
what ends the shell ends the session. The exit code is passed on; 125 says that there was none.

Here, --root means the user root, as with `exec`.

Examples:
  sbx-apply console task-1
  sbx-apply console sbx.kdl task-1 --root
  sbx-apply console task-1 -- htop";

/// Arguments of `console`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, override_usage = "sbx-apply console [OPTIONS] [SPEC] <SANDBOX> [-- <CMD>...]")]
pub(crate) struct Args {
    /// Spec, as everywhere, and the sandbox's name in it
    #[arg(value_name = "SPEC SANDBOX", num_args = 1..=2, required = true)]
    words: Vec<OsString>,

    #[command(flatten)]
    inside: InsideArgs,

    /// The program and its arguments [default: a login shell]
    #[arg(value_name = "CMD", last = true)]
    command: Vec<String>,
}

/// Opens the session.
pub(super) async fn run(args: &Args, settings: &Settings) -> Result<Code, Error> {
    told_apart(open(args, settings).await, settings)
}

async fn open(args: &Args, settings: &Settings) -> Result<Code, Error> {
    let named = Named::of(&args.words, &[])?;
    if !settings.terminals.stdin || !settings.terminals.stdout || named.spec.is_stdin() {
        return Err(Error::usage(
            "a console needs a terminal, as standard input and as standard output",
            "without one, use `sbx-apply exec`",
        ));
    }
    let mut env = args.inside.variables(settings)?;
    if let Some(term) = settings.caller.variable("TERM") {
        env.entry("TERM".to_owned()).or_insert_with(|| term.to_owned());
    }
    let loaded = session::load(settings, &named.spec)?;
    let desired = &loaded.desired;
    let backend = session::open(settings, &desired.backend).await?;
    let found = find(&*backend, &loaded, &named.sandbox).await?;
    found.must_run(desired)?;
    let opts = ConsoleOpts {
        command: args.command.clone(),
        account: args.inside.account(&found, desired),
        env,
    };
    let (output, shown) = Outlet::open(&settings.output, Channel::Results);
    let (told, size) = watch::channel(current());
    let (signalled, mut heard) = watch::channel(None);
    let until = async move {
        if heard.wait_for(Option::is_some).await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    let terminal = Terminal {
        input: settings.stdin.take()?,
        output: Box::new(output),
        size,
        until: Some(Box::pin(until)),
    };
    let signals = Signals::listen()?;
    let raw = Raw::enter()?;
    let session = backend.console(&found.instance.name, &opts, terminal);
    tokio::pin!(session);
    let ended = tokio::select! {
        ended = &mut session => ended,
        Err(error) = raw.watch(&told) => return Err(error),
        number = signals.next() => {
            signalled.send_replace(Some(number));
            session.await
        }
    };
    let _ = shown.flush().await;
    drop(raw);
    let number = *signalled.borrow();
    let code = match number {
        Some(number) => Code::inside(128 + number),
        None => Code::inside(ended?),
    };
    backend.close().await?;
    Ok(code)
}

/// The signals that end a program. Ctrl-C is none of them on a raw terminal: it comes from elsewhere.
struct Signals([(SignalKind, tokio::signal::unix::Signal); 4]);

impl Signals {
    fn listen() -> Result<Self, Error> {
        let listen = |kind: SignalKind| std::io::Result::Ok((kind, signal(kind)?));
        let all = || -> std::io::Result<_> {
            Ok([
                listen(SignalKind::terminate())?,
                listen(SignalKind::hangup())?,
                listen(SignalKind::interrupt())?,
                listen(SignalKind::quit())?,
            ])
        };
        all()
            .map(Self)
            .map_err(|error| Error::io("cannot listen to signals", error))
    }

    /// The number of the first that comes.
    async fn next(self) -> i32 {
        let Self([mut a, mut b, mut c, mut d]) = self;
        tokio::select! {
            _ = a.1.recv() => a.0.as_raw_value(),
            _ = b.1.recv() => b.0.as_raw_value(),
            _ = c.1.recv() => c.0.as_raw_value(),
            _ = d.1.recv() => d.0.as_raw_value(),
        }
    }
}
