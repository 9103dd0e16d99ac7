//! What has outlived its ttl.

use std::collections::BTreeSet;

use super::make::deletions;
use super::match_up::Matched;
use super::{Notice, Plan, Reason};
use crate::model::{EnvironmentName, Labels, Lifetime, Live, LiveInstance, Ownership, Sandbox, SandboxName, Seconds};

/// The plan that deletes what of an environment has outlived its ttl at a moment (seconds since
/// 1970-01-01T00:00:00Z), clones before what they were made from. What is protected stays, and what has a ttl that says
/// nothing; both are told.
#[must_use]
pub fn gc(environment: &EnvironmentName, backend: &str, live: &Live, now: u64) -> Plan {
    let matched = Matched::owned_by(environment, live);
    let mut notices = Vec::new();
    let mut over: Vec<(&SandboxName, &LiveInstance)> = Vec::new();
    for (sandbox, instance) in matched.in_order() {
        let ttl = instance.labels.get(Labels::TTL).unwrap_or_default();
        // Somebody may have put a book there.
        let ttl: String = ttl.chars().take(40).collect();
        let text = match instance.lifetime(now) {
            Lifetime::Unbounded | Lifetime::Left(_) => continue,
            Lifetime::Unknown if instance.created_at.is_none() => {
                format!("kept: nobody knows when it was made, so its ttl of `{ttl}` says nothing")
            }
            Lifetime::Unknown => format!("kept: its ttl is `{ttl}`, which is no time that it may live"),
            Lifetime::Over(_) if instance.labels.is_true(Labels::PROTECT) => {
                format!("kept: it has outlived its ttl of {ttl}, but it is protected")
            }
            Lifetime::Over(since) => {
                over.push((sandbox, instance));
                let since = Seconds(since);
                format!("its ttl of {ttl} ended {since} ago")
            }
        };
        notices.push(Notice {
            sandbox: sandbox.clone(),
            text,
        });
    }
    let (changes, steps, mut refusals) = deletions(&over, Reason::Expired);
    // Of two instances that claim to be one sandbox, at most one is ours.
    refusals.extend(matched.refusals);
    Plan {
        environment: environment.clone(),
        backend: backend.to_owned(),
        spec_changes: Vec::new(),
        changes,
        accepted: Vec::new(),
        leftovers: Vec::new(),
        notices,
        refusals,
        steps,
        selected: matched.owned.keys().cloned().collect(),
    }
}

/// Of an instance that is older than the ttl that its sandbox is to have: that it will be over at once.
#[must_use]
pub fn overdue(sandbox: &Sandbox, instance: &LiveInstance, now: u64) -> Option<String> {
    let (ttl, _) = sandbox.ttl.as_ref()?;
    let age = Seconds(now.checked_sub(instance.created_at?)?);
    (age.0 >= ttl.0).then(|| format!("it is {age} old, and its ttl is {ttl}: once that is applied, `gc` deletes it"))
}

/// The environments that own something.
#[must_use]
pub fn environments(live: &Live) -> BTreeSet<EnvironmentName> {
    let owners = live.instances.values().filter_map(|instance| {
        let Ownership::Owned { environment, .. } = instance.labels.ownership(&instance.name) else {
            return None;
        };
        Some(environment)
    });
    owners.collect()
}
