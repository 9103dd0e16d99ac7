//! What the tool writes on the instances that it owns.
//!
//! Labels are a flat map of short keys; each backend keeps them where it can (Incus: `user.sbx-apply.KEY`).

use std::collections::BTreeMap;

use super::{EnvironmentName, Facts, InstanceName, SandboxName};

/// Labels of an instance or a snapshot, by key without the backend's prefix.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels(pub BTreeMap<String, String>);

/// Whose an instance is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ownership {
    /// Of this sandbox of this environment.
    Owned {
        /// Environment.
        environment: EnvironmentName,
        /// Sandbox, by its name in the spec.
        sandbox: SandboxName,
    },
    /// Not ours: no labels, or those of another instance that this is a hand-made copy of.
    Foreign,
}

impl Labels {
    /// Key: the environment's name.
    pub const ENVIRONMENT: &'static str = "environment";
    /// Key: the sandbox's name in the spec.
    pub const SANDBOX: &'static str = "sandbox";
    /// Key: the instance's own name, which a hand-made copy no longer matches.
    pub const INSTANCE: &'static str = "instance";
    /// Key: the last-applied record, [`Facts`] as JSON.
    pub const APPLIED: &'static str = "applied";
    /// Key: `true` once the first apply has finished; before that the instance holds nobody's data.
    pub const COMPLETE: &'static str = "complete";
    /// Key: `true` when its disk is guarded even without the spec.
    pub const PROTECT: &'static str = "protect";
    /// Key: how long it may live, as in `24h`.
    pub const TTL: &'static str = "ttl";

    /// The labels that make an instance ours.
    #[must_use]
    pub fn owned(environment: &EnvironmentName, sandbox: &SandboxName, instance: &InstanceName) -> Self {
        Self(BTreeMap::from([
            (Self::ENVIRONMENT.to_owned(), environment.to_string()),
            (Self::SANDBOX.to_owned(), sandbox.to_string()),
            (Self::INSTANCE.to_owned(), instance.to_string()),
        ]))
    }

    /// A label.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// Whether a label says `true`.
    #[must_use]
    pub fn is_true(&self, key: &str) -> bool {
        self.get(key) == Some("true")
    }

    /// Whose the instance of this name with these labels is.
    #[must_use]
    pub fn ownership(&self, instance: &InstanceName) -> Ownership {
        let names = || {
            let environment = EnvironmentName::new(self.get(Self::ENVIRONMENT)?).ok()?;
            let sandbox = SandboxName::new(self.get(Self::SANDBOX)?).ok()?;
            (self.get(Self::INSTANCE)? == instance.as_str()).then_some((environment, sandbox))
        };
        match names() {
            Some((environment, sandbox)) => Ownership::Owned { environment, sandbox },
            None => Ownership::Foreign,
        }
    }

    /// The last-applied record; empty where there is none or it cannot be read, which makes every difference a
    /// pending change and no field left over.
    #[must_use]
    pub fn applied(&self) -> Facts {
        self.get(Self::APPLIED)
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default()
    }

    /// Keeps a last-applied record.
    pub fn set_applied(&mut self, facts: &Facts) {
        // Facts are maps of strings, which always serialize.
        let text = serde_json::to_string(facts).unwrap_or_default();
        self.0.insert(Self::APPLIED.to_owned(), text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hand_made_copy_is_foreign() {
        let environment = EnvironmentName::new("demo").expect("a name");
        let sandbox = SandboxName::new("base").expect("a name");
        let instance = InstanceName::of(&environment, &sandbox).expect("a name");
        let labels = Labels::owned(&environment, &sandbox, &instance);
        assert_eq!(labels.ownership(&instance), Ownership::Owned { environment, sandbox });
        assert_eq!(labels.ownership(&InstanceName::observed("copy")), Ownership::Foreign);
        assert_eq!(Labels::default().ownership(&instance), Ownership::Foreign);
    }
}
