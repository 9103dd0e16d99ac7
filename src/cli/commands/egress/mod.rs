//! `egress`: what a sandbox may reach, looked at and changed in between.

mod change;
mod show;

use clap::Subcommand;

use super::super::Code;
use super::super::error::Error;
use super::super::settings::Settings;

const EXAMPLES: &str = "\
What is changed here is drift until the spec says the same: the next apply undoes it. All that
share a policy are changed together, and named.

Examples:
  sbx-apply egress show task-1
  sbx-apply egress allow task-1 registry.example.com --port 443
  sbx-apply egress deny task-1 registry.example.com
  sbx-apply egress set task-1 none";

/// Arguments of `egress`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, disable_help_subcommand = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Show what is open, by the spec and in force
    Show(show::Args),
    /// Put a mode in force: unrestricted, agent, allowlist or none
    Set(change::SetArgs),
    /// Open a destination
    Allow(change::AllowArgs),
    /// Close a destination
    Deny(change::DenyArgs),
}

/// Does one of them.
pub(super) async fn run(args: &Args, settings: &Settings) -> Result<Code, Error> {
    match &args.what {
        What::Show(args) => show::run(args, settings).await,
        What::Set(args) => change::set(args, settings).await,
        What::Allow(args) => change::allow(args, settings).await,
        What::Deny(args) => change::deny(args, settings).await,
    }
}
