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

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(list: &[(Field, &str)]) -> Facts {
        let mut facts = Facts::new();
        facts.extend(list.iter().map(|(field, value)| (field.clone(), (*value).to_owned())));
        facts
    }

    fn base() -> Facts {
        facts(&[
            (Field::sandbox("image"), "debian/12"),
            (Field::of(Kind::File, "/etc/motd", "content"), "sha256:aa"),
            (Field::of(Kind::File, "/etc/motd", "mode"), "0644"),
        ])
    }

    #[test]
    fn each_ingredient_changes_its_part_and_no_other() {
        for (field, part) in [
            (Field::sandbox("image"), "image"),
            (Field::sandbox(SOURCE_RECIPE), "source"),
            (Field::sandbox("user"), "user"),
            (Field::of(Kind::File, "/etc/motd", "content"), "files"),
            (Field::of(Kind::File, "/etc/motd", "mode"), "files"),
            (Field::of(Kind::File, "/etc/motd", "owner"), "files"),
            (Field::of(Kind::File, "/etc/other", "content"), "files"),
            (Field::of(Kind::Tree, "/srv/app", ""), "trees"),
            (Field::of(Kind::Tree, "/srv/app", "a/b"), "trees"),
            (Field::of(Kind::Tree, "/srv/app", "/delete"), "trees"),
            (Field::of(Kind::Run, "install", "digest"), "run"),
        ] {
            let (before, mut after) = (base(), base());
            after.set(field.clone(), "another");
            let texts = [&before, &after].map(|facts| Recipe::of(facts).to_string());
            assert_eq!(changed_parts(&texts[0], &texts[1]), [part], "{field}");
            let changed: Vec<Field> = changed_ingredients(&before, &after)
                .into_iter()
                .map(|change| change.field)
                .collect();
            assert_eq!(changed, [field]);
        }
    }

    #[test]
    fn nothing_else_is_an_ingredient() {
        for field in [
            "cpu",
            "memory",
            "disk",
            "env:RUST_LOG",
            "config:limits.processes",
            "protect",
            "ttl",
            "depends-on",
            "clone-from",
        ]
        .map(Field::sandbox)
        .into_iter()
        .chain([
            Field::of(Kind::File, "/etc/motd", "seed"),
            Field::of(Kind::File, "/etc/motd", "made"),
            Field::of(Kind::Power, "", "state"),
            Field::of(Kind::Egress, "", "mode"),
            Field::of(Kind::Snapshot, "ready", "exists"),
            Field::of(Kind::Mount, "/work", "source"),
            Field::of(Kind::Volume, "data", "path"),
            Field::of(Kind::Port, "80", "host"),
        ]) {
            let mut after = base();
            after.set(field.clone(), "another");
            assert_eq!(Recipe::of(&after), Recipe::of(&base()), "{field}");
            assert_eq!(changed_ingredients(&base(), &after), [], "{field}");
        }
    }

    #[test]
    fn the_recorded_form_is_one_line_and_stays() {
        // Recorded on clones: another form would make all of them stale.
        assert_eq!(
            Recipe::of(&base()).to_string(),
            "image=4d93ad80da3b8f4e1621a446 files=42be6c92c93f0fbc87782f6d"
        );
        assert_eq!(
            changed_parts("image=a files=b", "source=c files=b"),
            ["image", "source"]
        );
        assert_eq!(changed_parts("garbage", "garbage too"), Vec::<&str>::new());
    }
}
