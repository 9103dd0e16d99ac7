//! What a disk is made from and with: its recipe.
//!
//! A recipe is read from a record, of whatever moment: from the one that an apply is going to leave behind, or from
//! the one that a snapshot was taken with. A snapshot whose recipe is not its sandbox's any more is stale; so is a
//! clone whose source has another recipe than it had when the clone was made.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::{FieldChange, Origin};
use crate::model::{Facts, Field, Hasher, Kind};

/// The field of a clone that holds its source's recipe of the moment when it was made. Recorded, and compared with
/// what the source's recipe is going to be, not with anything live.
pub(super) const SOURCE_RECIPE: &str = "source-recipe";

/// What a recipe is made of, as its text names it.
const PARTS: [&str; 6] = ["image", "source", "user", "files", "trees", "run"];

/// How many digits of a digest stand in a recipe's text: 96 bits.
const DIGITS: usize = 24;

/// What a disk was, or is going to be, made from and with, as one digest for each part: the image as written or the
/// source's recipe, the user, files that are kept as declared, trees, and set-up steps. Nothing else: limits,
/// environment variables, settings, egress, power and seeds do not make another disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Recipe(BTreeMap<&'static str, String>);

impl Recipe {
    /// The recipe that a record tells.
    pub(super) fn of(facts: &Facts) -> Self {
        let mut hashers: BTreeMap<&'static str, Hasher> = BTreeMap::new();
        for (field, value) in facts.iter() {
            let Some(part) = part(field) else { continue };
            let hasher = hashers.entry(part).or_default();
            for text in [&field.name, &field.field] {
                hasher.part(text);
            }
            hasher.part(value);
        }
        let short = |hasher: Hasher| {
            let digest = hasher.finish();
            digest.as_str().get(..DIGITS).unwrap_or_default().to_owned()
        };
        Self(
            hashers
                .into_iter()
                .map(|(part, hasher)| (part, short(hasher)))
                .collect(),
        )
    }
}

/// The form in which it is recorded and shown: `image=1f3c… files=90ab…`. Equal texts mean equal recipes.
impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = PARTS.iter().filter_map(|part| Some((part, self.0.get(part)?)));
        for (index, (part, digest)) in known.enumerate() {
            let space = if index == 0 { "" } else { " " };
            write!(f, "{space}{part}={digest}")?;
        }
        Ok(())
    }
}

/// The part of the recipe that a field belongs to.
fn part(field: &Field) -> Option<&'static str> {
    match (field.kind, field.field.as_str()) {
        (Kind::Sandbox, "image") => Some("image"),
        // Where the source's disk came from counts, and not what it is called.
        (Kind::Sandbox, SOURCE_RECIPE) => Some("source"),
        (Kind::Sandbox, "user") => Some("user"),
        (Kind::File, "content" | "mode" | "owner") => Some("files"),
        (Kind::Tree, _) => Some("trees"),
        (Kind::Run, "digest") => Some("run"),
        _ => None,
    }
}

/// The names of the parts in which two recipes differ, by their texts: `image`, `source`, `user`, `files`, `trees`,
/// `run`. Empty where they are the same, or where one of the texts is no recipe.
#[must_use]
pub fn changed_parts(before: &str, after: &str) -> Vec<&'static str> {
    let [before, after] = [before, after].map(|text| {
        let parts = text.split(' ').filter_map(|part| part.split_once('='));
        parts.collect::<BTreeMap<&str, &str>>()
    });
    let differs = |part: &&str| before.get(part) != after.get(part);
    PARTS.into_iter().filter(differs).collect()
}

/// The ingredients that two records differ in, each as a field before and after.
pub(super) fn changed_ingredients(before: &Facts, after: &Facts) -> Vec<FieldChange> {
    let fields: BTreeSet<&Field> = before.iter().chain(after.iter()).map(|(field, _)| field).collect();
    let changed = fields.into_iter().filter_map(|field| {
        let [old, new] = [before, after].map(|facts| facts.get(field).map(str::to_owned));
        (part(field).is_some() && old != new).then(|| FieldChange {
            field: field.clone(),
            before: old,
            after: new,
            origin: Origin::Pending,
        })
    });
    changed.collect()
}
