//! `egress learn`: what a command needs, found by running it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::PathBuf;

use super::super::super::Code;
use super::super::super::consent::consent_aloud;
use super::super::super::error::Error;
use super::super::super::interrupt::Interrupts;
use super::super::super::lock::{LockArgs, Place, Worked};
use super::super::super::sandbox::{Found, Named, find};
use super::super::super::session;
use super::super::super::settings::Settings;
use super::super::exec::{InsideArgs, pass_through, told_apart};
use crate::apply::{Lock, scope_of};
use crate::backend::{ExecOpts, Sandboxes};
use crate::model::{Desired, EgressMode, Learned, Opening};
use crate::spec::Format;
use crate::view::learned::{Group, patch};

const EXAMPLES: &str = "\
Runs a command as `exec` does, its streams and its exit code passed on, while the sandbox can
reach everything but this machine and link-local addresses. What it looked up and connected to,
and the spec's policy does not open, is printed at the end, as lines for the spec: read them
before you believe them. Nothing is written, and afterwards the policy is as it was; connections
that were begun meanwhile are cut off. Where this program is killed within, the sandbox is closed
at once, and the next apply removes what is left.

DNS is answered as this machine resolves names: IPv4 addresses, and nothing else. What a name led
to before, a program may remember: learn with one that has just started.

It needs root, nft, and the sandbox on this machine: local ones of root's, or Incus by its socket.
Here, --root means the user root.

Examples:
  sbx-apply egress learn task-1 -- make test
  sbx-apply egress learn sbx.kdl task-1 --yes --out needed.kdl --root -- apt-get update";

/// Arguments of `egress learn`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = EXAMPLES,
    override_usage = "sbx-apply egress learn [OPTIONS] [SPEC] <SANDBOX> -- <CMD>..."
)]
pub(super) struct Args {
    /// Spec, as everywhere, and the sandbox's name in it
    #[arg(value_name = "SPEC SANDBOX", num_args = 1..=2, required = true)]
    words: Vec<OsString>,

    /// Answer the question whether to open it with yes
    #[arg(long)]
    yes: bool,

    /// Write the patch there, not to standard output after the command's own
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    #[command(flatten)]
    inside: InsideArgs,

    #[command(flatten)]
    lock: LockArgs,

    /// The command and its arguments; no shell in between
    #[arg(value_name = "CMD", last = true, required = true)]
    command: Vec<String>,
}

/// Runs the command, and tells what it needs.
pub(super) async fn run(args: &Args, settings: &Settings) -> Result<Code, Error> {
    told_apart(learn(args, settings).await, settings)
}

async fn learn(args: &Args, settings: &Settings) -> Result<Code, Error> {
    let named = Named::of(&args.words, &[])?;
    let env = args.inside.variables(settings)?;
    let loaded = session::load(settings, &named.spec)?;
    let desired = &loaded.desired;
    let interrupts = Interrupts::listen();
    let opened = interrupts.guard(async {
        let backend = session::open(settings, &desired.backend).await?;
        backend.may_learn()?;
        let found = find(&*backend, &loaded, &named.sandbox).await?;
        found.must_run(desired)?;
        Ok::<_, Error>((backend, found))
    });
    let (backend, found) = opened.await??;
    let interactive = settings.terminals.stdin && settings.terminals.stderr && !named.spec.is_stdin();
    let what = format!(
        "while the command runs, `{}` can reach everything but this machine and link-local addresses",
        found.name
    );
    consent_aloud(settings, &interrupts, args.yes, &what, interactive).await?;
    let place = Place {
        environment: &desired.environment,
        scope: scope_of(desired),
        doing: "egress learn",
    };
    let work = async |_: &Lock| {
        let found = find(&*backend, &loaded, &named.sandbox).await?;
        found.must_run(desired)?;
        let opts = ExecOpts {
            command: args.command.clone(),
            account: args.inside.account(&found, desired),
            env: env.clone(),
            timeout: None,
        };
        let stdin = !named.spec.is_stdin();
        watch(settings, &interrupts, &*backend, &found, &opts, stdin)
            .await
            .map(Worked::whole)
    };
    let (code, learned) = args.lock.under(settings, &interrupts, &backend, place, work).await?;
    backend.close().await?;
    let text = told(&found, desired, &learned, format_of(&named));
    match &args.out {
        Some(path) => {
            std::fs::write(path, text).map_err(|error| Error::io(format!("cannot write {}", path.display()), error))?;
        }
        None => settings.output.result(text.trim_end()),
    }
    code
}

/// Runs it while the sandbox is watched: what it ended with, whatever that is, and what was learned.
async fn watch(
    settings: &Settings,
    interrupts: &Interrupts,
    backend: &dyn Sandboxes,
    found: &Found,
    opts: &ExecOpts,
    stdin: bool,
) -> Result<(Result<Code, Error>, Learned), Error> {
    let name = &found.instance.name;
    let mut ended = Err(Error::Interrupted);
    let during = async {
        ended = pass_through(settings, interrupts, backend, name, opts, stdin).await;
    };
    let learned = backend.learn(name, Box::pin(during)).await?;
    Ok((ended, learned))
}

fn format_of(named: &Named) -> Format {
    let path = named.spec.find().unwrap_or_default();
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("yaml" | "yml") => Format::Yaml,
        _ => Format::Kdl,
    }
}

/// The patch to the spec.
fn told(found: &Found, desired: &Desired, learned: &Learned, format: Format) -> String {
    let sandbox = desired.sandboxes.get(&found.name);
    let declared = sandbox.and_then(|sandbox| sandbox.egress.as_ref());
    let live = found.instance.egress.as_ref().map(|live| &live.policy);
    let open: BTreeSet<Opening> = match sandbox {
        Some(_) => declared
            .into_iter()
            .flat_map(|policy| policy.allow.iter().map(|rule| rule.opening()))
            .collect(),
        None => live.map(|policy| policy.open.clone()).unwrap_or_default(),
    };
    let pinned = live.map_or_else(BTreeMap::new, |policy| policy.addresses.clone());
    let shared = declared.and_then(|policy| policy.name.as_deref());
    let group = match shared {
        Some(name) => Group::Policy(name),
        None => Group::Sandbox(sandbox.map_or(found.name.as_str(), |sandbox| sandbox.base.as_str())),
    };
    let mode = declared.map_or(EgressMode::Unrestricted, |policy| policy.mode);
    patch(group, mode, learned, &learned.missing(&open, &pinned), format)
}
