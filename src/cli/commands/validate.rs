//! `validate`: is the spec good?

use super::super::Code;
use super::super::error::Error;
use super::super::session::{self, SpecArg};
use super::super::settings::Settings;
use crate::view::human::counted;

/// Arguments of `validate`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    spec: SpecArg,
}

/// Reads and checks the spec; everything that is wrong with it is an error.
pub(super) fn run(args: &Args, settings: &Settings) -> Result<Code, Error> {
    let loaded = session::load(settings, &args.spec)?;
    let desired = &loaded.desired;
    if !settings.output.quiet() {
        settings.output.result(&format!(
            "Valid: environment {} on {}, {}.",
            desired.environment,
            crate::view::clean(&desired.backend.name),
            counted(desired.sandboxes.len(), "sandbox", "sandboxes")
        ));
    }
    Ok(Code::Done)
}
