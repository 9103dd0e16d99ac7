//! `file`: bytes in and out of sandboxes.

mod delete;
mod list;
mod read;
mod write;

use clap::Subcommand;

use super::super::Code;
use super::super::error::Error;
use super::super::settings::Settings;
use crate::model::GuestPath;

const EXAMPLES: &str = "\
Of running and of stopped sandboxes, as root sees them. Links inside lead nowhere outside.

Examples:
  sbx-apply file read task-1 /etc/motd
  sbx-apply file write task-1 /srv/data.bin < data.bin
  sbx-apply file list task-1 /srv --recursive --json
  sbx-apply file delete task-1 /srv/data.bin";

/// Arguments of `file`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, disable_help_subcommand = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Print a file's bytes
    Read(read::Args),
    /// Write a file from standard input
    Write(write::Args),
    /// List a folder
    List(list::Args),
    /// Delete a file, a link, or a folder
    Delete(delete::Args),
}

/// Does one of them.
pub(super) async fn run(args: &Args, settings: &Settings) -> Result<Code, Error> {
    match &args.what {
        What::Read(args) => read::run(args, settings).await,
        What::Write(args) => write::run(args, settings).await,
        What::List(args) => list::run(args, settings).await,
        What::Delete(args) => delete::run(args, settings).await,
    }
}

/// The path that was typed; a closing `/` says nothing.
fn path(text: &str) -> Result<GuestPath, Error> {
    let closed = text.trim_end_matches('/');
    GuestPath::new(if closed.is_empty() { text } else { closed }).map_err(|error| {
        Error::usage(
            format!("`{text}`: {error}"),
            "name it as it stands in the sandbox, from its root: /etc/motd",
        )
    })
}
