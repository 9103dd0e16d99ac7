//! `file write`: a file from standard input.

use std::ffi::OsString;

use super::super::super::Code;
use super::super::super::error::Error;
use super::super::super::interrupt::Interrupts;
use super::super::super::sandbox::{Named, find};
use super::super::super::session;
use super::super::super::settings::Settings;
use crate::model::{Mode, Owner, Query, Shape};

const EXAMPLES: &str = "\
A file that is there keeps its mode and owner. A new one is 0644 and root's, or the sandbox's user's
below that user's home; missing folders are made with the same owner. The file is replaced as a
whole, or not at all; a link is replaced, not followed. What the spec declares is drift until the
spec agrees.

Examples:
  sbx-apply file write task-1 /srv/data.bin < data.bin
  echo hello | sbx-apply file write sbx.kdl task-1 /home/dev/hello --mode 0600";

/// Arguments of `file write`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, override_usage = "sbx-apply file write [OPTIONS] [SPEC] <SANDBOX> <PATH>")]
pub(super) struct Args {
    /// Spec, as everywhere, the sandbox's name in it, and a path inside
    #[arg(value_name = "SPEC SANDBOX PATH", num_args = 1..=3, required = true)]
    words: Vec<OsString>,

    /// Permissions, in octal digits
    #[arg(long, value_name = "MODE", value_parser = mode)]
    mode: Option<Mode>,

    /// Owner by its numbers in the sandbox; the group is the same where none is said
    #[arg(long, value_name = "UID[:GID]", value_parser = owner)]
    owner: Option<Owner>,
}

fn mode(text: &str) -> Result<Mode, String> {
    text.parse::<Mode>().map_err(|error| error.to_string())
}

fn owner(text: &str) -> Result<Owner, String> {
    let (uid, gid) = text.split_once(':').unwrap_or((text, text));
    let number = |text: &str| {
        text.parse()
            .map_err(|_| format!("`{text}` is no number of a user or group"))
    };
    Ok(Owner {
        uid: number(uid)?,
        gid: number(gid)?,
    })
}

/// Permissions that a file can be given.
const PERMISSIONS: u32 = 0o777;

/// Writes what comes.
pub(super) async fn run(args: &Args, settings: &Settings) -> Result<Code, Error> {
    let named = Named::of(&args.words, &["PATH"])?;
    let path = super::path(&named.rest[0])?;
    if named.spec.is_stdin() {
        return Err(Error::usage(
            "standard input cannot be the spec and the file's content",
            "give the spec by its path",
        ));
    }
    let loaded = session::load(settings, &named.spec)?;
    let desired = &loaded.desired;
    if settings.terminals.stdin {
        settings.output.note("Reading from the terminal; Ctrl-D ends.");
    }
    let mut content = settings.stdin.take()?;
    let interrupts = Interrupts::listen();
    let write = interrupts.guard(async {
        let backend = session::open(settings, &desired.backend).await?;
        let found = find(&*backend, &loaded, &named.sandbox).await?;
        let query = Query {
            opaque: [path.clone()].into(),
            bound: 0,
            ..Query::default()
        };
        let there = backend.inspect(&found.instance.name, &query).await?;
        let there = there.get(&path);
        if there.is_some_and(|there| there.shape == Shape::Directory) {
            return Err(Error::usage(
                format!("`{path}` in `{}` is a folder", found.name),
                "name a file in it",
            ));
        }
        let kept = there.filter(|there| matches!(there.shape, Shape::File { .. }));
        let mode = kept.map_or(Mode::FILE, |kept| Mode::of_bits(kept.mode.bits() & PERMISSIONS));
        let owner = kept.map_or_else(|| found.owner_at(desired, &path), |kept| kept.owner);
        let (mode, owner) = (args.mode.unwrap_or(mode), args.owner.unwrap_or(owner));
        backend
            .write_stream(&found.instance.name, &path, &mut content, mode, Some(owner))
            .await?;
        Ok(backend.close().await?)
    });
    write.await??;
    Ok(Code::Done)
}
