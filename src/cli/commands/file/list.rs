//! `file list`: what lies in a folder.

use std::ffi::OsString;

use super::super::super::Code;
use super::super::super::error::Error;
use super::super::super::interrupt::Interrupts;
use super::super::super::sandbox::{Named, find};
use super::super::super::session;
use super::super::super::settings::Settings;
use crate::model::GuestPath;
use crate::view::files::{self, Listing};

const EXAMPLES: &str = "\
Examples:
  sbx-apply file list task-1 /srv
  sbx-apply file list sbx.kdl task-1 / --recursive --json";

/// Arguments of `file list`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, override_usage = "sbx-apply file list [OPTIONS] [SPEC] <SANDBOX> <PATH>")]
pub(super) struct Args {
    /// Spec, as everywhere, the sandbox's name in it, and a folder inside
    #[arg(value_name = "SPEC SANDBOX PATH", num_args = 1..=3, required = true)]
    words: Vec<OsString>,

    /// With all that lies below; links are not followed
    #[arg(long)]
    recursive: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Lists it.
pub(super) async fn run(args: &Args, settings: &Settings) -> Result<Code, Error> {
    let named = Named::of(&args.words, &["PATH"])?;
    let text = &named.rest[0];
    let path = match text.trim_end_matches('/') {
        "" if !text.is_empty() => GuestPath::root(),
        _ => super::path(text)?,
    };
    let loaded = session::load(settings, &named.spec)?;
    let desired = &loaded.desired;
    let interrupts = Interrupts::listen();
    let list = interrupts.guard(async {
        let reader = session::open_reader(settings, &desired.backend).await?;
        let found = find(&*reader, &loaded, &named.sandbox).await?;
        Ok::<_, Error>(reader.list_files(&found.instance.name, &path, args.recursive).await?)
    });
    let listing = Listing::new(desired, &named.sandbox, &path, &list.await??);
    settings.output.result(&match args.json {
        true => files::json(&listing),
        false => files::human(&listing),
    });
    Ok(Code::Done)
}
