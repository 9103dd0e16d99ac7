//! Stopped for longer than its lock lasts, and woken up when somebody else has long been at work.

use rustix::process::Signal;

use super::kills::number;
use super::process::{Moment, run, start};
use super::world::World;
use crate::support::daemon::tell;
use crate::support::place::{Place, on_both};

on_both! {
    whoever_wakes_up_without_its_lock_changes_nothing,
}

/// Takes minutes, for that is what locks last: with the long variant of the kills only. What stands in the way of
/// such a process is tried in short in `locking` and in `incus::fence`.
async fn whoever_wakes_up_without_its_lock_changes_nothing(place: Place) {
    if number("SBX_KILLS", 24) < 200 {
        return;
    }
    let world = World::new("stopped", place).await;
    for at in ["/files", "/run:", "/snapshot:"] {
        let arguments = ["apply", &world.spec(1), "--yes", "--allow-data-loss", "--json"];
        let mut first = start(&world.place, &arguments);
        let reached = first.until(|event| {
            event["event"] == "step_started" && event["step"].as_str().is_some_and(|step| step.contains(at))
        });
        assert!(reached, "{at}: {:?}", first.finish());
        first.signal(Signal::STOP);
        let spec = world.spec(2);
        let patient = [
            "apply",
            &spec,
            "--yes",
            "--allow-data-loss",
            "--json",
            "--lock-timeout",
            "5m",
        ];
        let second = run(&world.place, &patient, Moment::Never);
        // Woken up in any case, or it would stay for ever.
        first.signal(Signal::CONT);
        let first = first.finish();
        let said = format!("{second:?}");
        if second.code != Some(0) {
            run(&world.place, &patient, Moment::Never).ended(0);
        }
        // What was stopped may hold a sandbox that it was about to change, or keep the daemon waiting for what it has
        // begun to say: then the second says so, and may not even have come as far as the lock.
        if second.code == Some(0) {
            assert!(second.stderr.contains("it has expired"), "{said}");
            let first = first.ended(1);
            assert!(first.stderr.contains("was lost"), "{}", first.stderr);
        } else {
            let is_held = said.contains("another operation is under way") || said.contains("no answer in time");
            assert!(is_held, "{said}");
        }
        world.is_whole(2).await;
        world.destroy(Moment::Never).ended(0);
        tell(&format!(
            "stopped at {at} for {:?}: nothing was changed on waking",
            second.took
        ));
    }
}
