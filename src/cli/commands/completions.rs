//! `completions`: for the caller's shell.

use clap_complete::{Shell, generate};

use super::super::Code;
use super::super::settings::Settings;

const EXAMPLES: &str = "\
Examples:
  sbx-apply completions bash > ~/.local/share/bash-completion/completions/sbx-apply
  sbx-apply completions fish > ~/.config/fish/completions/sbx-apply.fish";

/// Arguments of `completions`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Which shell
    shell: Shell,
}

/// Prints the completions.
pub(super) fn run(args: &Args, settings: &Settings) -> Code {
    let mut script = Vec::new();
    generate(
        args.shell,
        &mut super::super::Args::definition(),
        "sbx-apply",
        &mut script,
    );
    settings.output.result(&String::from_utf8_lossy(&script));
    Code::Done
}
