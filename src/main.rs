//! The `sbx-apply` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    sbx_apply::cli::run()
}
