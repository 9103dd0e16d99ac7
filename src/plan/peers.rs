//! Sandboxes that egress policies open to others.
//!
//! Where a sandbox is, nobody knows before it runs. So a policy is in force first, with those closed that have no address
//! yet, and is opened to them once they have been started: also where they open each other.

use std::collections::BTreeMap;

use super::{Graph, Op, Step, StepId, lower};
use crate::model::{InstanceName, PinnedPolicy, SandboxName};

/// Adds a step for each of some policies that open a sandbox which these steps start: after that, and, where nothing waits
/// for the other way round, before whatever is run in the sandbox that has the policy.
pub(super) fn open(
    steps: &mut Vec<Step>,
    policies: BTreeMap<SandboxName, PinnedPolicy>,
    instance_of: &dyn Fn(&SandboxName) -> InstanceName,
) {
    for (sandbox, policy) in policies {
        let started: Vec<StepId> = policy
            .sandboxes()
            .iter()
            .flat_map(|peer| {
                steps
                    .iter()
                    .filter(move |step| step.sandbox == *peer && matches!(step.op, Op::Start))
            })
            .map(|step| step.id.clone())
            .collect();
        if started.is_empty() {
            continue;
        }
        let is_own = |step: &Step| step.sandbox == sandbox;
        let end = steps.iter().rposition(is_own).map_or(steps.len(), |last| last + 1);
        let later = steps
            .iter()
            .position(|step| is_own(step) && comes_later(&step.op))
            .unwrap_or(end);
        let before = later
            .checked_sub(1)
            .map(|index| &steps[index])
            .filter(|step| is_own(step));
        let mut needs: Vec<StepId> = before.map(|step| step.id.clone()).into_iter().collect();
        needs.extend(started);
        let names: Vec<String> = policy.sandboxes().iter().map(ToString::to_string).collect();
        let op = Op::Peers {
            instances: policy
                .sandboxes()
                .into_iter()
                .map(|peer| (peer.clone(), instance_of(&peer)))
                .collect(),
            policy,
        };
        let id = lower::id(&sandbox, &op);
        steps.insert(
            later,
            Step {
                id: id.clone(),
                instance: instance_of(&sandbox),
                sandbox: sandbox.clone(),
                title: format!("open it to {}", names.join(", ")),
                op,
                needs,
                facts: Vec::new(),
            },
        );
        if let Some(next) = steps.get_mut(later + 1).filter(|step| step.sandbox == sandbox) {
            next.needs.push(id.clone());
        }
        // The other one depends on this one: then it is not waited for.
        if Graph::of(steps).order().is_err()
            && let Some(next) = steps.get_mut(later + 1)
        {
            next.needs.retain(|need| *need != id);
        }
    }
}

/// What comes after everything is open.
fn comes_later(op: &Op) -> bool {
    matches!(
        op,
        Op::Ready(_) | Op::Run(_) | Op::DeleteSnapshot(_) | Op::Snapshot(_) | Op::Record
    )
}
