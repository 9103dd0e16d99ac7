//! `convert`: from one language of specs to the other.

use std::path::{Path, PathBuf};

use clap::ValueEnum;

use super::super::Code;
use super::super::error::Error;
use super::super::session;
use super::super::settings::Settings;
use crate::spec::{self, Format};

const NOTES: &str = "\
The result means the same and goes to standard output. Comments and layout are lost; included
files are named by their new extension, and are to be converted too.

Examples:
  sbx-apply convert sbx.kdl --to yaml > sbx.yaml";

/// Arguments of `convert`.
#[derive(Debug, clap::Args)]
#[command(after_help = NOTES)]
pub(crate) struct Args {
    /// Spec to convert: a path, or - for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// The language to convert to
    #[arg(long, value_name = "FORMAT")]
    to: Language,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Language {
    Kdl,
    Yaml,
}

/// Prints the spec in the other language.
pub(super) fn run(args: &Args, settings: &Settings) -> Result<Code, Error> {
    let (to, other) = match args.to {
        Language::Kdl => (Format::Kdl, Format::Yaml),
        Language::Yaml => (Format::Yaml, Format::Kdl),
    };
    let (name, bytes) = if args.file == Path::new("-") {
        ("<stdin>".to_owned(), session::read_stdin()?)
    } else {
        let name = args.file.to_string_lossy().into_owned();
        let bytes = session::read_spec(&args.file)?;
        (name, bytes)
    };
    // A name that tells nothing is taken for what makes the request meaningful.
    let from = Format::of_name(&name).unwrap_or(other);
    settings.output.result(&spec::convert(&name, &bytes, from, to)?);
    Ok(Code::Done)
}
