//! Outbound network policy, which is not here yet: every call is refused.

use async_trait::async_trait;

use super::Local;
use crate::backend::{Error, NetworkPolicy, ReadPolicy, Result};
use crate::model::{EgressMode, InstanceName, Policy};

#[async_trait]
impl ReadPolicy for Local {
    async fn get_policy(&self, name: &InstanceName) -> Result<Policy> {
        Err(none(name))
    }
}

#[async_trait]
impl NetworkPolicy for Local {
    async fn set_egress_mode(&self, name: &InstanceName, _mode: EgressMode) -> Result<()> {
        Err(none(name))
    }

    async fn allow_domain(&self, name: &InstanceName, _domain: &str) -> Result<()> {
        Err(none(name))
    }

    async fn deny_domain(&self, name: &InstanceName, _domain: &str) -> Result<()> {
        Err(none(name))
    }
}

fn none(name: &InstanceName) -> Error {
    Error::unsupported(format!(
        "no outbound network policy on `{name}`: local sandboxes have none yet"
    ))
}
