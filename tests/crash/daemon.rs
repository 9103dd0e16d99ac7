//! The daemon killed while the program works with it, and started again.

use super::private::Private;
use super::process::{Moment, start};
use super::world::World;
use crate::support::daemon::tell;

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_dies_is_told_and_the_next_run_goes_on() {
    let Some(private) = Private::start() else { return };
    let world = World::new("die", private.place()).await;
    let (mut went_on, mut told) = (0, 0);
    for round in 0..6 {
        let (version, nth) = (1 + round % 2, 4 + 7 * round as usize);
        let spec = world.spec(version);
        let arguments = ["apply", &spec, "--yes", "--allow-data-loss", "--json"];
        let mut running = start(&world.place, &arguments);
        for _ in 0..nth {
            running.until(|_| true);
        }
        private.restart();
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
