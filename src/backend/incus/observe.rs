//! Reading instances.

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use super::Incus;
use super::{convert, wire};
use crate::backend::{ErrorKind, Result, Scope};
use crate::model::{Instance, InstanceName, Labels, LiveInstance};

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
        let mut found = self.all(1).await?;
        found.retain(|instance| is_in(instance, scope));
        if found.len() > FEW {
            let mut full = self.all(2).await?;
            full.retain(|instance| is_in(instance, scope));
            return Ok(full
                .iter()
                .map(|instance| convert::live(instance, instance.snapshots.as_deref().unwrap_or_default()))
                .collect());
        }
        let lives = found.iter().map(|instance| async move {
            match self.snapshots_of(&instance.name).await {
                Ok(snapshots) => Ok(Some(convert::live(instance, &snapshots))),
                // Deleted in between.
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error.within(format_args!("cannot read the snapshots of `{}`", instance.name))),
            }
        });
        let lives: Vec<_> = lives.collect();
        let lives: Vec<Option<LiveInstance>> = stream::iter(lives).buffered(FEW).try_collect().await?;
        Ok(lives.into_iter().flatten().collect())
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
