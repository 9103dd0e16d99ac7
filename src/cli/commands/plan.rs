//! `plan`: what would change.

use std::path::PathBuf;

use super::super::Code;
use super::super::error::Error;
use super::super::saved;
use super::super::session::{self, FormatArgs, PlanArgs, SpecArg};
use super::super::settings::Settings;
use crate::view::{human, json, markdown};

const EXAMPLES: &str = "\
Examples:
  sbx-apply plan
  sbx-apply plan sbx.yaml --target task --json
  sbx-apply plan --out plan.json && sbx-apply apply plan.json
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

    /// Keep the plan in this file, for `apply FILE`; its name ends in .json
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// Exit with 2 for pending changes and 3 for drift or conflicts
    #[arg(long)]
    detailed_exitcode: bool,
}

/// Shows the plan.
pub(super) async fn run(args: &Args, settings: &Settings) -> Result<Code, Error> {
    if let Some(out) = &args.out {
        saved::check_target(out, &args.spec)?;
    }
    let (loaded, made) = session::plan_of(settings, &args.spec, &args.plan, false).await?;
    let plan = &made.plan;
    settings.output.result(&if args.format.json {
        json::document(plan)
    } else if args.format.markdown {
        markdown::plan(plan)
    } else {
        human::plan(plan)
    });
    let refused = session::refusals(plan, Some(&loaded));
    if let (Some(out), None) = (&args.out, &refused) {
        saved::write(out, settings, &args.spec, &args.plan, &loaded, &made)?;
        let out = out.display();
        settings
            .output
            .note(&format!("Kept as {out}. `sbx-apply apply {out}` does exactly this."));
    }
    match refused {
        Some(refused) => Err(refused),
        None if args.detailed_exitcode => Ok(Code::of_plan(plan)),
        None => Ok(Code::Done),
    }
}
