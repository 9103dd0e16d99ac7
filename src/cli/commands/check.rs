//! `check`: does the live system match the spec?

use super::super::Code;
use super::super::error::Error;
use super::super::interrupt::Interrupts;
use super::super::probing::{ProbeArgs, leaks};
use super::super::session::{self, FormatArgs, PlanArgs, SpecArg};
use super::super::settings::Settings;
use crate::view::{human, json, markdown};

const EXAMPLES: &str = "\
Reads, and changes nothing; never asks. Ends with
  0 in sync                      2 the spec has changes that are not applied
  3 drift, conflict or an egress leak, also where there are such changes too
  4 something is refused         1 an error

Examples:
  sbx-apply check
  sbx-apply check sbx.yaml --json | jq .summary.drift
  sbx-apply check --markdown > comment.md
  sbx-apply check --probe --canary 192.0.2.7:443";

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

    #[command(flatten)]
    probe: ProbeArgs,
}

/// Shows what differs and which side moved; the exit code says the same.
pub(super) async fn run(args: &Args, settings: &Settings) -> Result<Code, Error> {
    let (loaded, made) = session::plan_of(settings, &args.spec, &args.plan, true).await?;
    let plan = &made.plan;
    let interrupts = Interrupts::listen();
    let probed = args
        .probe
        .check(settings, &interrupts, &loaded.desired, (plan, &made.live));
    let probed = probed.await?;
    let seen = probed.as_deref().unwrap_or_default();
    settings.output.result(&if args.format.json {
        json::check(plan, seen)
    } else if args.format.markdown {
        markdown::check(plan, seen)
    } else {
        human::check(plan)
    });
    if probed.is_some() && !args.format.json && !args.format.markdown {
        settings.output.result(&format!("\n{}", human::probes(seen)));
    }
    match session::refusals(plan, Some(&loaded)) {
        Some(refused) => Err(refused),
        None if leaks(seen) => Ok(Code::Drift),
        None => Ok(Code::of_plan(plan)),
    }
}
