//! The daemon killed while the program works with it, and started again.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::process::{Moment, start};
use super::world::World;
use crate::support::daemon::{self, Daemon, tell};
use crate::support::place::Place;

/// A daemon of the test's own, that may be killed.
struct Private {
    folder: PathBuf,
    _keep: tempfile::TempDir,
}

impl Private {
    fn script(&self, verb: &str) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/incus/daemon");
        let status = Command::new(script).arg(verb).arg(&self.folder).status();
        assert!(status.expect("a shell").success(), "{verb}");
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        self.script("stop");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_dies_is_told_and_the_next_run_goes_on() {
    // The one that is shared may not be killed; where there is none, there shall be none.
    if daemon::find().is_none() {
        return;
    }
    let keep = tempfile::tempdir_in("/var/tmp").expect("a folder");
    let private = Private {
        folder: keep.path().join("d"),
        _keep: keep,
    };
    private.script("start");
    let daemon = Daemon {
        socket: private.folder.join("unix.socket"),
    };
    let world = World::new("die", Place::Incus(daemon)).await;
    let (mut went_on, mut told) = (0, 0);
    for round in 0..6 {
        let (version, nth) = (1 + round % 2, 4 + 7 * round as usize);
        let spec = world.spec(version);
        let arguments = ["apply", &spec, "--yes", "--allow-data-loss", "--json"];
        let mut running = start(&world.place, &arguments);
        for _ in 0..nth {
            running.until(|_| true);
        }
        private.script("restart");
        let ran = running.finish();
        match ran.code {
            Some(0) => went_on += 1,
            Some(1) => {
                told += 1;
                let said = format!("{ran:?}");
                let clear = [
                    "cannot reach Incus",
                    "no whole answer",
                    "has forgotten the operation",
                    "broke off",
                    "unavailable on this server",
                ];
                assert!(clear.iter().any(|text| said.contains(text)), "{said}");
            }
            _ => panic!("{ran:?}"),
        }
        world.apply(version, Moment::Never).ended(0);
        world.is_whole(version).await;
    }
    tell(&format!(
        "the daemon was killed 6 times: {went_on} applies went on, {told} told of it"
    ));
    drop(world);
}
