//! Outbound network policy, which is not here yet: every change is refused.

use async_trait::async_trait;

use super::Local;
use crate::backend::{Error, NetworkPolicy, ReadPolicy, Result};
use crate::model::{InstanceName, PinnedPolicy};

impl ReadPolicy for Local {}

#[async_trait]
impl NetworkPolicy for Local {
    async fn set_policy(&self, name: &InstanceName, _policy: Option<&PinnedPolicy>) -> Result<()> {
        Err(Error::unsupported(format!(
            "no outbound network policy on `{name}`: local sandboxes have none yet"
        )))
    }
}
