//! Outbound network policy, enforced by the sandbox's own table on this machine.
//!
//! It is kept in the sandbox's record, and the table is what is in force while it runs: somebody who edits that by hand
//! is found out. Its names stand in the hosts file that is the sandbox's own; nobody answers DNS.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::Local;
use super::network::Subject;
use super::state::Record;
use crate::backend::{Doing, NetworkPolicy, ReadPolicy, Result, pinned};
use crate::model::{
    Capability, Enforcement, EnvironmentName, InstanceName, Learned, LivePolicy, PinnedPolicy, PolicyKey,
};

/// A policy, as a record has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    environment: EnvironmentName,
    name: String,
    /// Openings, as texts.
    open: BTreeSet<String>,
    addresses: BTreeMap<String, BTreeSet<IpAddr>>,
}

impl Kept {
    fn of(policy: &PinnedPolicy) -> Self {
        Self {
            environment: policy.key.environment.clone(),
            name: policy.key.name.clone(),
            open: policy.open.iter().map(ToString::to_string).collect(),
            addresses: policy.addresses.clone(),
        }
    }

    /// The policy. What does not read as an opening opens nothing.
    pub(super) fn policy(&self) -> PinnedPolicy {
        PinnedPolicy {
            key: PolicyKey {
                environment: self.environment.clone(),
                name: self.name.clone(),
            },
            enforce: Enforcement::Host,
            open: self.open.iter().filter_map(|text| text.parse().ok()).collect(),
            addresses: self.addresses.clone(),
        }
    }
}

impl ReadPolicy for Local {}

#[async_trait]
impl NetworkPolicy for Local {
    /// Policies leave nothing here, but what sandboxes had on their disks may lie about.
    async fn tidy(&self, _: &EnvironmentName) -> Result<()> {
        let swept = self.store.sweep(self.ids, &self.helpers).await;
        swept.map_err(|error| error.within("cannot remove what sandboxes have left that are no more"))
    }

    async fn set_policy(&self, name: &InstanceName, policy: Option<&PinnedPolicy>) -> Result<()> {
        if let Some(policy) = policy {
            pinned::check(policy)?;
            let needed = match policy.open.is_empty() {
                true => Capability::EgressNone,
                false => Capability::EgressHost,
            };
            self.need(needed)?;
            if policy.has_ipv6() {
                self.need(Capability::EgressIpv6)?;
            }
        }
        self.put(name, policy).await?;
        let Some(policy) = policy else { return Ok(()) };
        for other in self.store.all()? {
            let shares = |kept: &Kept| kept.policy().key == policy.key;
            let shares = self
                .store
                .record(&other)
                .is_ok_and(|record| record.egress.as_ref().is_some_and(shares));
            if shares && other != *name {
                self.put(&other, Some(policy)).await?;
            }
        }
        Ok(())
    }

    fn may_learn(&self) -> Result<()> {
        self.network.watches()
    }

    async fn learn(&self, name: &InstanceName, during: Doing<'_>) -> Result<Learned> {
        self.watch_while(name, during)
            .await
            .map_err(|error| error.within(format_args!("cannot watch what `{name}` asks for")))
    }
}

impl Local {
    async fn put(&self, name: &InstanceName, policy: Option<&PinnedPolicy>) -> Result<()> {
        let (_lock, mut record) = self.lock(name).await?;
        let kept = policy.map(Kept::of);
        let folder = self.store.sandbox(name)?;
        if let Some(process) = self.store.process(name) {
            let subject = Subject {
                name,
                folder: &folder,
                policy: policy.cloned(),
            };
            // First what closes: a table that cannot be loaded leaves the old one, and the record.
            self.network.update(&subject, process.pid, None).await?;
        }
        if record.egress != kept {
            record.egress = kept;
            self.store.keep(name, &record)?;
        }
        let parts = self.parts(&record.image).await?;
        self.store.write_etc(name, self.ids, &parts, policy)
    }

    /// What is in force on a sandbox.
    pub(super) async fn policy(&self, name: &InstanceName, record: &Record) -> Option<LivePolicy> {
        let policy = record.egress.as_ref()?.policy();
        let fault = match self.store.process(name).zip(self.store.sandbox(name).ok()) {
            Some((process, folder)) => {
                let subject = Subject {
                    name,
                    folder: &folder,
                    policy: Some(policy.clone()),
                };
                self.network.fault(&subject, process.pid).await
            }
            None => None,
        };
        Some(LivePolicy { policy, fault })
    }
}
