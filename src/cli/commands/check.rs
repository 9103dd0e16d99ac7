//! `check`: does the live system match the spec?

use super::super::Code;
use super::super::error::Error;
use super::super::session::{self, FormatArgs, PlanArgs, SpecArg};
use super::super::settings::Settings;
use crate::view::{human, json, markdown};

const EXAMPLES: &str = "\
Reads, and changes nothing; never asks. Ends with
  0 in sync                      2 the spec has changes that are not applied
  3 drift or conflict, also where there are such changes too
  4 something is refused         1 an error

Examples:
  sbx-apply check
  sbx-apply check sbx.yaml --json | jq .summary.drift
  sbx-apply check --markdown > comment.md";

/// Arguments of `check`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    spec: SpecArg,

    #[command(flatten)]
    plan: PlanArgs,

    #[command(flatten)]
    format: FormatArgs,
}

/// Shows what differs and which side moved; the exit code says the same.
pub(super) async fn run(args: &Args, settings: &Settings) -> Result<Code, Error> {
    let (loaded, made) = session::plan_of(settings, &args.spec, &args.plan, true).await?;
    let plan = &made.plan;
    settings.output.result(&if args.format.json {
        json::check(plan)
    } else if args.format.markdown {
        markdown::check(plan)
    } else {
        human::check(plan)
    });
    match session::refusals(plan, Some(&loaded)) {
        Some(refused) => Err(refused),
        None => Ok(Code::of_plan(plan)),
    }
}
