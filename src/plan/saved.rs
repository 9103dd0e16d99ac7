//! Plans that are kept and applied later: what they were made from, and whether that still holds.
//!
//! Nothing that is carried out is ever taken from a kept plan. The plan is made again from the spec and the live
//! system, and a kept one only says what must not have changed meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::facts::{self, Look};
use super::match_up::Matched;
use super::secret::secret_paths;
use crate::model::{Desired, Digest, Facts, Field, GuestPath, Kind, Labels, Live, LiveInstance, SandboxName};

/// What a plan was made from, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Saved {
    /// The version of the program that made it; no other one applies it.
    pub version: String,
    /// The spec, as it was named on the command line.
    pub spec: String,
    /// Everything that the spec was read from.
    pub inputs: Vec<SavedInput>,
    /// How it was planned.
    pub options: SavedOptions,
    /// Each sandbox that the environment owned, by name.
    pub state: BTreeMap<String, SavedState>,
    /// SHA-256 of the whole document, as compact JSON in which this is empty. It tells a damaged file from a whole
    /// one; it is no signature.
    pub digest: String,
}

/// A file or folder that a spec was read from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SavedInput {
    /// Where it is.
    pub path: String,
    /// SHA-256 of its contents.
    pub sha256: String,
}

/// How a plan was made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SavedOptions {
    /// `--environment`.
    pub environment: Option<String>,
    /// `--backend`.
    pub backend: Option<String>,
    /// `--var`, in their order.
    pub variables: Vec<(String, String)>,
    /// `--ignore`, as `SANDBOX/FIELD`.
    pub ignore: Vec<String>,
    /// `--prune`.
    pub prune: bool,
    /// `--target`, in their order.
    pub targets: Vec<String>,
    /// Where the backend was, by its own keys.
    pub connection: BTreeMap<String, String>,
}

/// One sandbox as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SavedState {
    /// Its instance.
    pub instance: String,
    /// Digests of the values that were live, by field; none of a sandbox that the plan was not about.
    pub fields: BTreeMap<String, String>,
}

/// The name under which the last-applied record and the other labels stand among a sandbox's fields.
const RECORD: &str = "record";

/// Everything that a plan for `desired` depends on in the live system: which sandboxes the environment owns, and of
/// those that the plan is about the fields that are or were declared, power, snapshots and labels.
///
/// `pruned` says whether the plan is about what the spec no longer names, too.
#[must_use]
pub fn state(
    desired: &Desired,
    live: &Live,
    selected: impl Fn(&SandboxName) -> bool,
    pruned: bool,
) -> BTreeMap<String, SavedState> {
    let matched = Matched::of(desired, live);
    let states = matched.owned.iter().map(|(name, instance)| {
        let applied = instance.labels.applied();
        let sandbox = desired.sandboxes.get(name);
        let wanted = sandbox.map(|sandbox| facts::desired(sandbox, &live.secrets.sources, &applied));
        let fields = match &wanted {
            Some(wanted) if selected(name) => {
                let secret = sandbox.map(|sandbox| secret_paths(desired, &matched, sandbox));
                fields(instance, live, wanted, &secret.unwrap_or_default())
            }
            None if pruned => fields(instance, live, &Facts::new(), &BTreeSet::new()),
            _ => BTreeMap::new(),
        };
        let instance = instance.name.to_string();
        (name.to_string(), SavedState { instance, fields })
    });
    states.collect()
}

fn fields(
    instance: &LiveInstance,
    live: &Live,
    desired: &Facts,
    secret: &BTreeSet<GuestPath>,
) -> BTreeMap<String, String> {
    let applied = instance.labels.applied();
    let all = facts::live(
        instance,
        Look::at(&instance.name, live),
        (&live.secrets, secret),
        desired,
        &applied,
    );
    let counts = |field: &Field| {
        matches!(field.kind, Kind::Power | Kind::Snapshot)
            || desired.get(field).is_some()
            || applied.get(field).is_some()
    };
    let shown = all.iter().filter(|(field, _)| counts(field));
    let mut fields: BTreeMap<String, String> = shown.map(|(field, value)| (field.to_string(), short(value))).collect();
    // What a snapshot was taken with decides whether it is stale.
    for (name, snapshot) in &instance.snapshots {
        let recipe = Field::of(Kind::Snapshot, name.as_str(), "recipe");
        fields.insert(recipe.to_string(), short(&labels(&snapshot.labels)));
    }
    fields.insert(RECORD.to_owned(), short(&labels(&instance.labels)));
    fields
}

fn labels(labels: &Labels) -> String {
    // A map of strings always serializes.
    serde_json::to_string(&labels.0).unwrap_or_default()
}

/// 96 bits of a digest: nobody finds another value for them.
fn short(value: &str) -> String {
    let digest = Digest::of(value.as_bytes());
    digest.as_str().get(..24).unwrap_or_default().to_owned()
}

/// What is not as it was, one line each: first the spec and its sources, then the live system.
#[must_use]
pub fn moved(saved: &Saved, inputs: &[SavedInput], state: &BTreeMap<String, SavedState>) -> Vec<String> {
    let by_path = |inputs: &[SavedInput]| {
        let mut paths: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for input in inputs {
            paths.entry(input.path.clone()).or_default().push(input.sha256.clone());
        }
        paths
    };
    let mut moved: Vec<String> = differing(&by_path(&saved.inputs), &by_path(inputs))
        .map(|(path, how)| format!("{path} {how}"))
        .collect();
    for name in keys(&saved.state, state) {
        match (saved.state.get(name), state.get(name)) {
            (Some(before), Some(now)) if before.instance != now.instance => {
                moved.push(format!(
                    "{name}: it is `{}` now, and was `{}`",
                    now.instance, before.instance
                ));
            }
            (Some(before), Some(now)) => {
                let fields = differing(&before.fields, &now.fields);
                moved.extend(fields.map(|(field, how)| match field {
                    RECORD => format!("{name}: its record of the last apply {how}"),
                    field => format!("{name}: {field} {how}"),
                }));
            }
            (Some(_), None) => moved.push(format!("{name}: it is gone")),
            (None, _) => moved.push(format!("{name}: it was not there")),
        }
    }
    moved
}

fn keys<'a, T>(before: &'a BTreeMap<String, T>, now: &'a BTreeMap<String, T>) -> Vec<&'a str> {
    let mut keys: Vec<&str> = before.keys().chain(now.keys()).map(String::as_str).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

fn differing<'a, T: PartialEq>(
    before: &'a BTreeMap<String, T>,
    now: &'a BTreeMap<String, T>,
) -> impl Iterator<Item = (&'a str, &'static str)> {
    keys(before, now)
        .into_iter()
        .filter_map(|key| match (before.get(key), now.get(key)) {
            (before, now) if before == now => None,
            (Some(_), None) => Some((key, "is gone")),
            (None, _) => Some((key, "is new")),
            _ => Some((key, "has changed")),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moved_is_named() {
        let input = |path: &str, sha256: &str| SavedInput {
            path: path.to_owned(),
            sha256: sha256.to_owned(),
        };
        let state = |instance: &str, fields: &[(&str, &str)]| SavedState {
            instance: instance.to_owned(),
            fields: fields
                .iter()
                .map(|(field, value)| ((*field).to_owned(), (*value).to_owned()))
                .collect(),
        };
        let states = |states: &[(&str, SavedState)]| -> BTreeMap<String, SavedState> {
            states
                .iter()
                .map(|(name, state)| ((*name).to_owned(), state.clone()))
                .collect()
        };
        let saved = Saved {
            version: String::new(),
            spec: String::new(),
            inputs: vec![input("a", "1"), input("b", "2")],
            options: SavedOptions::default(),
            state: states(&[
                ("base", state("x", &[("cpu", "1"), ("power", "2")])),
                ("gone", state("y", &[])),
                ("other", state("z", &[])),
            ]),
            digest: String::new(),
        };
        let now = states(&[
            ("base", state("x", &[("cpu", "2"), ("memory", "3")])),
            ("new", state("n", &[])),
            ("other", state("w", &[])),
        ]);
        assert_eq!(
            moved(&saved, &[input("b", "3"), input("c", "4")], &now),
            [
                "a is gone",
                "b has changed",
                "c is new",
                "base: cpu has changed",
                "base: memory is new",
                "base: power is gone",
                "gone: it is gone",
                "new: it was not there",
                "other: it is `w` now, and was `z`",
            ]
        );
        assert_eq!(moved(&saved, &saved.inputs, &saved.state), Vec::<String>::new());
    }
}
