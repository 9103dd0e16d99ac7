//! The command line: arguments → settings → a command → an exit code.
//!
//! The only floor that reads the caller's environment, once, in [`Host::of_process`]; everything below is
//! handed what it needs. Each command is a file of `commands`: its arguments and its function.

mod args;
mod commands;
mod consent;
mod error;
mod exit_code;
mod host;
mod interrupt;
mod lock;
mod process;
mod sandbox;
mod saved;
mod secrets;
mod session;
mod settings;
mod stdin;
mod streams;
mod terminal;
mod unknown;

pub use args::Args;
pub use exit_code::Code;
pub use host::{Host, Terminals};

use std::process::ExitCode;

use crate::backend::local;
use crate::view::diagnostics::Style;
use error::Error;
use settings::Settings;

/// Runs the program: this process's arguments, environment and streams.
#[must_use]
pub fn run() -> ExitCode {
    // The program starts itself again for what sandboxes of the local backend need a process of their own for.
    if std::env::args_os().nth(1).is_some_and(|first| first == local::ENTRY) {
        return local::helper();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let host = Host::of_process();
    let code = match runtime {
        Ok(runtime) => {
            let code = runtime.block_on(main(host));
            // A prompt that is still being waited for must not hold up the end.
            runtime.shutdown_background();
            code
        }
        Err(error) => {
            let output = Settings::plain(host);
            Error::io("cannot start", error).report(&output, Style::default());
            Code::Error
        }
    };
    code.into()
}

/// Runs the program for a host: reads its arguments, carries the command out and reports what went wrong.
pub async fn main(host: Host) -> Code {
    let args = match Args::read(&host.arguments) {
        Ok(args) => args,
        Err(error) => return usage(&error, host),
    };
    let (settings, command) = Settings::of(args, host);
    let (output, style) = (settings.output.clone(), settings.diagnostics);
    let code = match commands::run(command, &settings).await {
        Ok(code) => code,
        Err(error) => {
            error.report(&output, style);
            error.code()
        }
    };
    match output.trouble() {
        Some(error) if code == Code::Done => {
            Error::io("cannot write the result", error).report(&output, style);
            Code::Error
        }
        _ => code,
    }
}

/// Help and version go to standard output and are no failure; wrong arguments are.
fn usage(error: &clap::Error, host: Host) -> Code {
    let output = Settings::plain(host);
    let text = error.render().ansi().to_string();
    if error.use_stderr() {
        output.message(text.trim_end());
        Code::Error
    } else {
        output.result(text.trim_end());
        Code::Done
    }
}
