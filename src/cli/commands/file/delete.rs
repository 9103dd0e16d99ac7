//! `file delete`: the end of a file.

use std::ffi::OsString;

use super::super::super::Code;
use super::super::super::error::Error;
use super::super::super::interrupt::Interrupts;
use super::super::super::sandbox::{Named, find};
use super::super::super::session;
use super::super::super::settings::Settings;
use crate::model::{Query, Shape};

const EXAMPLES: &str = "\
A link is deleted itself, not what it leads to.

Examples:
  sbx-apply file delete task-1 /srv/data.bin
  sbx-apply file delete sbx.kdl task-1 /srv/cache --recursive";

/// Arguments of `file delete`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, override_usage = "sbx-apply file delete [OPTIONS] [SPEC] <SANDBOX> <PATH>")]
pub(super) struct Args {
    /// Spec, as everywhere, the sandbox's name in it, and a path inside
    #[arg(value_name = "SPEC SANDBOX PATH", num_args = 1..=3, required = true)]
    words: Vec<OsString>,

    /// A folder too, with all that lies in it
    #[arg(long)]
    recursive: bool,
}

/// Deletes it.
pub(super) async fn run(args: &Args, settings: &Settings) -> Result<Code, Error> {
    let named = Named::of(&args.words, &["PATH"])?;
    let path = super::path(&named.rest[0])?;
    let loaded = session::load(settings, &named.spec)?;
    let interrupts = Interrupts::listen();
    let looked = interrupts.guard(async {
        let backend = session::open(settings, &loaded.desired.backend).await?;
        let found = find(&*backend, &loaded, &named.sandbox).await?;
        let query = Query {
            opaque: [path.clone()].into(),
            bound: 0,
            ..Query::default()
        };
        let there = backend.inspect(&found.instance.name, &query).await?;
        Ok::<_, Error>((backend, found, there))
    });
    let (backend, found, there) = looked.await??;
    let folder = there.get(&path).is_some_and(|there| there.shape == Shape::Directory);
    if folder && !args.recursive {
        return Err(Error::usage(
            format!("`{path}` in `{}` is a folder", found.name),
            "delete it with all that lies in it: --recursive",
        ));
    }
    backend.delete_file(&found.instance.name, &path).await?;
    backend.close().await?;
    Ok(Code::Done)
}
