//! `doctor`: can sandboxes be made, and what is missing?

use super::super::Code;
use super::super::error::Error;
use super::super::interrupt::Interrupts;
use super::super::session::{self, SpecArg};
use super::super::settings::Settings;
use crate::view::doctor::{self, Doctor};

const EXAMPLES: &str = "\
Of the backend that --backend names, or the spec, or the one in this folder; of `local` where there
is none. Changes nothing. Ends with 1 where no sandboxes can be made.

Examples:
  sbx-apply doctor
  sbx-apply doctor --backend incus
  sbx-apply doctor sbx.kdl --json";

/// Arguments of `doctor`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    spec: SpecArg,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Looks, and tells.
pub(super) async fn run(args: &Args, settings: &Settings) -> Result<Code, Error> {
    let choice = match args.spec.spec {
        Some(_) => session::load(settings, &args.spec)?.desired.backend,
        None => session::backend_of(settings)?,
    };
    let connection = settings.connection(&choice);
    let examine = settings.registry.examine(&choice.name, &connection);
    let interrupts = Interrupts::listen();
    let examination = interrupts.guard(examine).await??;
    let found = Doctor::new(&choice.name, &examination);
    settings.output.result(&match args.json {
        true => doctor::json(&found),
        false => doctor::human(&found),
    });
    Ok(match found.usable {
        true => Code::Done,
        false => Code::Error,
    })
}
