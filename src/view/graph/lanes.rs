//! Steps by what they are done to.

use crate::plan::{Plan, Step};

/// The steps of each sandbox, sandboxes in the order in which the plan first names them.
pub(super) fn by_sandbox(plan: &Plan) -> Vec<(&str, Vec<&Step>)> {
    let mut groups: Vec<(&str, Vec<&Step>)> = Vec::new();
    for step in &plan.steps {
        match groups.iter_mut().find(|(name, _)| *name == step.sandbox.as_str()) {
            Some((_, steps)) => steps.push(step),
            None => groups.push((step.sandbox.as_str(), vec![step])),
        }
    }
    groups
}
