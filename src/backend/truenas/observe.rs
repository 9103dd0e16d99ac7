//! Reading instances.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::TrueNas;
use super::convert::own;
use super::dialect::Machine;
use crate::backend::{ErrorKind, Result, Scope};
use crate::model::{Bytes, EnvironmentName, Instance, InstanceName, Labels, LiveInstance, LiveSnapshot, Status};

impl TrueNas {
    /// One instance as the system has it.
    pub(super) async fn machine(&self, name: &InstanceName) -> Result<Machine> {
        self.dialect.machine(name.as_str()).await
    }

    /// One instance with its addresses.
    pub(super) async fn read_instance(&self, name: &InstanceName) -> Result<Instance> {
        let machine = self.machine(name).await?;
        let mut addresses = machine.addresses.clone();
        if machine.status == Status::Running
            && !self.dialect.tells_addresses()
            && machine.carried.own.contains_key(own::KEY)
        {
            match self.addresses_of(&machine).await {
                Ok(found) => addresses = found,
                Err(error) => tracing::debug!(instance = %name, %error, "its addresses are not known"),
            }
        }
        Ok(instance(&machine, addresses))
    }

    /// All instances.
    pub(super) async fn read_instances(&self) -> Result<Vec<Instance>> {
        let machines = self.dialect.machines().await?;
        Ok(machines
            .iter()
            .map(|machine| instance(machine, machine.addresses.clone()))
            .collect())
    }

    /// The instances of a scope, with their snapshots: two calls, and one for each that runs to see what is mounted.
    pub(super) async fn read_scope(&self, scope: &Scope) -> Result<Vec<LiveInstance>> {
        let mut machines = self.dialect.machines().await?;
        machines.retain(|machine| is_in(machine, scope));
        if machines.is_empty() {
            return Ok(Vec::new());
        }
        let datasets: Vec<&str> = machines.iter().map(|machine| machine.dataset.as_str()).collect();
        let snapshots = self.snapshots_of(&datasets).await;
        let mut snapshots = snapshots.map_err(|error| error.within("cannot list the snapshots"))?;
        let mounted = machines.iter().map(|machine| self.dialect.mounted(machine));
        let mounted = futures_util::future::join_all(mounted).await;
        let mut live = Vec::new();
        for (machine, mounted) in machines.iter().zip(mounted) {
            let mounted = match mounted {
                // Deleted in between: the plan finds out.
                Err(error) if error.kind() == ErrorKind::NotFound => Default::default(),
                mounted => mounted?,
            };
            let taken = snapshots.remove(&machine.dataset).unwrap_or_default();
            let taken = taken.iter().map(|taken| taken.live());
            let taken = taken.filter(|taken| Self::is_of(taken, &machine.name));
            live.push(LiveInstance {
                mounted,
                ..self::live(
                    machine,
                    taken.map(|taken| (taken.snapshot.label.clone(), taken)).collect(),
                )
            });
        }
        Ok(live)
    }

    /// The instances of a scope's environment that run, those that can be entered.
    pub(super) async fn running_in(&self, scope: &Scope) -> Result<Vec<InstanceName>> {
        let machines = self.dialect.machines().await?.into_iter();
        let wanted = scope.environment.as_ref().map(EnvironmentName::as_str);
        let ours = machines.filter(|machine| {
            wanted.is_some()
                && machine.status == Status::Running
                && machine.carried.labels.get(Labels::ENVIRONMENT) == wanted
                && machine.carried.own.contains_key(own::HOST_KEY)
        });
        Ok(ours.map(|machine| InstanceName::observed(machine.name)).collect())
    }
}

fn is_in(machine: &Machine, scope: &Scope) -> bool {
    let labelled = match &scope.environment {
        Some(wanted) => machine.carried.labels.get(Labels::ENVIRONMENT) == Some(wanted.as_str()),
        None => true,
    };
    labelled || scope.names.contains(&InstanceName::observed(&machine.name))
}

fn instance(machine: &Machine, addresses: Vec<IpAddr>) -> Instance {
    Instance {
        name: InstanceName::observed(&machine.name),
        status: machine.status,
        addresses,
    }
}

/// An instance as a plan needs it.
fn live(machine: &Machine, snapshots: BTreeMap<String, LiveSnapshot>) -> LiveInstance {
    let own = &machine.carried.own;
    LiveInstance {
        name: InstanceName::observed(&machine.name),
        status: machine.status,
        labels: machine.carried.labels.clone(),
        cpu: machine.cpu.clone(),
        memory: machine.memory.map(|bytes| Bytes(bytes).to_string()),
        disk: None,
        disk_effective: None,
        env: machine.carried.env.clone(),
        config: BTreeMap::new(),
        egress: None,
        workspace: Default::default(),
        snapshots,
        created_at: own.get(own::CREATED).and_then(|text| text.parse().ok()),
        location: None,
        image: own.get(own::IMAGE).or(machine.image.as_ref()).cloned(),
        mounted: machine.mounted.clone(),
    }
}
