//! Which instance is which sandbox.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::Refusal;
use crate::model::{
    Desired, EnvironmentName, InstanceName, Live, LiveInstance, Ownership, Place, Sandbox, SandboxName,
};

/// The instances of an environment, by sandbox.
#[derive(Debug, Default)]
pub struct Matched<'a> {
    /// Owned by this environment, declared or not.
    pub owned: BTreeMap<SandboxName, &'a LiveInstance>,
    /// What stands in the way: names that somebody else holds, and sandboxes with two instances.
    pub refusals: Vec<Refusal>,
}

impl<'a> Matched<'a> {
    /// Finds the instances of an environment by their labels, and the names that others hold.
    #[must_use]
    pub fn of(desired: &Desired, live: &'a Live) -> Self {
        let mut matched = Self::owned_by(&desired.environment, live);
        for sandbox in desired.sandboxes.values() {
            matched.refuse_foreign(&desired.environment, sandbox, live);
        }
        matched
    }

    /// Finds the instances of an environment by their labels.
    #[must_use]
    pub fn owned_by(environment: &EnvironmentName, live: &'a Live) -> Self {
        let mut matched = Self::default();
        for instance in live.instances.values() {
            let Ownership::Owned {
                environment: of,
                sandbox,
            } = instance.labels.ownership(&instance.name)
            else {
                continue;
            };
            if of != *environment {
                continue;
            }
            match matched.owned.entry(sandbox) {
                Entry::Vacant(entry) => drop(entry.insert(instance)),
                Entry::Occupied(entry) => matched.refusals.push(Refusal::refused(
                    "plan::two-instances",
                    format!(
                        "`{}` has two instances: `{}` and `{}`",
                        entry.key(),
                        entry.get().name,
                        instance.name
                    ),
                    &Place::nowhere(),
                    "",
                    "delete one of them, or take its `sbx-apply` labels off".to_owned(),
                )),
            }
        }
        matched
    }

    /// All that are owned, `task-2` before `task-10`.
    #[must_use]
    pub fn in_order(&self) -> Vec<(&SandboxName, &'a LiveInstance)> {
        let mut owned: Vec<_> = self.owned.iter().map(|(name, instance)| (name, *instance)).collect();
        owned.sort_by(|(one, _), (other, _)| one.in_natural_order(other));
        owned
    }

    /// Those that the spec no longer names, in the same order.
    #[must_use]
    pub fn left_over(&self, desired: &Desired) -> Vec<(&SandboxName, &'a LiveInstance)> {
        let mut left = self.in_order();
        left.retain(|(name, _)| !desired.sandboxes.contains_key(*name));
        left
    }

    /// The instance that a sandbox has, or the name that it will get.
    #[must_use]
    pub fn name_of(&self, environment: &EnvironmentName, sandbox: &SandboxName) -> InstanceName {
        match self.owned.get(sandbox) {
            Some(instance) => instance.name.clone(),
            // The spec's floor has checked the length.
            None => InstanceName::of(environment, sandbox)
                .unwrap_or_else(|_| InstanceName::observed(format!("{environment}-{sandbox}"))),
        }
    }

    fn refuse_foreign(&mut self, environment: &EnvironmentName, sandbox: &Sandbox, live: &Live) {
        if self.owned.contains_key(&sandbox.name) {
            return;
        }
        let name = self.name_of(environment, &sandbox.name);
        let Some(instance) = live.instances.get(&name) else {
            return;
        };
        let rename = "rename the sandbox or the environment";
        let help = match instance.labels.ownership(&name) {
            Ownership::Owned { environment, sandbox } => {
                format!("{rename}; it is the sandbox `{sandbox}` of `{environment}`")
            }
            Ownership::Foreign => format!(
                "{rename}; or, to make that instance this sandbox: sbx-apply adopt SPEC {} {name}",
                sandbox.name
            ),
        };
        self.refusals.push(Refusal::refused(
            "plan::foreign",
            format!("the name `{name}` is taken by an instance that this environment does not own"),
            &sandbox.at,
            "this sandbox would need it",
            help,
        ));
    }
}
