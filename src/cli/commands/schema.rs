//! `schema`: the JSON Schemas of what goes in and what comes out.

use clap::ValueEnum;

use super::super::Code;
use super::super::error::Error;
use super::super::settings::Settings;
use crate::spec;
use crate::view::json;

/// Arguments of `schema`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Of what
    #[arg(value_name = "DOCUMENT")]
    of: Document,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Document {
    /// A spec in YAML
    Spec,
    /// What plan --json prints
    Plan,
    /// Each line of what apply --json and destroy --json print
    Events,
}

/// Prints the schema.
pub(super) fn run(args: &Args, settings: &Settings) -> Result<Code, Error> {
    let schema = match args.of {
        Document::Spec => spec::schema(),
        Document::Plan => json::plan_schema(),
        Document::Events => json::events_schema(),
    };
    settings.output.result(&json::pretty(&schema));
    Ok(Code::Done)
}
