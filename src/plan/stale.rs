//! Snapshots and clones that are older than what they were made from.

use std::collections::{BTreeMap, BTreeSet};

use super::diff::Subject;
use super::facts::ABSENT;
use super::held::stays_for_later;
use super::match_up::Matched;
use super::recipe::{Recipe, SOURCE_RECIPE, changed_ingredients};
use super::{Action, Change, FieldChange, Impact, Origin, Reason};
use crate::model::{Desired, Facts, Field, Kind, Labels, Ownership, Sandbox, SandboxName, SnapshotName};

/// The recipes of a sandbox and of its snapshots, as they are going to be.
#[derive(Debug, Clone, Default)]
pub(super) struct Recipes {
    /// Of its disk, and of every snapshot that is not named below.
    pub(super) own: Recipe,
    /// Of stale snapshots that are accepted as they are.
    pub(super) kept: BTreeMap<String, Recipe>,
}

impl Recipes {
    /// The recipe that a record tells, and no snapshot that has another.
    pub(super) fn new(record: &Facts) -> Self {
        Self {
            own: Recipe::of(record),
            kept: BTreeMap::new(),
        }
    }

    /// The recipe of what a clone is made from: a snapshot, or the disk as it is.
    pub(super) fn of(&self, snapshot: Option<&SnapshotName>) -> &Recipe {
        let kept = snapshot.and_then(|name| self.kept.get(name.as_str()));
        kept.unwrap_or(&self.own)
    }
}

/// The selected sandboxes: first those that are cloned from none of them, then their clones, then the clones of
/// these, and so on.
pub(super) fn generations<'a>(desired: &'a Desired, selected: &BTreeSet<SandboxName>) -> Vec<Vec<&'a Sandbox>> {
    let mut depths: BTreeMap<&SandboxName, usize> = BTreeMap::new();
    let mut generations: Vec<Vec<&Sandbox>> = Vec::new();
    for sandbox in desired.sandboxes.values().filter(|s| selected.contains(&s.name)) {
        // Up to one whose depth is known, or to the first of the line. The spec's floor has refused circles.
        let mut line: Vec<&Sandbox> = Vec::new();
        let mut next = Some(sandbox);
        let is_new = |s: &&Sandbox| selected.contains(&s.name) && !depths.contains_key(&s.name);
        while let Some(sandbox) = next.filter(is_new) {
            if line.len() == desired.sandboxes.len() {
                break;
            }
            line.push(sandbox);
            next = sandbox.source().and_then(|name| desired.sandboxes.get(name));
        }
        let first = next
            .and_then(|known| depths.get(&known.name))
            .map_or(0, |depth| depth + 1);
        for (depth, sandbox) in (first..).zip(line.into_iter().rev()) {
            depths.insert(&sandbox.name, depth);
            if generations.len() == depth {
                generations.push(Vec::new());
            }
            generations[depth].push(sandbox);
        }
    }
    generations
}

/// What the record will say of the disk after an apply: what is declared, and of accepted differences what it says
/// now. Nothing, where there is nobody who would want to know.
pub(super) fn record_to_be(subject: &Subject<'_>, desired: &Facts, applied: &Facts, accepted: &[FieldChange]) -> Facts {
    if !subject.is_cloned && subject.sandbox.snapshots.is_empty() {
        return Facts::new();
    }
    // What a tree that deletes finds beside its entries is nobody's declaration.
    let is_extra = |field: &Field, value: &str| field.kind == Kind::Tree && value == ABSENT;
    let mut facts = Facts::new();
    let declared = desired.iter().filter(|(field, value)| !is_extra(field, value));
    facts.extend(declared.map(|(field, value)| (field.clone(), value.to_owned())));
    for FieldChange { field, .. } in accepted {
        match applied.get(field).filter(|value| !is_extra(field, value)) {
            Some(value) => facts.set(field.clone(), value),
            None => drop(facts.unset(field)),
        }
    }
    let later = applied
        .iter()
        .filter(|(field, _)| desired.get(field).is_none() && stays_for_later(accepted, field));
    facts.extend(later.map(|(field, value)| (field.clone(), value.to_owned())));
    facts
}

/// A clone that was made from another recipe than its source has now.
pub(super) fn stale_clone(applied: &Facts, source: Option<&Recipe>) -> Option<FieldChange> {
    let field = Field::sandbox(SOURCE_RECIPE);
    // Without a record, as after an adoption, it was made from what it should be.
    let before = applied.get(&field)?.to_owned();
    let after = source?.to_string();
    (before != after).then_some(FieldChange {
        field,
        before: Some(before),
        after: Some(after),
        origin: Origin::Pending,
    })
}

/// A snapshot that was taken with another recipe than its sandbox has now.
pub(super) struct StaleSnapshot {
    /// Its recipe, before and after.
    pub(super) recipe: FieldChange,
    /// What is different.
    pub(super) ingredients: Vec<FieldChange>,
    /// What it was taken with.
    pub(super) was: Recipe,
}

/// The declared snapshots of a sandbox that are there, ours, and stale. `record` is what its record will be.
pub(super) fn stale_snapshots(subject: &Subject<'_>, record: &Facts) -> Vec<StaleSnapshot> {
    let Some(instance) = subject.instance else {
        return Vec::new();
    };
    let recipe = Recipe::of(record);
    let there = subject.sandbox.snapshots.iter();
    let there = there.filter_map(|(name, _)| Some((name, instance.snapshot(name)?)));
    // One that is not ours is refused elsewhere.
    let ours = there.filter(|(_, snapshot)| {
        matches!(snapshot.labels.ownership(&subject.name), Ownership::Owned { sandbox, .. } if sandbox == subject.sandbox.name)
    });
    let stale = ours.filter_map(|(name, snapshot)| {
        let taken_with = snapshot.labels.applied();
        let was = Recipe::of(&taken_with);
        (was != recipe).then(|| StaleSnapshot {
            recipe: FieldChange {
                field: Field::of(Kind::Snapshot, name.as_str(), "recipe"),
                before: Some(was.to_string()),
                after: Some(recipe.to_string()),
                origin: Origin::Pending,
            },
            ingredients: changed_ingredients(&taken_with, record),
            was,
        })
    });
    stale.collect()
}

/// The line that says that a clone is stale and stays.
pub(super) fn kept_stale(subject: &Subject<'_>, recipe: FieldChange) -> Change {
    Change {
        sandbox: subject.sandbox.name.clone(),
        instance: subject.name.clone(),
        kind: Kind::Sandbox,
        name: String::new(),
        action: Action::None,
        impact: Impact::Live,
        reason: Reason::Stale,
        fields: vec![recipe],
        text: None,
    }
}

/// To take a snapshot anew that somebody's sandbox was cloned from loses what that was made from.
pub(super) fn weigh(changes: &mut [Change], matched: &Matched<'_>) {
    let retaken = |change: &&mut Change| change.kind == Kind::Snapshot && change.reason == Reason::Stale;
    for change in changes.iter_mut().filter(retaken) {
        let source = format!("{}@{}", change.sandbox, change.name);
        // What has never been finished is nobody's yet.
        let needed = matched.owned.values().any(|instance| {
            instance.labels.is_true(Labels::COMPLETE)
                && instance.labels.applied().get(&Field::sandbox("clone-from")) == Some(&*source)
        });
        if needed {
            change.impact = Impact::DataLoss;
        }
    }
}
