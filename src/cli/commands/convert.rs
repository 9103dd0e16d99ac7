//! `convert`: from one language of specs to the other.

use std::path::PathBuf;

use clap::ValueEnum;

use super::super::Code;
use super::super::error::Error;
use super::super::settings::Settings;

/// Arguments of `convert`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Spec to convert: a path, or - for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// The language to convert to
    #[arg(long, value_name = "FORMAT")]
    to: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// KDL
    Kdl,
    /// YAML
    Yaml,
}

/// Prints the spec in the other language.
pub(super) fn run(args: &Args, _settings: &Settings) -> Result<Code, Error> {
    let _ = (&args.file, args.to);
    Err(Error::usage("cannot convert yet", "write it by hand"))
}
