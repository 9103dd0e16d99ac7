//! A set-up step's script does not outlive a killed run.

use rustix::process::Signal;

use super::process::{Moment, run, start};
use super::world::World;
use crate::support::place::{Place, on_both};

on_both! {
    what_a_killed_script_has_left_goes_with_the_next_one,
}

async fn what_a_killed_script_has_left_goes_with_the_next_one(place: Place) {
    let world = World::new("script", place).await;
    let (backend, image) = (world.place.name(), world.place.image());
    let text = format!(
        "environment \"{}\"\nbackend \"{backend}\"\nsandbox \"one\" {{ image \"{image}\"; run \"go\" script=\"go\"; }}\n",
        world.environment
    );
    let spec = world.path("script.kdl");
    std::fs::write(&spec, text).expect("writes");
    let arguments = ["apply", spec.to_str().expect("a path"), "--yes", "--json"];
    std::fs::write(world.path("go"), "#!/bin/sh\necho begun\nexec sleep 1000\n").expect("writes");
    let mut running = start(&world.place, &arguments);
    assert!(running.until(|event| event["line"] == "begun"), "it runs");
    running.signal(Signal::KILL);
    running.finish();
    assert_eq!(world.temporaries("one").await.len(), 1);
    std::fs::write(world.path("go"), "#!/bin/sh\necho another\n").expect("writes");
    run(&world.place, &arguments, Moment::Never).ended(0);
    assert_eq!(world.temporaries("one").await, Vec::<String>::new());
}
