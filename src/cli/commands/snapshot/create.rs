//! `snapshot create`: one more.

use std::ffi::OsString;

use super::super::super::Code;
use super::super::super::error::Error;
use super::super::super::interrupt::Interrupts;
use super::super::super::lock::{LockArgs, Place, Worked};
use super::super::super::sandbox::{Named, find};
use super::super::super::session;
use super::super::super::settings::Settings;
use crate::apply::{Lock, scope_of};
use crate::model::SnapshotName;

const EXAMPLES: &str = "\
Of the disk alone, as it is at this moment; a running sandbox goes on.

Examples:
  sbx-apply snapshot create task-1 before-upgrade
  sbx-apply snapshot create sbx.kdl base v2 --lock-timeout 1m";

/// Arguments of `snapshot create`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, override_usage = "sbx-apply snapshot create [OPTIONS] [SPEC] <SANDBOX> <LABEL>")]
pub(super) struct Args {
    /// Spec, as everywhere, the sandbox's name in it, and a name for the snapshot
    #[arg(value_name = "SPEC SANDBOX LABEL", num_args = 1..=3, required = true)]
    words: Vec<OsString>,

    #[command(flatten)]
    lock: LockArgs,
}

/// Takes it.
pub(super) async fn run(args: &Args, settings: &Settings) -> Result<Code, Error> {
    let named = Named::of(&args.words, &["LABEL"])?;
    let label = &named.rest[0];
    SnapshotName::new(label.as_str()).map_err(|error| {
        Error::usage(
            format!("`{label}` is no name for a snapshot: {error}"),
            "names are like those of sandboxes: before-upgrade",
        )
    })?;
    let loaded = session::load(settings, &named.spec)?;
    let desired = &loaded.desired;
    let interrupts = Interrupts::listen();
    let backend = interrupts.guard(session::open(settings, &desired.backend)).await??;
    // A name that is none, and one that is not ours, are told before anybody is kept waiting.
    interrupts.guard(find(&*backend, &loaded, &named.sandbox)).await??;
    let place = Place {
        environment: &desired.environment,
        scope: scope_of(desired),
        doing: "snapshot create",
    };
    let work = async |_: &Lock| {
        let found = find(&*backend, &loaded, &named.sandbox).await?;
        if found.instance.snapshots.contains_key(label) {
            return Err(Error::usage(
                format!("`{}` has a snapshot `{label}` already", found.name),
                "choose another name, or delete that one first",
            ));
        }
        backend.create_snapshot(&found.instance.name, label).await?;
        Ok(Worked::whole(found.name))
    };
    let name = args.lock.under(settings, &interrupts, &backend, place, work).await?;
    backend.close().await?;
    settings
        .output
        .note(&format!("Took the snapshot `{label}` of `{name}`."));
    Ok(Code::Done)
}
