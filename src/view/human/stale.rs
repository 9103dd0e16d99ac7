//! What makes a snapshot or a clone stale, in words.

use super::super::clean::short;
use super::wording::counted;
use crate::model::Kind;
use crate::plan::{Change, Plan, Reason, changed_parts};

/// How many objects are named.
const NAMED: usize = 4;

/// `: file /etc/motd, run deps` for a snapshot, `: its source has other files` for a clone; nothing where it is not
/// known.
pub(in super::super) fn stale(change: &Change) -> String {
    let what = match change.kind {
        Kind::Snapshot => objects(change),
        _ => parts(change),
    };
    match what.is_empty() {
        true => String::new(),
        false => format!(": {what}"),
    }
}

/// How many stale clones a plan leaves as they are: `; 2 stale clones stay as the spec says`, or nothing.
pub(in super::super) fn kept(plan: &Plan) -> String {
    let kept = plan
        .changes
        .iter()
        .filter(|change| !change.counts() && change.reason == Reason::Stale);
    match kept.count() {
        0 => String::new(),
        kept => format!(
            "; {} as the spec says",
            counted(kept, "stale clone stays", "stale clones stay")
        ),
    }
}

/// The objects that a snapshot's recipe has of another kind now. The first field is the recipe itself.
fn objects(change: &Change) -> String {
    let mut objects: Vec<String> = Vec::new();
    for field in change.fields.iter().skip(1).map(|change| &change.field) {
        let object = match (field.kind, field.field.as_str()) {
            (Kind::Sandbox, "source-recipe") => "its source".to_owned(),
            (Kind::Sandbox, name) => name.to_owned(),
            (kind, _) => format!("{kind} {}", short(&field.name, 60)),
        };
        if !objects.contains(&object) {
            objects.push(object);
        }
    }
    let more = objects.len().saturating_sub(NAMED);
    if more > 1 {
        objects.truncate(NAMED);
        return format!("{} and {more} more", objects.join(", "));
    }
    objects.join(", ")
}

/// What a clone's source has of another kind now.
fn parts(change: &Change) -> String {
    let recipe = change.fields.first();
    let [before, after] = [
        recipe.and_then(|field| field.before.as_deref()),
        recipe.and_then(|field| field.after.as_deref()),
    ];
    let parts = changed_parts(before.unwrap_or_default(), after.unwrap_or_default());
    let words: Vec<&str> = parts
        .into_iter()
        .map(|part| match part {
            "image" => "another image",
            "source" => "a changed source of its own",
            "user" => "another user",
            "files" => "other files",
            "trees" => "other trees",
            _ => "other set-up steps",
        })
        .collect();
    match words.split_last() {
        None => String::new(),
        Some((only, [])) => format!("its source has {only}"),
        Some((last, others)) => format!("its source has {} and {last}", others.join(", ")),
    }
}
