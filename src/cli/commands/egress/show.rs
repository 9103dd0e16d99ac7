//! `egress show`: what is open.

use std::ffi::OsString;

use super::super::super::Code;
use super::super::super::error::Error;
use super::super::super::interrupt::Interrupts;
use super::super::super::sandbox::{Named, find_made};
use super::super::super::session;
use super::super::super::settings::Settings;
use crate::view::egress;

const EXAMPLES: &str = "\
Every destination that the spec opens, those of the agent preset included, with the addresses that
are pinned; and what is in force and the spec does not say. Of a sandbox that has not been made yet,
what the spec opens.

Examples:
  sbx-apply egress show task-1
  sbx-apply egress show sbx.kdl task-1 --json";

/// Arguments of `egress show`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, override_usage = "sbx-apply egress show [OPTIONS] [SPEC] <SANDBOX>")]
pub(super) struct Args {
    /// Spec, as everywhere, and the sandbox's name in it
    #[arg(value_name = "SPEC SANDBOX", num_args = 1..=2, required = true)]
    words: Vec<OsString>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Shows it.
pub(super) async fn run(args: &Args, settings: &Settings) -> Result<Code, Error> {
    let named = Named::of(&args.words, &[])?;
    let loaded = session::load(settings, &named.spec)?;
    let interrupts = Interrupts::listen();
    let found = interrupts.guard(async {
        let reader = session::open_reader(settings, &loaded.desired.backend).await?;
        find_made(&*reader, &loaded, &named.sandbox).await
    });
    let found = found.await??;
    let all = &loaded.desired.sandboxes;
    let declared = match &found {
        Some(found) => all.get(&found.name),
        None => all.values().find(|sandbox| sandbox.name.as_str() == named.sandbox),
    };
    let declared = declared.and_then(|sandbox| sandbox.egress.as_ref());
    let shown = match &found {
        Some(found) => egress::Egress::of(&found.name, declared, found.instance.egress.as_ref()),
        None => egress::Egress::to_be(&named.sandbox, declared),
    };
    settings.output.result(&match args.json {
        true => shown.json(),
        false => shown.text(),
    });
    Ok(Code::Done)
}
