//! Outbound network policy, which nothing simulated has: every call is refused.

use async_trait::async_trait;

use super::Memory;
use crate::backend::{Error, NetworkPolicy, ReadPolicy, Result};
use crate::model::{EgressMode, InstanceName, Policy};

#[async_trait]
impl ReadPolicy for Memory {
    async fn get_policy(&self, name: &InstanceName) -> Result<Policy> {
        self.count("get_policy");
        Err(none(name))
    }
}

#[async_trait]
impl NetworkPolicy for Memory {
    async fn set_egress_mode(&self, name: &InstanceName, _mode: EgressMode) -> Result<()> {
        self.note("set_egress_mode", [format!("egress mode {name}")]);
        Err(none(name))
    }

    async fn allow_domain(&self, name: &InstanceName, domain: &str) -> Result<()> {
        self.note("allow_domain", [format!("egress allow {name} {domain}")]);
        Err(none(name))
    }

    async fn deny_domain(&self, name: &InstanceName, domain: &str) -> Result<()> {
        self.note("deny_domain", [format!("egress deny {name} {domain}")]);
        Err(none(name))
    }
}

fn none(name: &InstanceName) -> Error {
    Error::unsupported(format!(
        "no outbound network policy on `{name}`: the simulation has none"
    ))
}
