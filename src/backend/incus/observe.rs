//! Reading instances.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use super::Incus;
use super::{convert, wire};
use crate::backend::retry::retry_when;
use crate::backend::{Error, ErrorKind, Result, Scope};
use crate::model::{EnvironmentName, HostMount, Instance, InstanceName, Labels, LiveInstance, Status};

/// Up to so many instances, snapshots are asked for one instance at a time.
const FEW: usize = 4;

impl Incus {
    /// One instance with its addresses.
    pub(super) async fn read_instance(&self, name: &InstanceName) -> Result<Instance> {
        let mut url = self.client.url(["instances", name.as_str()]);
        url.query_pairs_mut().append_pair("recursion", "1");
        let (instance, _): (wire::Instance, _) = self
            .client
            .get(&url)
            .await
            .map_err(|error| error.within(format_args!("cannot read `{name}`")))?;
        Ok(convert::instance(&instance))
    }

    /// All instances with their addresses.
    pub(super) async fn read_instances(&self) -> Result<Vec<Instance>> {
        Ok(self.all(2).await?.iter().map(convert::instance).collect())
    }

    /// The instances of a scope.
    ///
    /// Two requests, or up to `1 + FEW`, whatever the number of instances. The plain listing tells everything
    /// but snapshots (20 ms with 50 running instances). The full one has those too, but enters every
    /// instance's network namespace and weighs every snapshot (380 ms), other people's included; so it is
    /// asked for only where the scope is not small. Filters do not help: the daemon applies them to the
    /// finished answer.
    pub(super) async fn read_scope(&self, scope: &Scope) -> Result<Vec<LiveInstance>> {
        let mut found = self.told(scope).await?;
        found.retain(|instance| is_in(instance, scope));
        let mut snapshots: BTreeMap<String, Vec<wire::Snapshot>> = BTreeMap::new();
        if found.len() > FEW {
            let full = self.all(2).await?.into_iter().filter(is_told);
            snapshots.extend(full.map(|instance| (instance.name, instance.snapshots.unwrap_or_default())));
        }
        let missing = found.iter().filter(|instance| !snapshots.contains_key(&instance.name));
        let missing: Vec<_> = missing
            .map(|instance| async move {
                match self.snapshots_of(&instance.name).await {
                    Ok(snapshots) => Ok((instance.name.clone(), snapshots)),
                    // Deleted in between: the plan finds out.
                    Err(error) if error.kind() == ErrorKind::NotFound => Ok((instance.name.clone(), Vec::new())),
                    Err(error) => Err(error.within(format_args!("cannot read the snapshots of `{}`", instance.name))),
                }
            })
            .collect();
        let asked: Vec<_> = stream::iter(missing).buffered(FEW).try_collect().await?;
        snapshots.extend(asked);
        let of = |instance: &wire::Instance| snapshots.get(&instance.name).map(Vec::as_slice).unwrap_or_default();
        let policies = self.policies(&found).await?;
        let live = found.iter().map(|instance| LiveInstance {
            egress: Self::policy_of(instance, &policies),
            workspace: self.workspace_of(instance),
            ..convert::live(instance, of(instance))
        });
        Ok(live.collect())
    }

    /// The names of a scope, and of the instances that are there and in it.
    pub(super) async fn names_in(&self, scope: &Scope) -> Result<BTreeSet<String>> {
        let there = self.all(1).await?;
        let there = there.into_iter().filter(|instance| is_in(instance, scope));
        let wanted = scope.names.iter().map(ToString::to_string);
        Ok(there.map(|instance| instance.name).chain(wanted).collect())
    }

    /// What every instance has mounted of this machine.
    pub(super) async fn all_host_mounts(&self) -> Result<BTreeMap<InstanceName, Vec<HostMount>>> {
        let all = self.all(1).await?.into_iter();
        let mounts = all.map(|instance| {
            let mounts = convert::host_mounts(&instance.expanded_devices);
            (InstanceName::observed(instance.name), mounts)
        });
        Ok(mounts.filter(|(_, mounts)| !mounts.is_empty()).collect())
    }

    /// The instances of a scope's environment that run.
    pub(super) async fn running_in(&self, scope: &Scope) -> Result<Vec<InstanceName>> {
        let ours = |instance: &wire::Instance| {
            let labels = convert::labels(&instance.put.config);
            let environment = scope.environment.as_ref().map(EnvironmentName::as_str);
            environment.is_some() && labels.get(Labels::ENVIRONMENT) == environment
        };
        let there = self.all(1).await?.into_iter();
        let running = there.filter(|instance| ours(instance) && convert::status(&instance.status) == Status::Running);
        Ok(running.map(|instance| InstanceName::observed(instance.name)).collect())
    }

    /// The plain listing, once it tells everything about the instances that may be in the scope. While an
    /// instance is stopped or deleted, the daemon may give its name and nothing else for a moment: no labels, so
    /// that ours would look like somebody else's.
    async fn told(&self, scope: &Scope) -> Result<Vec<wire::Instance>> {
        let prefix = scope.environment.as_ref().map(|environment| format!("{environment}-"));
        let ours = |name: &str| {
            scope.names.contains(&InstanceName::observed(name))
                || prefix.as_ref().is_none_or(|prefix| name.starts_with(prefix.as_str()))
        };
        let list = || async {
            let found = self.all(1).await?;
            match found.iter().find(|instance| !is_told(instance) && ours(&instance.name)) {
                Some(instance) => Err(Error::new(
                    ErrorKind::Busy,
                    format!("Incus does not tell anything about `{}` at the moment", instance.name),
                )
                .with_hint("look at it with the incus client; an operation on it may be stuck")),
                None => Ok(found),
            }
        };
        retry_when(list, |error| error.kind() == ErrorKind::Busy).await
    }

    /// The snapshots of an instance. The daemon answers an empty list where there is no such instance.
    pub(super) async fn snapshots_of(&self, name: &str) -> Result<Vec<wire::Snapshot>> {
        let mut url = self.client.url(["instances", name, "snapshots"]);
        url.query_pairs_mut().append_pair("recursion", "1");
        Ok(self.client.get(&url).await?.0)
    }

    async fn all(&self, recursion: u8) -> Result<Vec<wire::Instance>> {
        let mut url = self.client.url(["instances"]);
        url.query_pairs_mut().append_pair("recursion", &recursion.to_string());
        let (mut instances, _): (Vec<wire::Instance>, _) = self
            .client
            .get(&url)
            .await
            .map_err(|error| error.within("cannot list the instances"))?;
        instances.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(instances)
    }
}

fn is_in(instance: &wire::Instance, scope: &Scope) -> bool {
    let labels = convert::labels(&instance.put.config);
    let environment = labels.get(Labels::ENVIRONMENT);
    let labelled = match &scope.environment {
        Some(wanted) => environment == Some(wanted.as_str()),
        None => true,
    };
    labelled || scope.names.contains(&InstanceName::observed(&instance.name))
}

/// Whether the daemon has told more than the name: every instance has settings, its volatile ones at least.
fn is_told(instance: &wire::Instance) -> bool {
    !instance.put.config.is_empty()
}
