//! What a deletion has left that was killed when it had nothing to do any more but to empty the trash.

use std::fs;

use super::process::Moment;
use super::world::World;
use crate::support::place::Place;

#[tokio::test(flavor = "multi_thread")]
async fn a_destroy_with_nothing_to_do_and_an_apply_clear_away_what_is_nobodys() {
    let Some(place) = Place::local() else { return };
    let Place::Local(folder) = &place else { return };
    let state = folder.state();
    let world = World::new("trash", place.clone()).await;
    let left = ["trash/0123456789abcdef01234567", "layers/89abcdef0123456789abcdef"].map(|path| state.join(path));
    let leave = || {
        for folder in &left {
            fs::create_dir_all(folder.join("up/root")).expect("makes");
            fs::write(folder.join("up/root/file"), "hours of it").expect("writes");
        }
    };
    world.apply(1, Moment::Never).ended(0);
    leave();
    world.apply(1, Moment::Never).ended(0);
    assert!(left.iter().all(|folder| !folder.exists()), "by an apply");
    world.destroy(Moment::Never).ended(0);
    leave();
    world.destroy(Moment::Never).ended(0);
    world.is_gone().await;
}
