//! Which files of an instance a plan needs to see.

use std::collections::BTreeMap;

use super::facts;
use crate::model::{Entry, Facts, Field, FileState, GuestPath, Kind, LiveInstance, Query, Sandbox};

/// What to look at in an instance, for the sandbox that it is; none for one that the spec does not name.
#[must_use]
///
/// What comes along of the files that are, or were, secret ([`super::secret_paths`]) is no part of a plan.
pub fn query(sandbox: &Sandbox, instance: &LiveInstance) -> Query {
    let applied = instance.labels.applied();
    let desired = facts::desired(sandbox, &BTreeMap::new(), &applied);
    let mut query = Query::default();
    if desired.get(&Field::sandbox("user")).is_some() {
        query.paths.insert(GuestPath::trusted(facts::PASSWD.to_owned()));
    }
    for path in facts::paths(&desired, &applied, Kind::File) {
        query.paths.insert(path);
    }
    for path in facts::paths(&desired, &Facts::new(), Kind::Tree) {
        let Some(tree) = sandbox.trees.get(&path) else { continue };
        query.opaque.extend(tree.entries.keys().map(|entry| path.join(entry)));
        if tree.delete {
            // What was an entry once is compared with its record; all else only has to be there.
            query.opaque.extend(recorded(&applied, &path));
            query.below.insert(path.clone());
        }
        query.opaque.insert(path);
    }
    query.closed.clone_from(&instance.mounted);
    query.bound = query.bound.max(largest(sandbox));
    query
}

/// The entries of a tree that the record names.
fn recorded(applied: &Facts, tree: &GuestPath) -> Vec<GuestPath> {
    let of_tree = applied
        .iter()
        .filter(|(field, _)| field.kind == Kind::Tree && field.name == tree.as_str());
    of_tree
        .filter_map(|(field, _)| GuestPath::new(format!("{tree}/{}", field.field)).ok())
        .collect()
}

/// The size of the largest file that is declared.
fn largest(sandbox: &Sandbox) -> u64 {
    let files = sandbox.files.values().filter_map(|file| match &file.state {
        FileState::Content(content) => Some(content.size),
        _ => None,
    });
    let entries = sandbox.trees.values().flat_map(|tree| tree.entries.values());
    let entries = entries.filter_map(|entry| match entry {
        Entry::File { content, .. } => Some(content.size),
        _ => None,
    });
    files.chain(entries).max().unwrap_or_default()
}
