//! `snapshot`: moments of a sandbox's disk.

mod create;
mod delete;
mod list;
mod restore;

use clap::Subcommand;

use super::super::Code;
use super::super::error::Error;
use super::super::sandbox::{Found, find};
use super::super::settings::Settings;
use crate::backend::Reader;
use crate::model::{LiveSnapshot, Ownership};
use crate::spec::Loaded;

const EXAMPLES: &str = "\
Those that the spec declares are the business of `apply`; these commands are for moments in between.

Examples:
  sbx-apply snapshot create task-1 before-upgrade
  sbx-apply snapshot list task-1
  sbx-apply snapshot restore task-1 before-upgrade
  sbx-apply snapshot delete task-1 before-upgrade";

/// Arguments of `snapshot`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, disable_help_subcommand = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Show a sandbox's snapshots
    List(list::Args),
    /// Take a snapshot of a sandbox's disk
    Create(create::Args),
    /// Delete a snapshot
    Delete(delete::Args),
    /// Put a sandbox's disk back to a snapshot
    Restore(restore::Args),
}

/// Does one of them.
pub(super) async fn run(args: &Args, settings: &Settings) -> Result<Code, Error> {
    match &args.what {
        What::List(args) => list::run(args, settings).await,
        What::Create(args) => create::run(args, settings).await,
        What::Delete(args) => delete::run(args, settings).await,
        What::Restore(args) => restore::run(args, settings).await,
    }
}

/// A snapshot that there is.
fn there<'a>(found: &'a Found, label: &str) -> Result<&'a LiveSnapshot, Error> {
    found.instance.snapshots.get(label).ok_or_else(|| {
        let names: Vec<&str> = found.instance.snapshots.keys().map(String::as_str).collect();
        let hint = match (&names[..], crate::spec::nearest(label, names.iter().copied())) {
            ([], _) => "it has none".to_owned(),
            (_, Some(near)) => format!("did you mean `{near}`?"),
            _ => format!("it has: {}", names.join(", ")),
        };
        Error::usage(format!("`{}` has no snapshot `{label}`", found.name), hint)
    })
}

/// Whether we took it: it carries the sandbox's own labels.
fn is_ours(found: &Found, snapshot: &LiveSnapshot) -> bool {
    matches!(
        snapshot.labels.ownership(&found.instance.name),
        Ownership::Owned { sandbox, .. } if sandbox == found.name
    )
}

/// Looks once more, under the lock: what was consented to must still be so.
async fn again(reader: &dyn Reader, loaded: &Loaded, before: &Found) -> Result<Found, Error> {
    let now = find(reader, loaded, before.name.as_str()).await?;
    let same = now.instance.name == before.instance.name
        && now.instance.labels == before.instance.labels
        && now.instance.created_at == before.instance.created_at
        && now.instance.snapshots.keys().eq(before.instance.snapshots.keys());
    match same {
        true => Ok(now),
        false => Err(Error::Moved),
    }
}
