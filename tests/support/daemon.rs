//! The real Incus daemon, for tests that want one.
//!
//! `tests/incus/daemon start` starts a private one and says where it listens; `SBX_TEST_INCUS=1` says that the
//! tests may use the daemon at `INCUS_SOCKET`, so that nobody's own one is ever touched by accident.

use std::env;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::{Arc, Once};

use sbx_apply::backend::{Registry, Sandboxes, Settings};

/// A daemon that may be used.
#[derive(Debug, Clone)]
pub(crate) struct Daemon {
    /// Its unix socket.
    pub(crate) socket: PathBuf,
}

/// The daemon that the tests may use. None is said aloud, and is a failure in CI, where nobody would read it.
///
/// # Panics
/// When there is none and `CI` is set.
pub(crate) fn find() -> Option<Daemon> {
    let socket = env::var_os("INCUS_SOCKET").map(PathBuf::from);
    let missing = match socket {
        _ if env::var("SBX_TEST_INCUS").as_deref() != Ok("1") => "SBX_TEST_INCUS is not 1",
        None => "INCUS_SOCKET is not set",
        Some(socket) if !socket.exists() => "nothing listens at INCUS_SOCKET",
        Some(socket) => return Some(Daemon { socket }),
    };
    assert!(env::var_os("CI").is_none(), "no daemon for the tests, in CI: {missing}");
    // Every check asks; once is loud enough.
    static SAID: Once = Once::new();
    SAID.call_once(|| skipped(&format!("every check against a real daemon: {missing}")));
    None
}

/// The Incus backend at a daemon.
pub(crate) async fn open(daemon: &Daemon) -> Option<Arc<dyn Sandboxes>> {
    let settings = Settings::from([("socket".to_owned(), daemon.socket.display().to_string())]);
    let backend = Registry::standard().open("incus", &settings).await;
    Some(backend.expect("a daemon that listens can be opened"))
}

/// Says that something was not checked.
pub(crate) fn skipped(what: &str) {
    tell(&format!("SKIPPED: {what}"));
}

/// Says something past the test harness, which keeps the output of tests that pass.
pub(crate) fn tell(what: &str) {
    // In one piece, so that tests side by side do not mix theirs; a closed stderr is no reason to fail one.
    let _ = io::stderr().write_all(format!("{what}\n").as_bytes());
}
