//! `exec`: a command in a sandbox.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::ErrorKind;

use super::super::Code;
use super::super::error::Error;
use super::super::interrupt::Interrupts;
use super::super::sandbox::{Found, Named, find};
use super::super::session;
use super::super::settings::Settings;
use super::super::streams::Outlet;
use crate::apply::Interrupt;
use crate::backend::{Account, ExecOpts, Sandboxes, Streams};
use crate::model::{Desired, InstanceName};
use crate::view::Channel;

/// What `exec` and `console` end with when no command ran.
const NOT_RUN: u8 = 125;
/// What a shell says of a command whose reader went away: 128 and SIGPIPE.
const NO_READER: u8 = 141;

const EXAMPLES: &str = "\
The command runs as the sandbox's user, or as root where the spec gives it none. Its exit code is
passed on; 125 says that it was not run, and why stands on standard error. Standard input is passed
on unless it is a terminal; in a loop, give it </dev/null. Ctrl-C ends the command and all that it
has started.

Here, --root means the user root. The folder of every other command's --root DIR stands before:
sbx-apply --root DIR exec …

Examples:
  sbx-apply exec task-1 -- make test
  sbx-apply exec sbx.kdl task-1 --root -- apt-get install -y git
  sbx-apply exec task-1 --env TOKEN --env MODE=ci -- ./deploy
  tar c src | sbx-apply exec task-1 -- tar x -C /srv";

/// Arguments of `exec`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, override_usage = "sbx-apply exec [OPTIONS] [SPEC] <SANDBOX> -- <CMD>...")]
pub(crate) struct Args {
    /// Spec, as everywhere, and the sandbox's name in it
    #[arg(value_name = "SPEC SANDBOX", num_args = 1..=2, required = true)]
    words: Vec<OsString>,

    #[command(flatten)]
    inside: InsideArgs,

    /// The command and its arguments; no shell in between
    #[arg(value_name = "CMD", last = true, required = true)]
    command: Vec<String>,
}

/// As whom, and with what variables.
#[derive(Debug, clap::Args)]
pub(super) struct InsideArgs {
    /// As root, not as the sandbox's user
    #[arg(id = "as_root", long = "root")]
    root: bool,

    /// A variable for it; without a value, the caller's own, so that no secret stands in arguments
    #[arg(long, value_name = "K[=V]")]
    env: Vec<String>,
}

impl InsideArgs {
    /// As whom the command runs.
    pub(super) fn account(&self, found: &Found, desired: &Desired) -> Account {
        match self.root {
            true => Account::root(),
            false => found.account(desired),
        }
    }

    /// The variables that were named.
    pub(super) fn variables(&self, settings: &Settings) -> Result<BTreeMap<String, String>, Error> {
        let mut variables = BTreeMap::new();
        for given in &self.env {
            let (name, value) = match given.split_once('=') {
                Some((name, value)) => (name, value),
                None => {
                    let value = settings.caller.variable(given).ok_or_else(|| {
                        Error::usage(
                            format!("--env {given}: the variable is not set here, or is no UTF-8"),
                            format!("set it, or give a value: --env {given}=…"),
                        )
                    })?;
                    (given.as_str(), value)
                }
            };
            if name.is_empty() || name.contains(char::is_control) {
                return Err(Error::usage(
                    "--env: a variable has a name",
                    "write --env NAME or --env NAME=VALUE",
                ));
            }
            variables.insert(name.to_owned(), value.to_owned());
        }
        Ok(variables)
    }
}

/// Runs the command.
pub(super) async fn run(args: &Args, settings: &Settings) -> Result<Code, Error> {
    told_apart(execute(args, settings).await, settings)
}

/// A code of its own for what kept a command from being run; what is refused stays refused.
pub(super) fn told_apart(outcome: Result<Code, Error>, settings: &Settings) -> Result<Code, Error> {
    match outcome {
        Err(error) if error.code() == Code::Error => {
            error.report(&settings.output, settings.diagnostics);
            Ok(Code::Inside(NOT_RUN))
        }
        outcome => outcome,
    }
}

async fn execute(args: &Args, settings: &Settings) -> Result<Code, Error> {
    let named = Named::of(&args.words, &[])?;
    let env = args.inside.variables(settings)?;
    let loaded = session::load(settings, &named.spec)?;
    let desired = &loaded.desired;
    let interrupts = Interrupts::listen();
    let opened = interrupts.guard(async {
        let backend = session::open(settings, &desired.backend).await?;
        let found = find(&*backend, &loaded, &named.sandbox).await?;
        found.must_run(desired)?;
        Ok::<_, Error>((backend, found))
    });
    let (backend, found) = opened.await??;
    let opts = ExecOpts {
        command: args.command.clone(),
        account: args.inside.account(&found, desired),
        env,
        timeout: None,
    };
    let stdin = !named.spec.is_stdin();
    let ended = pass_through(settings, &interrupts, &*backend, &found.instance.name, &opts, stdin).await;
    backend.close().await?;
    ended
}

/// Runs a command whose streams are the program's own, and gives what it ended with. An interrupt ends it, and is told.
pub(super) async fn pass_through(
    settings: &Settings,
    interrupts: &Interrupts,
    backend: &dyn Sandboxes,
    name: &InstanceName,
    opts: &ExecOpts,
    stdin: bool,
) -> Result<Code, Error> {
    let (stdout, results) = Outlet::open(&settings.output, Channel::Results);
    let (stderr, messages) = Outlet::open(&settings.output, Channel::Messages);
    let mut receiver = interrupts.receiver();
    let until = async move {
        // An error means that nobody listens any more, and then nothing can come.
        if receiver.wait_for(|level| *level != Interrupt::None).await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    let streams = Streams {
        stdin: match settings.terminals.stdin || !stdin {
            true => None,
            false => Some(settings.stdin.take()?),
        },
        stdout: Some(Box::new(stdout)),
        stderr: Some(Box::new(stderr)),
        until: Some(Box::pin(until)),
    };
    let ended = backend.run(name, opts, streams).await;
    let written = [results.flush().await, messages.flush().await];
    if *interrupts.receiver().borrow() != Interrupt::None {
        settings.output.note("Interrupted; the command was ended.");
        return Ok(Code::Interrupted);
    }
    for written in written {
        match written {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(Code::Inside(NO_READER)),
            written => written.map_err(|error| Error::io("cannot pass on what it says", error))?,
        }
    }
    Ok(Code::inside(ended?))
}
