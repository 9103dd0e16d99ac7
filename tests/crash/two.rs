//! Two of the program at once.

use serde_json::Value;

use super::process::{Moment, Running, run, start};
use super::world::World;
use crate::support::place::{Place, on_both};

on_both! {
    of_two_at_once_the_second_is_refused_or_waits,
    the_lock_of_one_that_was_killed_is_taken_over_at_once,
}

/// Starts an apply that works for a while, and waits until it does.
fn begun(world: &World, spec: &str) -> Running {
    let mut running = start(&world.place, &["apply", spec, "--yes", "--json"]);
    let is_slow = |event: &Value| {
        event["event"] == "step_started" && event["step"].as_str().is_some_and(|step| step.contains("run:slow"))
    };
    assert!(running.until(is_slow), "{:?}", running.finish());
    running
}

fn slow(world: &World, seconds: u32) -> String {
    let (backend, image) = (world.place.name(), world.place.image());
    let text = format!(
        "environment \"{}\"\nbackend \"{backend}\"\nsandbox \"one\" {{ image \"{image}\"; run \"slow\" command=\"sleep \
         {seconds}; echo {seconds} >> /root/done\"; }}\n",
        world.environment
    );
    let path = world.path("slow.kdl");
    std::fs::write(&path, text).expect("writes");
    path.display().to_string()
}

async fn of_two_at_once_the_second_is_refused_or_waits(place: Place) {
    let world = World::new("two", place).await;
    let spec = slow(&world, 3);
    let first = begun(&world, &spec);
    let second = run(&world.place, &["apply", &spec, "--yes", "--json"], Moment::Never).ended(4);
    assert!(second.stderr.contains("is locked by"), "{}", second.stderr);
    let told = second.events.as_slice();
    assert!(
        matches!(told, [end] if end["event"] == "summary" && end["outcome"] == "refused"),
        "{told:?}"
    );
    // What only reads does not mind.
    run(&world.place, &["plan", &spec], Moment::Never).ended(0);
    let patient = ["apply", &spec, "--yes", "--json", "--lock-timeout", "1m"];
    let third = run(&world.place, &patient, Moment::Never).ended(0);
    assert!(third.stderr.contains("Waiting for"), "{}", third.stderr);
    first.finish().ended(0);
    let done = world.read("one", "/root/done").await;
    assert_eq!(String::from_utf8_lossy(&done), "3\n", "once, by the first");
    assert_eq!(world.notes().await, Vec::<String>::new());
}

async fn the_lock_of_one_that_was_killed_is_taken_over_at_once(place: Place) {
    let world = World::new("gone", place).await;
    let running = begun(&world, &slow(&world, 600));
    running.signal(rustix::process::Signal::KILL);
    assert_eq!(running.finish().code, None);
    assert_eq!(world.notes().await.len(), 1, "nobody could take it down");
    let next = run(
        &world.place,
        &["apply", &slow(&world, 0), "--yes", "--json"],
        Moment::Never,
    )
    .ended(0);
    assert!(next.stderr.contains("Took over the lock"), "{}", next.stderr);
    assert!(next.took < std::time::Duration::from_secs(30), "{:?}", next.took);
    assert_eq!(world.notes().await, Vec::<String>::new());
}
