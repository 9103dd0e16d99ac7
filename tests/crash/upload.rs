//! Files are whole, always.

use std::time::Duration;

use sbx_apply::model::GuestPath;

use super::kills::number;
use super::process::{Moment, run};
use super::world::World;
use crate::support::daemon::tell;
use crate::support::place::{Place, on_both};

on_both! {
    a_large_file_is_the_old_one_or_the_new_one,
}

async fn a_large_file_is_the_old_one_or_the_new_one(place: Place) {
    let world = World::new("upload", place).await;
    let (backend, image) = (world.place.name(), world.place.image());
    let spec = |name: &str| world.path(name).display().to_string();
    let size = 20 << 20;
    for (version, letter) in [(3, b'a'), (4, b'b')] {
        std::fs::write(world.path(&format!("huge-{version}")), vec![letter; size]).expect("writes");
        let text = format!(
            "environment \"{}\"\nbackend \"{backend}\"\nsandbox \"one\" {{ image \"{image}\"; file \"/data/huge\" \
             source=\"huge-{version}\"; }}\n",
            world.environment
        );
        std::fs::write(world.path(&format!("v{version}.kdl")), text).expect("writes");
    }
    let apply = |version: u32, moment| {
        let path = spec(&format!("v{version}.kdl"));
        run(&world.place, &["apply", &path, "--yes", "--json"], moment)
    };
    apply(3, Moment::Never).ended(0);
    let usual = apply(4, Moment::Never).ended(0).took;
    apply(3, Moment::Never).ended(0);
    let (name, path) = (world.instance("one"), GuestPath::new("/data/huge").expect("a path"));
    let folder = GuestPath::new("/data").expect("a path");
    let (mut old, mut new, mut halves) = (0, 0, 0);
    let rounds = (number("SBX_KILLS", 24) / 4).clamp(2, 60) as u32;
    for round in 0..rounds {
        apply(4, Moment::After(usual * round / (rounds - 1)));
        let (bytes, _) = world.backend.read(&name, &path, 64 << 20).await.expect("reads");
        assert_eq!(bytes.len(), size);
        match bytes.first() {
            Some(letter) if bytes.iter().all(|byte| byte == letter) => match letter {
                b'a' => old += 1,
                _ => new += 1,
            },
            _ => panic!("a mixture"),
        }
        let beside = world
            .backend
            .list_files(&name, &folder, true)
            .await
            .expect("lists")
            .len();
        assert!(beside <= 2, "no more than one leftover");
        halves += beside - 1;
        apply(4, Moment::Never).ended(0);
        let beside = world
            .backend
            .list_files(&name, &folder, true)
            .await
            .expect("lists")
            .len();
        assert_eq!(beside, 1, "leftovers go");
        apply(3, Moment::Never).ended(0);
    }
    tell(&format!(
        "killed while 20 MB were written: {old} times the old file, {new} times the new one, {halves} leftovers"
    ));
    assert!(old > 0 && usual > Duration::from_millis(100));
}
