//! The program from outside: help, usage, exit codes, streams.
//!
//! The texts stand in `*.trycmd` files beside this one (`TRYCMD=overwrite` writes them anew); what needs a
//! backend runs inside the test, with the simulated one.

mod codes;
mod ending;
mod inside;
mod saved;
mod sessions;

#[test]
fn texts() {
    trycmd::TestCases::new()
        .env("NO_COLOR", "1")
        .case("tests/cli/*.trycmd")
        .run();
}
