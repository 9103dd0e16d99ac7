//! Ctrl-C, as a terminal sends it.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::process::{Running, start};
use super::world::World;
use crate::support::place::{Place, on_both};

fn started(step: &str) -> impl Fn(&Value) -> bool {
    move |event| event["event"] == "step_started" && event["step"].as_str().is_some_and(|id| id.contains(step))
}

on_both! {
    once_finishes_what_runs_and_starts_nothing_more,
    twice_leaves_at_once_and_the_next_one_goes_on,
}

async fn slow(name: &str, place: Place, seconds: u32) -> (World, String) {
    let world = World::new(name, place).await;
    let (backend, image) = (world.place.name(), world.place.image());
    let path = world.path("slow.kdl");
    let text = format!(
        "environment \"{}\"\nbackend \"{backend}\"\nsandbox \"one\" {{ image \"{image}\"; run \"slow\" \
         command=\"echo begun; sleep {seconds}; echo done > /root/done\"; run \"after\" command=\"true\"; }}\n",
        world.environment
    );
    std::fs::write(&path, text).expect("writes");
    let spec = path.display().to_string();
    (world, spec)
}

fn begun(world: &World, spec: &str) -> Running {
    let mut running = start(&world.place, &["apply", spec, "--yes", "--json"]);
    assert!(running.until(started("run:slow")), "{:?}", running.finish());
    // The command itself, not only the step.
    assert!(
        running.until(|event| event["event"] == "output"),
        "{:#?}",
        running.finish()
    );
    running
}

async fn once_finishes_what_runs_and_starts_nothing_more(place: Place) {
    let (world, spec) = slow("once", place, 3).await;
    let mut running = begun(&world, &spec);
    running.interrupt();
    assert!(running.until(|event| event["event"] == "interrupted"));
    let ran = running.finish().ended(130);
    let done: Vec<_> = ran
        .events
        .iter()
        .filter(|event| event["event"] == "step_finished")
        .filter_map(|event| event["step"].as_str())
        .collect();
    assert!(done.iter().any(|step| step.contains("run:slow")), "{done:?}");
    assert!(!ran.events.iter().any(started("run:after")), "{:?}", ran.events);
    let summary = ran.events.last().expect("a summary");
    assert_eq!(
        (&summary["outcome"], &summary["event"]),
        (&"interrupted".into(), &"summary".into())
    );
    assert_eq!(world.notes().await, Vec::<String>::new(), "let go");
    // What was done is not done again.
    let mut next = start(&world.place, &["apply", &spec, "--yes", "--json"]);
    next.until(|_| false);
    let next = next.finish().ended(0);
    assert!(!next.events.iter().any(started("run:slow")), "{:?}", next.events);
    assert!(!next.stderr.contains("Took over"), "{}", next.stderr);
}

async fn twice_leaves_at_once_and_the_next_one_goes_on(place: Place) {
    let (world, spec) = slow("twice", place, 60).await;
    let mut running = begun(&world, &spec);
    let begun = Instant::now();
    running.interrupt();
    assert!(running.until(|event| event["event"] == "interrupted"));
    running.interrupt();
    running.finish().ended(130);
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    // Nobody holds the lock; that it was left says to look out for what may still run.
    let text = std::fs::read_to_string(&spec)
        .expect("reads")
        .replace("sleep 60", "sleep 0");
    std::fs::write(&spec, text).expect("writes");
    let next = start(&world.place, &["apply", &spec, "--yes", "--json"])
        .finish()
        .ended(0);
    assert!(next.stderr.contains("it was left unfinished"), "{}", next.stderr);
    assert!(next.took < Duration::from_secs(20), "{:?}", next.took);
    assert_eq!(world.notes().await, Vec::<String>::new());
    // The command that was left has been ended by the daemon, or by the step that came again.
    thread::sleep(Duration::from_millis(200));
    let output = world
        .backend
        .output(
            &world.instance("one"),
            &crate::conformance::fixture::shell("ps | grep -c '[s]leep 60' || true"),
        )
        .await
        .expect("runs");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "0");
}
