//! `snapshot list`: which there are.

use std::collections::BTreeMap;
use std::ffi::OsString;

use super::super::super::Code;
use super::super::super::error::Error;
use super::super::super::interrupt::Interrupts;
use super::super::super::sandbox::{Named, find};
use super::super::super::session;
use super::super::super::settings::Settings;
use crate::view::snapshots::{self, Row, Snapshots};

const EXAMPLES: &str = "\
Examples:
  sbx-apply snapshot list task-1
  sbx-apply snapshot list sbx.kdl base --json";

/// Arguments of `snapshot list`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, override_usage = "sbx-apply snapshot list [OPTIONS] [SPEC] <SANDBOX>")]
pub(super) struct Args {
    /// Spec, as everywhere, and the sandbox's name in it
    #[arg(value_name = "SPEC SANDBOX", num_args = 1..=2, required = true)]
    words: Vec<OsString>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Lists them, oldest first.
pub(super) async fn run(args: &Args, settings: &Settings) -> Result<Code, Error> {
    let named = Named::of(&args.words, &[])?;
    let loaded = session::load(settings, &named.spec)?;
    let desired = &loaded.desired;
    let interrupts = Interrupts::listen();
    let look = interrupts.guard(async {
        let reader = session::open_reader(settings, &desired.backend).await?;
        let found = find(&*reader, &loaded, &named.sandbox).await?;
        // An observation may leave sizes out, which cost some backends time.
        let listed = reader.list_snapshots(&found.instance.name).await?;
        Ok::<_, Error>((found, listed))
    });
    let (found, listed) = look.await??;
    let sandbox = desired.sandboxes.get(&found.name);
    let declared: BTreeMap<&str, ()> = sandbox
        .map(|sandbox| sandbox.snapshots.iter().map(|(name, _)| (name.as_str(), ())).collect())
        .unwrap_or_default();
    let rows = listed.into_iter().map(|snapshot| {
        let live = found.instance.snapshots.get(&snapshot.label);
        Row {
            ours: live.is_some_and(|live| super::is_ours(&found, live)),
            declared: declared.contains_key(snapshot.label.as_str()),
            needed_by: found.clones_of(&snapshot.label),
            size: snapshot.size,
            created_at: snapshot.created_at,
            label: snapshot.label,
        }
    });
    let shown = Snapshots::new(desired, &found.name, &found.instance.name, rows.collect());
    settings.output.result(&match args.json {
        true => snapshots::json(&shown),
        false => snapshots::human(&shown, settings.now),
    });
    Ok(Code::Done)
}
