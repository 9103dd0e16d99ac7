//! Secret files: known by a keyed hash alone, and shown as no more than that they are secret.

use std::collections::{BTreeMap, BTreeSet};

use super::diff::{Fate, Subject};
use super::facts::{SECRET, of_file};
use super::match_up::Matched;
use super::{Action, Change, FieldChange, Plan, Refusal};
use crate::model::{Desired, Facts, Field, FileState, Found, GuestPath, Kind, Live, Mask, Place, Sandbox, Shape};

/// How the value of a secret file's content begins in facts and records.
const PREFIX: &str = "secret:";

/// The content of a secret file whose hash is not known. No record has it.
const UNKNOWN: &str = "secret:unknown";

/// A secret content as a fact.
pub(super) fn value(hash: &str) -> String {
    format!("{PREFIX}{hash}")
}

fn is_secret(value: Option<&str>) -> bool {
    value.is_some_and(|value| value.starts_with(PREFIX))
}

/// What a secret file should hold. Without the caller's value, what was last applied stands for it.
pub(super) fn desired(path: &GuestPath, variable: &str, sources: &BTreeMap<String, String>, applied: &Facts) -> String {
    let before = applied
        .get(&of_file(path, "content"))
        .filter(|value| is_secret(Some(value)));
    match (sources.get(variable), before) {
        (Some(hash), _) => value(hash),
        (None, Some(before)) => before.to_owned(),
        (None, None) => UNKNOWN.to_owned(),
    }
}

/// What stands at the path of a file that is, or was, secret. `plain` is what any other file's content would be.
pub(super) fn live(path: &GuestPath, found: &Found, plain: String, hash: Option<&String>, applied: &Facts) -> String {
    // What was not secret when it was last applied, and is as it was then, is in the record anyhow.
    let as_before = applied.get(&of_file(path, "content")) == Some(&*plain);
    if as_before || !matches!(found.shape, Shape::File { .. }) {
        return plain;
    }
    hash.map_or_else(|| "a file".to_owned(), |hash| value(hash))
}

/// The paths in a sandbox whose contents are, or were, secret: its own, and those of what it was cloned from.
#[must_use]
pub fn secret_paths(desired: &Desired, matched: &Matched<'_>, sandbox: &Sandbox) -> BTreeSet<GuestPath> {
    let mut paths = BTreeSet::new();
    let mut next = Some(sandbox);
    // The spec's floor has refused circles.
    for _ in 0..=desired.sandboxes.len() {
        let Some(sandbox) = next else { break };
        paths.extend(declared(sandbox).map(|(path, _, _)| path.clone()));
        if let Some(instance) = matched.owned.get(&sandbox.name) {
            paths.extend(recorded(&instance.labels.applied()));
        }
        next = sandbox.source().and_then(|name| desired.sandboxes.get(name));
    }
    paths
}

/// The keyed hashes of all secrets that were ever applied to these instances, and are recorded yet.
#[must_use]
pub fn applied_hashes(live: &Live) -> BTreeSet<String> {
    let records = live.instances.values().map(|instance| instance.labels.applied());
    let hashes = records.flat_map(|applied| {
        let values = applied.iter().filter(|(field, _)| field.kind == Kind::File);
        let hashes = values.filter_map(|(_, value)| value.strip_prefix(PREFIX).map(str::to_owned));
        hashes.collect::<Vec<_>>()
    });
    hashes.collect()
}

/// The paths whose contents were secret when last applied.
pub(super) fn recorded(applied: &Facts) -> impl Iterator<Item = GuestPath> {
    applied
        .iter()
        .filter(|(field, value)| field.kind == Kind::File && (field.field == SECRET || is_secret(Some(value))))
        .filter_map(|(field, _)| GuestPath::new(&*field.name).ok())
}

fn declared(sandbox: &Sandbox) -> impl Iterator<Item = (&GuestPath, &str, &Place)> {
    sandbox.files.iter().filter_map(|(path, file)| match &file.state {
        FileState::Secret(variable) => Some((path, variable.as_str(), &file.at)),
        _ => None,
    })
}

/// Whether a change writes the contents of a file.
fn writes(change: &Change, path: &GuestPath, fate: Fate) -> bool {
    let content = |field: &FieldChange| matches!(field.field.field.as_str(), "content" | "seed");
    change.kind == Kind::File
        && change.name == path.as_str()
        && !matches!(change.action, Action::Delete | Action::None)
        && (fate != Fate::Keep || change.fields.iter().any(content))
}

/// Secrets that have to be written and that the caller's environment does not have.
pub(super) fn missing(subject: &Subject<'_>, changes: &[Change], fate: Fate) -> Vec<Refusal> {
    let refusal = |(path, variable, at): (&GuestPath, &str, &Place)| {
        Refusal::invalid(
            "plan::secret-not-set",
            format!("the variable `{variable}` is not set, and `{path}` has to be written"),
            at,
            "takes its contents from there",
            format!("export {variable} before the call; its value is never shown, stored or logged"),
        )
    };
    due(subject, changes, fate).map(refusal).collect()
}

/// The same for who only wants to know what differs.
pub(super) fn needed(subject: &Subject<'_>, changes: &[Change], fate: Fate) -> Vec<String> {
    let text = |(path, variable, _)| format!("{path}: an apply has to write it, and needs {variable} for that");
    due(subject, changes, fate).map(text).collect()
}

/// The secret files that have to be written and of which nobody has said what is in them.
fn due<'a>(
    subject: &'a Subject<'_>,
    changes: &'a [Change],
    fate: Fate,
) -> impl Iterator<Item = (&'a GuestPath, &'a str, &'a Place)> {
    let unknown = declared(subject.sandbox).filter(|(_, variable, _)| !subject.secrets.sources.contains_key(*variable));
    unknown.filter(move |(path, _, _)| changes.iter().any(|change| writes(change, path, fate)))
}

/// What there is to know of secrets: which were compared with the record only, and where they go.
pub(super) fn notices(subject: &Subject<'_>, changes: &[Change], fate: Fate) -> Vec<String> {
    let mut notices: Vec<String> = declared(subject.sandbox)
        .filter(|(_, variable, _)| fate == Fate::Keep && !subject.secrets.sources.contains_key(*variable))
        .map(|(path, variable, _)| format!("{path}: source not checked, {variable} is not set here"))
        .collect();
    let copied = changes
        .iter()
        .any(|change| change.kind == Kind::Snapshot && change.action == Action::Snapshot);
    let copied = copied || (fate != Fate::Keep && subject.is_cloned);
    let paths: Vec<&str> = declared(subject.sandbox).map(|(path, _, _)| path.as_str()).collect();
    if copied && !paths.is_empty() {
        let paths = paths.join(", ");
        notices.push(format!(
            "its secret files travel with its snapshots and clones: {paths}"
        ));
    }
    notices
}

/// Takes what is secret out of what is shown, hashes too.
pub(super) fn hide<'a>(fields: impl Iterator<Item = &'a mut FieldChange>) {
    for field in fields {
        let was_secret = is_secret(field.before.as_deref());
        for (value, shown) in [
            (&mut field.before, "a secret"),
            (&mut field.after, if was_secret { "another secret" } else { "a secret" }),
        ] {
            if is_secret(value.as_deref()) {
                *value = Some(shown.to_owned());
            }
        }
    }
}

/// Takes the caller's secrets out of what is shown of other values: somebody may have put one into a file that is none, or
/// into a setting. What is compared and done stays as it is.
pub(super) fn mask(mask: &Mask, plan: &mut Plan) {
    if mask.is_empty() {
        return;
    }
    for change in &mut plan.changes {
        if let Some(text) = &mut change.text {
            for bytes in [&mut text.before, &mut text.after] {
                *bytes = mask.over(bytes).into();
            }
        }
    }
    let changed = plan.changes.iter_mut().flat_map(|change| &mut change.fields);
    let accepted = plan.accepted.iter_mut().map(|accepted| &mut accepted.field);
    for field in changed.chain(accepted).filter(|change| is_free(&change.field)) {
        for value in [&mut field.before, &mut field.after].into_iter().flatten() {
            *value = mask.over_text(value);
        }
    }
}

/// Whether the live system can hold any text there.
fn is_free(field: &Field) -> bool {
    match field.kind {
        Kind::Sandbox => ["env:", "config:"].iter().any(|kind| field.field.starts_with(kind)),
        Kind::File | Kind::Tree => true,
        _ => false,
    }
}
