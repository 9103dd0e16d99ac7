//! The conformance suite once more, and what hostile sandboxes try, as an ordinary user of this machine: one that no account
//! has, or `SBX_TEST_UID`, which may be an account with ranges in `/etc/subuid` and `/etc/subgid`.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use crate::support::daemon::skipped;

/// An id that no account has.
const NOBODY: u32 = 64_321;

fn somebody() -> u32 {
    let given = std::env::var("SBX_TEST_UID").ok();
    given.map_or(NOBODY, |given| given.parse().expect("SBX_TEST_UID is a number"))
}

#[test]
fn an_ordinary_user_has_the_same_promises() {
    if !rustix::process::geteuid().is_root() {
        skipped("the suite as an ordinary user: that is what the tests run as");
        return;
    }
    let uid = somebody();
    let own = std::env::current_exe().expect("a program");
    let folder = tempfile::Builder::new()
        .prefix("sbx-user-")
        .tempdir_in("/var/tmp")
        .expect("a folder");
    std::os::unix::fs::chown(folder.path(), Some(uid), Some(uid)).expect("gives it away");
    let run = |arguments: &[&str]| {
        let mut command = Command::new(&own);
        command.args(arguments).env_clear().env("SBX_TEST_LOCAL", folder.path());
        command.env("SBX_KILLS", "6");
        command.env("RUST_BACKTRACE", "0").current_dir("/").uid(uid).gid(uid);
        command.output()
    };
    let makes_namespaces = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "true"])
        .uid(uid)
        .gid(uid)
        .status();
    if run(&["--list"]).is_err() || !makes_namespaces.is_ok_and(|status| status.success()) {
        skipped("the suite as an ordinary user: who cannot reach the tests, or make user namespaces, on this machine");
        return;
    }
    let own = [
        "cli::sessions::on_local::",
        "conformance::suite::on_local::",
        "crash::kills::on_local::",
        "crash::two::on_local::",
        "local::archives::",
        "local::closed::",
        "local::hostile::",
        "local::packages::",
        "local::limits::",
        "local::ports::",
        "local::reboot::",
        "local::still::",
        "trust::saved::on_local::",
        "trust::stale::on_local::",
    ];
    let output = run(&[&own[..], &["--test-threads", "2"]].concat()).expect("runs");
    let said = String::from_utf8_lossy(&output.stdout);
    let end: String = said
        .chars()
        .rev()
        .take(6000)
        .collect::<Vec<_>>()
        .into_iter()
        .rev()
        .collect();
    assert!(output.status.success(), "{end}");
    assert!(
        said.contains("test result: ok. ") && !said.contains(" 0 passed"),
        "{end}"
    );
}
