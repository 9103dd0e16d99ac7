//! `plan`: what would change.

use super::super::Code;
use super::super::error::Error;
use super::super::session::{self, FormatArgs, PlanArgs, SpecArg};
use super::super::settings::Settings;
use crate::view::{human, json, markdown};

const EXAMPLES: &str = "\
Examples:
  sbx-apply plan
  sbx-apply plan sbx.yaml --target task --json
  sbx-apply plan --detailed-exitcode   in CI: 0 in sync, 2 pending, 3 drifted, 4 refused, 1 error";

/// Arguments of `plan`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    spec: SpecArg,

    #[command(flatten)]
    plan: PlanArgs,

    #[command(flatten)]
    format: FormatArgs,

    /// Exit with 2 for pending changes and 3 for drift or conflicts
    #[arg(long)]
    detailed_exitcode: bool,
}

/// Shows the plan.
pub(super) async fn run(args: &Args, settings: &Settings) -> Result<Code, Error> {
    let (loaded, made) = session::plan_of(settings, &args.spec, &args.plan).await?;
    let plan = &made.plan;
    settings.output.result(&if args.format.json {
        json::document(plan)
    } else if args.format.markdown {
        markdown::plan(plan)
    } else {
        human::plan(plan)
    });
    match session::refusals(plan, Some(&loaded)) {
        Some(refused) => Err(refused),
        None if args.detailed_exitcode => Ok(Code::of_plan(plan)),
        None => Ok(Code::Done),
    }
}
