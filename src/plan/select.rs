//! `--target`: a part of a spec.

use std::collections::BTreeSet;

use crate::model::{Desired, SandboxName};

/// A target that no sandbox has the name of.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no sandbox is named `{0}`")]
pub struct UnknownTarget(pub String);

/// The sandboxes with these names or base names, all that they depend on, and all that their
/// egress policies open. Everything when there are none.
///
/// # Errors
/// When a target names nothing.
pub fn select(desired: &Desired, targets: &[String]) -> Result<BTreeSet<SandboxName>, UnknownTarget> {
    if targets.is_empty() {
        return Ok(desired.sandboxes.keys().cloned().collect());
    }
    let mut selected = BTreeSet::new();
    let mut left: Vec<&SandboxName> = Vec::new();
    for target in targets {
        let before = left.len();
        let named = |name: &SandboxName| name.as_str() == target;
        left.extend(
            desired
                .sandboxes
                .values()
                .filter(|s| named(&s.name) || named(&s.base))
                .map(|s| &s.name),
        );
        if left.len() == before {
            return Err(UnknownTarget(target.clone()));
        }
    }
    while let Some(name) = left.pop() {
        if selected.insert(name.clone())
            && let Some(sandbox) = desired.sandboxes.get(name)
        {
            left.extend(sandbox.needs());
            let rules = sandbox.egress.iter().flat_map(|policy| &policy.allow);
            let open = rules.filter_map(|rule| rule.to.sandbox());
            left.extend(open.filter_map(|peer| desired.sandboxes.get_key_value(peer).map(|(name, _)| name)));
        }
    }
    Ok(selected)
}
