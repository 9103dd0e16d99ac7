//! Reading instances and snapshots.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;

use super::Local;
use super::lifecycle::setting;
use super::network::addresses;
use crate::backend::attachable::{Opens, taken};
use crate::backend::{ErrorKind, Observe, Result, Scope};
use crate::model::{
    Capabilities, EnvironmentName, GuestPath, Instance, InstanceName, Labels, LiveInstance, Protocol, Snapshot, Status,
    VolumeKey,
};

#[async_trait]
impl Observe for Local {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn describe(&self) -> Result<String> {
        let kernel = rustix::system::uname();
        Ok(format!(
            "Linux {} on this machine, state in {}",
            kernel.release().to_string_lossy(),
            self.store.root().display()
        ))
    }

    async fn get(&self, name: &InstanceName) -> Result<Instance> {
        self.store.record(name)?;
        Ok(self.shown(name))
    }

    async fn list(&self) -> Result<Vec<Instance>> {
        Ok(self.store.all()?.iter().map(|name| self.shown(name)).collect())
    }

    async fn list_snapshots(&self, name: &InstanceName) -> Result<Vec<Snapshot>> {
        let record = self.store.record(name)?;
        Ok(record.snapshots.iter().map(super::state::Kept::shown).collect())
    }

    async fn mounts(&self, name: &InstanceName) -> Result<BTreeSet<GuestPath>> {
        let record = self.store.record(name)?;
        Ok(record.live(name, Status::Stopped).mounted)
    }

    async fn volumes(&self, environment: &EnvironmentName) -> Result<BTreeMap<VolumeKey, Option<String>>> {
        let kept = self.kept_volumes(environment)?;
        Ok(kept.into_iter().map(|key| (key, None)).collect())
    }

    fn check_setting(&self, key: &str, value: &str) -> Result<()> {
        setting(key, Some(value))
    }

    async fn taken_ports(&self, ports: &BTreeSet<(u16, Protocol)>) -> Result<BTreeMap<(u16, Protocol), String>> {
        Ok(taken(ports, Opens::Itself))
    }

    async fn find_image(&self, image: &str) -> Result<()> {
        self.locate(image)?;
        // Told at plan time, too: at this line of the spec, the first that needs it.
        self.probe().await
    }

    async fn probe(&self) -> Result<()> {
        self.try_machine().await
    }

    async fn observe(&self, scope: &Scope) -> Result<Vec<LiveInstance>> {
        let mut found = Vec::new();
        for name in self.store.all()? {
            let record = match self.store.record(&name) {
                // Deleted in between.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                // It says no more whose it is. Its name does, where it is one of an environment's.
                Err(error) if !may_be_of(&name, scope) => {
                    tracing::warn!("`{name}` is left out: {error}");
                    continue;
                }
                record => record?,
            };
            let environment = record.labels.get(Labels::ENVIRONMENT).map(String::as_str);
            let labelled = match &scope.environment {
                Some(wanted) => environment == Some(wanted.as_str()),
                None => true,
            };
            if labelled || scope.names.contains(&name) {
                let live = record.live(&name, self.store.status(&name));
                let egress = self.policy(&name, &record).await;
                let workspace = self.workspace(&name, &record);
                found.push(LiveInstance {
                    egress,
                    workspace,
                    ..live
                });
            }
        }
        Ok(found)
    }
}

/// Whether an instance is one that a scope asks for, as far as its name tells.
fn may_be_of(name: &InstanceName, scope: &Scope) -> bool {
    scope.names.contains(name)
        || match &scope.environment {
            Some(environment) => name.as_str().starts_with(&format!("{environment}-")),
            None => false,
        }
}

impl Local {
    fn shown(&self, name: &InstanceName) -> Instance {
        let process = self.store.process(name);
        Instance {
            name: name.clone(),
            status: self.store.status(name),
            addresses: process.map_or_else(Vec::new, |process| addresses(process.pid)),
        }
    }
}
