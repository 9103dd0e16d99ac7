//! The record of a sandbox whose disk was put back to a snapshot.

use super::egress::is_recorded_inside;
use crate::model::{Facts, Field, Kind};

/// What the record says after that: of what is on the disk what the snapshot's record says, of all else what it says
/// now. Where nobody knows what a snapshot was taken with, set-up steps count as never run.
#[must_use]
pub fn restored(now: &Facts, then: Option<&Facts>) -> Facts {
    // Rules inside lie on the disk, too.
    let inside = [Some(now), then].into_iter().flatten().any(is_recorded_inside);
    let is_on_disk = |field: &Field| is_on_disk(field) || (inside && field.kind == Kind::Egress);
    let keeps = |field: &Field| match then {
        Some(_) => !is_on_disk(field),
        None => field.kind != Kind::Run,
    };
    let mut facts = Facts::new();
    let kept = now.iter().filter(|(field, _)| keeps(field));
    facts.extend(kept.map(|(field, value)| (field.clone(), value.to_owned())));
    let back = then
        .into_iter()
        .flat_map(Facts::iter)
        .filter(|(field, _)| is_on_disk(field));
    facts.extend(back.map(|(field, value)| (field.clone(), value.to_owned())));
    facts
}

/// Whether a fact is about what lies on the disk. Its image is, too, but cannot change under a sandbox.
fn is_on_disk(field: &Field) -> bool {
    match field.kind {
        Kind::File | Kind::Tree | Kind::Run => true,
        Kind::Sandbox => field.field == "user",
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(step: &str, cpu: &str) -> Facts {
        let mut facts = Facts::new();
        facts.set(Field::of(Kind::Run, step, "digest"), "1");
        facts.set(Field::of(Kind::File, "/etc/motd", "content"), step);
        facts.set(Field::sandbox("cpu"), cpu);
        facts
    }

    #[test]
    fn the_disk_is_as_it_was_and_the_rest_as_it_is() {
        let mut both = facts("then", "2");
        assert_eq!(restored(&facts("now", "2"), Some(&facts("then", "1"))), both);
        both = facts("now", "2");
        both.unset(&Field::of(Kind::Run, "now", "digest"));
        assert_eq!(restored(&facts("now", "2"), None), both);
    }
}
