//! Which files of an instance a plan needs to see.

use super::facts;
use crate::model::{Facts, Field, FileState, GuestPath, Kind, LiveInstance, Query, Sandbox};

/// What to look at in an instance, for the sandbox that it is; none for one that the spec does not name.
#[must_use]
pub fn query(sandbox: &Sandbox, instance: &LiveInstance) -> Query {
    let applied = instance.labels.applied();
    let desired = facts::desired(sandbox);
    let mut query = Query::default();
    if desired.get(&Field::sandbox("user")).is_some() {
        query.paths.insert(GuestPath::trusted(facts::PASSWD.to_owned()));
    }
    let none = Facts::new();
    for path in facts::paths(&desired, &applied, Kind::File) {
        let secret = sandbox
            .files
            .get(&path)
            .is_some_and(|file| matches!(file.state, FileState::Secret(_)));
        let set = if secret { &mut query.opaque } else { &mut query.paths };
        set.insert(path);
    }
    for path in facts::paths(&desired, &none, Kind::Tree) {
        let Some(tree) = sandbox.trees.get(&path) else { continue };
        query.opaque.extend(tree.entries.keys().map(|entry| path.join(entry)));
        if tree.delete {
            query.below.insert(path);
        }
    }
    query
}
