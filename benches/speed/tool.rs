//! The tool, as a user runs it.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::floor::FILES;
use super::{Times, timed};

const BASE: &str = r#"
environment "bench"
backend "incus"
sandbox "base" { image "busybox"; state "stopped"; snapshot "ready"; }
"#;

/// The base whose snapshot both sides clone.
pub(crate) fn prepare(socket: &str) {
    sbx_apply(socket, &["apply", "-", "--yes"], BASE);
}

/// Removes everything.
pub(crate) fn clean(socket: &str) {
    sbx_apply(socket, &["destroy", "-", "--yes", "--allow-data-loss"], BASE);
}

/// Applies, plans once more and removes the clones again. Gives the times and the most memory it ever had, in KiB.
pub(crate) fn run(socket: &str, count: usize) -> (Times, u64) {
    let files: String = FILES
        .iter()
        .map(|(path, mode, content)| format!("file \"{path}\" content={content:?} mode=\"{mode}\"\n"))
        .collect();
    let spec = format!(
        "{BASE}\nsandbox \"task\" count={count} {{ clone-from \"base\" snapshot=\"ready\"\n{files}snapshot \"made\"\n}}\n"
    );
    let mut memory = 0;
    let apply = timed(|| memory = memory.max(sbx_apply(socket, &["apply", "-", "--yes"], &spec)));
    let no_op = timed(|| memory = memory.max(sbx_apply(socket, &["plan", "-", "--detailed-exitcode"], &spec)));
    sbx_apply(socket, &["apply", "-", "--yes", "--prune", "--allow-data-loss"], BASE);
    (Times { apply, no_op }, memory)
}

/// Runs the tool on a spec from its standard input, and fails with its output when it does.
fn sbx_apply(socket: &str, arguments: &[&str], spec: &str) -> u64 {
    let mut child = Command::new(PathBuf::from(env!("CARGO_BIN_EXE_sbx-apply")))
        .args(arguments)
        .env("INCUS_SOCKET", socket)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the tool starts");
    child
        .stdin
        .take()
        .expect("a pipe")
        .write_all(spec.as_bytes())
        .expect("the tool reads");
    let status = format!("/proc/{}/status", child.id());
    let mut most = 0;
    loop {
        most = most.max(high_water(&status).unwrap_or_default());
        if let Some(ended) = child.try_wait().expect("waits") {
            assert!(ended.success(), "`sbx-apply {}` failed: {ended}", arguments.join(" "));
            return most;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The most memory a process has had so far, in KiB: `VmHWM` of proc(5).
fn high_water(status: &str) -> Option<u64> {
    let text = std::fs::read_to_string(status).ok()?;
    text.lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}
