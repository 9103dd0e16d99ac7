//! `file read`: a file's bytes.

use std::ffi::OsString;
use std::io::ErrorKind;

use super::super::super::Code;
use super::super::super::error::Error;
use super::super::super::interrupt::Interrupts;
use super::super::super::sandbox::{Named, find};
use super::super::super::session;
use super::super::super::settings::Settings;
use crate::backend;
use crate::view::Channel;

/// What is read where nobody says how much: what every backend can hold at once.
const MOST: u64 = 128 << 20;

const EXAMPLES: &str = "\
Examples:
  sbx-apply file read task-1 /etc/motd
  sbx-apply file read sbx.kdl task-1 /var/log/app.log --max-bytes 4096";

/// Arguments of `file read`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, override_usage = "sbx-apply file read [OPTIONS] [SPEC] <SANDBOX> <PATH>")]
pub(super) struct Args {
    /// Spec, as everywhere, the sandbox's name in it, and a path inside
    #[arg(value_name = "SPEC SANDBOX PATH", num_args = 1..=3, required = true)]
    words: Vec<OsString>,

    /// Only so many bytes; when there are more, standard error says so
    #[arg(long, value_name = "N")]
    max_bytes: Option<u64>,
}

/// Prints the bytes, as they are.
pub(super) async fn run(args: &Args, settings: &Settings) -> Result<Code, Error> {
    let named = Named::of(&args.words, &["PATH"])?;
    let path = super::path(&named.rest[0])?;
    let loaded = session::load(settings, &named.spec)?;
    let most = args.max_bytes.unwrap_or(MOST);
    let interrupts = Interrupts::listen();
    let read = interrupts.guard(async {
        let reader = session::open_reader(settings, &loaded.desired.backend).await?;
        let found = find(&*reader, &loaded, &named.sandbox).await?;
        Ok::<_, Error>(reader.read(&found.instance.name, &path, most.min(MOST)).await?)
    });
    let (bytes, truncated) = read.await??;
    if truncated && args.max_bytes.is_none_or(|wanted| wanted > MOST) {
        let message = format!("`{path}` in `{}` has more than {MOST} bytes", named.sandbox);
        let hint = format!(
            "read its beginning with --max-bytes, or all of it with `sbx-apply exec {} -- cat {path}`",
            named.sandbox
        );
        return Err(backend::Error::unsupported(message).with_hint(hint).into());
    }
    match settings.output.bytes(Channel::Results, &bytes) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => return Err(Error::io("cannot write the file", error)),
        _ => {}
    }
    if truncated {
        settings.output.message(&format!(
            "Truncated: these are the first {} bytes of `{path}`.",
            bytes.len()
        ));
    }
    Ok(Code::Done)
}
