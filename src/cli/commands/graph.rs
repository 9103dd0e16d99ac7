//! `graph`: the plan's steps and their order.

use clap::ValueEnum;

use super::super::Code;
use super::super::error::Error;
use super::super::session::{self, PlanArgs, SpecArg};
use super::super::settings::Settings;
use crate::view::graph;

const EXAMPLES: &str = "\
Examples:
  sbx-apply graph --format svg > plan.svg
  sbx-apply graph | dot -Tpng > plan.png
  sbx-apply graph --format mermaid";

/// Arguments of `graph`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    spec: SpecArg,

    #[command(flatten)]
    plan: PlanArgs,

    /// The language of the graph
    #[arg(long, value_name = "FORMAT", default_value = "dot")]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Graphviz
    Dot,
    /// Mermaid
    Mermaid,
    /// A picture, to be opened in a browser
    Svg,
}

/// Draws the plan.
pub(super) async fn run(args: &Args, settings: &Settings) -> Result<Code, Error> {
    let (loaded, made) = session::plan_of(settings, &args.spec, &args.plan, false).await?;
    settings.output.result(&match args.format {
        Format::Dot => graph::dot(&made.plan),
        Format::Mermaid => graph::mermaid(&made.plan),
        Format::Svg => graph::svg(&made.plan),
    });
    match session::refusals(&made.plan, Some(&loaded)) {
        Some(refused) => Err(refused),
        None => Ok(Code::Done),
    }
}
