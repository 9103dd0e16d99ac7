//! The end of an environment.

use std::collections::BTreeSet;

use super::make::{deletions, volume_deletions};
use super::match_up::Matched;
use super::{Plan, Reason};
use crate::model::{EnvironmentName, Live, SandboxName};

/// The plan that deletes all that an environment owns, clones before what they were made from.
#[must_use]
pub fn destroy(environment: &EnvironmentName, backend: &str, live: &Live) -> Plan {
    let matched = Matched::owned_by(environment, live);
    let selected: BTreeSet<SandboxName> = matched.owned.keys().cloned().collect();
    let (mut changes, mut steps, mut refusals) = deletions(&matched.in_order(), Reason::Destroyed);
    let volumes: Vec<_> = live.volumes.keys().collect();
    let (gone, last) = volume_deletions(&volumes, live, Reason::Destroyed, &steps);
    changes.extend(gone);
    steps.extend(last);
    // Of two instances that claim to be one sandbox, at most one is ours.
    refusals.extend(matched.refusals);
    Plan {
        environment: environment.clone(),
        backend: backend.to_owned(),
        spec_changes: Vec::new(),
        changes,
        accepted: Vec::new(),
        leftovers: Vec::new(),
        notices: Vec::new(),
        refusals,
        steps,
        selected,
    }
}
