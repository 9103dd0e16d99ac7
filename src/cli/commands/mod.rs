//! The commands, one file each.

mod adopt;
mod apply;
mod check;
mod completions;
mod console;
mod convert;
mod destroy;
mod doctor;
mod exec;
mod export;
mod file;
mod gc;
mod graph;
mod plan;
mod schema;
mod show;
mod snapshot;
mod validate;

use clap::Subcommand;

use super::Code;
use super::error::Error;
use super::settings::Settings;

/// What to do.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show what would change; writes nothing anywhere
    Plan(plan::Args),
    /// Bring the live system in line with the spec
    Apply(apply::Args),
    /// Check for drift: changes nothing, asks nothing, and the exit code tells
    Check(check::Args),
    /// Delete all that the environment owns
    Destroy(destroy::Args),
    /// Delete the sandboxes that have outlived their ttl
    Gc(gc::Args),
    /// Make an instance that is there a sandbox of the spec; changes nothing but its labels
    Adopt(adopt::Args),
    /// Write what is there as a spec
    Export(export::Args),
    /// Check a spec without reaching for the backend
    Validate(validate::Args),
    /// Show the sandboxes that there are
    Show(show::Args),
    /// Run a command in a sandbox
    Exec(exec::Args),
    /// Open a session in a sandbox, on this terminal
    Console(console::Args),
    /// Read, write, list and delete files in a sandbox
    File(file::Args),
    /// List, take, delete and restore snapshots of a sandbox
    Snapshot(snapshot::Args),
    /// Look whether sandboxes can be made here, and what is missing
    Doctor(doctor::Args),
    /// Draw the plan's steps as a graph
    Graph(graph::Args),
    /// Turn a spec into the other language
    Convert(convert::Args),
    /// Print a JSON Schema
    Schema(schema::Args),
    /// Print completions for a shell
    Completions(completions::Args),
}

/// Carries a command out.
pub(super) async fn run(command: Command, settings: &Settings) -> Result<Code, Error> {
    match command {
        Command::Plan(args) => plan::run(&args, settings).await,
        Command::Apply(args) => apply::run(&args, settings).await,
        Command::Check(args) => check::run(&args, settings).await,
        Command::Destroy(args) => destroy::run(&args, settings).await,
        Command::Gc(args) => gc::run(&args, settings).await,
        Command::Adopt(args) => adopt::run(&args, settings).await,
        Command::Export(args) => export::run(&args, settings).await,
        Command::Validate(args) => validate::run(&args, settings),
        Command::Show(args) => show::run(&args, settings).await,
        Command::Exec(args) => exec::run(&args, settings).await,
        Command::Console(args) => console::run(&args, settings).await,
        Command::File(args) => file::run(&args, settings).await,
        Command::Snapshot(args) => snapshot::run(&args, settings).await,
        Command::Doctor(args) => doctor::run(&args, settings).await,
        Command::Graph(args) => graph::run(&args, settings).await,
        Command::Convert(args) => convert::run(&args, settings),
        Command::Schema(args) => schema::run(&args, settings),
        Command::Completions(args) => Ok(completions::run(&args, settings)),
    }
}
