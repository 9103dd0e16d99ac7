//! The end of an environment.

use std::collections::BTreeSet;

use super::make::deletions;
use super::match_up::Matched;
use super::{Plan, Reason};
use crate::model::{EnvironmentName, Live, LiveInstance, SandboxName};

/// The plan that deletes all that an environment owns, clones before what they were made from.
#[must_use]
pub fn destroy(environment: &EnvironmentName, backend: &str, live: &Live) -> Plan {
    let matched = Matched::owned_by(environment, live);
    let left: Vec<(&SandboxName, &LiveInstance)> =
        matched.owned.iter().map(|(name, instance)| (name, *instance)).collect();
    let selected: BTreeSet<SandboxName> = matched.owned.keys().cloned().collect();
    let (changes, steps, refusals) = deletions(&left, Reason::Destroyed);
    Plan {
        environment: environment.clone(),
        backend: backend.to_owned(),
        changes,
        accepted: Vec::new(),
        leftovers: Vec::new(),
        notices: Vec::new(),
        refusals,
        steps,
        selected,
    }
}
