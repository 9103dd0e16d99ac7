//! Outbound network policy: kept, and held against the rules of the contract; nothing here could be reached anyway.

use async_trait::async_trait;

use super::Memory;
use crate::backend::{Error, ErrorKind, NetworkPolicy, Observe as _, ReadPolicy, Result};
use crate::model::{Capability, Destination, Enforcement, InstanceName, LivePolicy, PinnedPolicy, Status};

impl ReadPolicy for Memory {}

#[async_trait]
impl NetworkPolicy for Memory {
    async fn set_policy(&self, name: &InstanceName, policy: Option<&PinnedPolicy>) -> Result<()> {
        let inside = policy.is_some_and(|policy| policy.enforce == Enforcement::Guest);
        let lifts_inside = policy.is_none() && self.capabilities().can(Capability::EgressGuest);
        self.need(match inside || lifts_inside {
            true => Capability::EgressGuest,
            false => Capability::EgressHost,
        })?;
        let entry = match policy {
            Some(policy) if inside => format!("egress {name} {} inside", policy.key.name),
            Some(policy) => format!("egress {name} {}", policy.key.name),
            None => format!("egress {name} unrestricted"),
        };
        self.note("set_policy", [entry]);
        self.pause().await;
        if let Some(policy) = policy {
            strict(policy)?;
        }
        let mut world = self.world();
        let machine = world.machine_mut(name)?;
        let by_host = |policy: Option<&PinnedPolicy>| {
            let policy = policy.filter(|policy| policy.enforce == Enforcement::Host);
            policy.map(|policy| policy.key.clone())
        };
        let moves = by_host(machine.egress.as_ref().map(|found| &found.policy)) != by_host(policy);
        if moves && machine.status != Status::Stopped {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("`{name}` runs: it cannot be put on another network"),
            ));
        }
        machine.egress = policy.map(|policy| LivePolicy {
            policy: policy.clone(),
            fault: None,
        });
        let Some(policy) = policy.filter(|_| !inside) else {
            return Ok(());
        };
        for other in world.machines.values_mut() {
            if let Some(found) = other.egress.as_mut().filter(|found| found.policy.key == policy.key) {
                found.policy = policy.clone();
            }
        }
        Ok(())
    }
}

/// Refuses what no backend could enforce: names without addresses, addresses of no name.
fn strict(policy: &PinnedPolicy) -> Result<()> {
    let refuse = |message: String| Err(Error::new(ErrorKind::Invalid, message));
    for opening in &policy.open {
        match &opening.to {
            Destination::Domain(_) | Destination::Sandbox(_)
                if opening.networks(&policy.addresses).next().is_none() =>
            {
                return refuse(format!("`{}` is open without an address", opening.to));
            }
            _ => {}
        }
    }
    for name in policy.addresses.keys() {
        if !policy
            .open
            .iter()
            .any(|opening| opening.to.pinned_as().as_ref() == Some(name))
        {
            return refuse(format!("`{name}` has addresses and is not open"));
        }
    }
    Ok(())
}
