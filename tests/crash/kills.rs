//! Killed at every boundary of a step and at instants that chance picks.

use std::env;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::process::{Moment, Ran};
use super::world::World;
use crate::support::daemon::tell;
use crate::support::place::{Place, on_both};

/// Numbers from a seed (SplitMix64, by S. Vigna).
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound.max(1)
    }
}

/// What a variable of the environment says, or the usual.
pub(super) fn number(variable: &str, usual: u64) -> u64 {
    env::var(variable)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(usual)
}

/// What is killed: making, changing, destroying.
#[derive(Debug, Clone, Copy)]
enum Work {
    Make,
    Change,
    Destroy,
}

impl Work {
    const ALL: [Self; 3] = [Self::Make, Self::Change, Self::Destroy];

    /// Brings the world to where the work begins.
    fn prepare(self, world: &World) {
        match self {
            Self::Make => world.destroy(Moment::Never).ended(0),
            Self::Change | Self::Destroy => world.apply(1, Moment::Never).ended(0),
        };
    }

    fn run(self, world: &World, moment: Moment) -> Ran {
        match self {
            Self::Make => world.apply(1, moment),
            Self::Change => world.apply(2, moment),
            Self::Destroy => world.destroy(moment),
        }
    }
}

/// How the work goes when nobody disturbs it: how many events, and how long.
struct Usual {
    events: usize,
    took: Duration,
}

on_both! {
    killed_anywhere_the_next_run_puts_all_right,
}

async fn killed_anywhere_the_next_run_puts_all_right(place: Place) {
    let world = World::new("kill", place).await;
    let wanted = number("SBX_KILLS", 24) as usize;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seed = number("SBX_SEED", now.as_secs());
    tell(&format!("SBX_KILLS={wanted} SBX_SEED={seed}"));
    let mut chance = Chance(seed);
    let usual = Work::ALL.map(|work| {
        work.prepare(&world);
        let ran = work.run(&world, Moment::Never).ended(0);
        Usual {
            events: ran.events.len(),
            took: ran.took,
        }
    });
    let (mut kills, mut locked, mut round) = (0, 0, 0);
    while kills < wanted {
        let index = round % 3;
        let (work, usual) = (Work::ALL[index], &usual[index]);
        work.prepare(&world);
        if matches!(work, Work::Change) {
            world.leave_work().await;
        }
        // Half of them at events, spread over all of these, or each in turn where there are enough.
        let turn = round / 3;
        let moment = if turn.is_multiple_of(2) {
            let events = wanted.div_ceil(6).max(1);
            let step = (usual.events / events).max(1);
            Moment::Event(1 + (turn / 2) * step % usual.events)
        } else {
            Moment::After(Duration::from_micros(chance.below(usual.took.as_micros() as u64)))
        };
        round += 1;
        let killed = work.run(&world, moment);
        if killed.code.is_some() {
            // It was faster. What it did has to be right all the same.
            killed.ended(0);
        } else {
            kills += 1;
        }
        // One that was being let go of may lie aside, until the next run lets go of its own.
        let notes = world.notes().await;
        let lock = notes.iter().filter(|name| name.ends_with("lock")).count();
        assert!(lock <= 1 && notes.len() <= 1, "one lock: {notes:?}");
        locked += lock;
        // The kills of a destroy are mended in both ways.
        let next = match work {
            Work::Destroy if turn % 3 == 0 => Work::Destroy,
            Work::Destroy => Work::Make,
            work => work,
        };
        let mended = next.run(&world, Moment::Never).ended(0);
        assert_eq!(mended.stderr.contains("Took over the lock"), lock == 1, "{mended:?}");
        assert!(mended.took < usual.took + Duration::from_secs(20), "{:?}", mended.took);
        match next {
            Work::Make => world.is_whole(1).await,
            Work::Change => {
                world.is_whole(2).await;
                world.has_work().await;
            }
            Work::Destroy => world.is_gone().await,
        }
        if round.is_multiple_of(10) {
            tell(&format!("{kills} kills, {locked} of them under the lock"));
        }
    }
    tell(&format!(
        "{kills} kills, {locked} of them under the lock: nothing was lost or left"
    ));
    assert!(locked > 0);
}
