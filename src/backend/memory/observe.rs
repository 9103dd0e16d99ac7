//! Reading instances and snapshots.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;

use super::Memory;
use super::machine::Machine;
use crate::backend::{Observe, Result, Scope};
use crate::model::{
    Capabilities, EnvironmentName, GuestPath, Instance, InstanceName, Labels, LiveInstance, Protocol, Snapshot,
    VolumeKey,
};

#[async_trait]
impl Observe for Memory {
    fn capabilities(&self) -> &Capabilities {
        self.able()
    }

    async fn describe(&self) -> Result<String> {
        self.count("describe");
        Ok("a simulation in memory".to_owned())
    }

    async fn get(&self, name: &InstanceName) -> Result<Instance> {
        self.count("get");
        self.pause().await;
        self.world().machine(name).map(shown)
    }

    async fn list(&self) -> Result<Vec<Instance>> {
        self.count("list");
        self.pause().await;
        Ok(self.world().machines.values().map(shown).collect())
    }

    async fn list_snapshots(&self, name: &InstanceName) -> Result<Vec<Snapshot>> {
        self.count("list_snapshots");
        self.pause().await;
        Ok(self.world().machine(name)?.snapshots())
    }

    async fn observe(&self, scope: &Scope) -> Result<Vec<LiveInstance>> {
        self.count("observe");
        self.pause().await;
        let wanted = |machine: &&Machine| {
            let labelled = scope
                .environment
                .as_ref()
                .is_none_or(|environment| machine.labels.get(Labels::ENVIRONMENT) == Some(environment.as_str()));
            labelled || scope.names.contains(&machine.name)
        };
        Ok(self
            .world()
            .machines
            .values()
            .filter(wanted)
            .map(Machine::live)
            .collect())
    }

    async fn mounts(&self, name: &InstanceName) -> Result<BTreeSet<GuestPath>> {
        self.count("mounts");
        self.pause().await;
        Ok(self.world().machine(name)?.all_mounted())
    }

    async fn volumes(&self, environment: &EnvironmentName) -> Result<BTreeMap<VolumeKey, Option<String>>> {
        self.count("volumes");
        self.pause().await;
        Ok(self.kept_volumes(environment))
    }

    async fn taken_ports(&self, ports: &BTreeSet<(u16, Protocol)>) -> Result<BTreeMap<(u16, Protocol), String>> {
        self.count("taken_ports");
        Ok(self.taken(ports))
    }

    async fn find_image(&self, image: &str) -> Result<()> {
        self.count("find_image");
        self.pause().await;
        self.world().image(image).map(drop)
    }
}

fn shown(machine: &Machine) -> Instance {
    Instance {
        name: machine.name.clone(),
        status: machine.status,
        addresses: machine.runs().then_some(machine.address).into_iter().collect(),
    }
}
