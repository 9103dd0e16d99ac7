//! Reading what a plan is made from.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use futures_util::{StreamExt as _, TryStreamExt as _};

use super::{secrets, spec_files};
use crate::backend::{ErrorKind, Reader, Result, Scope, has_no_disk, is_untouched, own_addresses, resolve};
use crate::model::{
    Capability, Desired, Destination, EnvironmentName, Field, GuestPath, Inspection, InstanceName, Kind, Live,
    LiveInstance, Origin, Ownership, Resolved, Sandbox, SandboxName, Status, VolumeKey,
};

/// How many names are looked up at once.
const RESOLVING: usize = 16;
use crate::plan::{self, Matched};

/// Reads every instance of the environment and of the names that it wants, in one observation, and then, in one
/// session for each instance of a selected sandbox, the files that its spec or its record names.
///
/// # Errors
/// Whatever the backend says.
pub async fn observe(reader: &dyn Reader, desired: &Desired, selected: &BTreeSet<SandboxName>) -> Result<Live> {
    let scope = scope_of(desired);
    let (live, records) =
        futures_util::future::try_join(observe_scope(reader, &scope), spec_files::records(reader, desired)).await?;
    let mut live = Live {
        spec_records: records,
        ..live
    };
    let matched = Matched::of(desired, &live);
    let there: Vec<(&Sandbox, &LiveInstance)> = desired
        .sandboxes
        .values()
        .filter(|sandbox| selected.contains(&sandbox.name))
        .filter_map(|sandbox| Some((sandbox, *matched.owned.get(&sandbox.name)?)))
        .collect();
    let secret: BTreeMap<InstanceName, BTreeSet<GuestPath>> = there
        .iter()
        .map(|(sandbox, instance)| (instance.name.clone(), plan::secret_paths(desired, &matched, sandbox)))
        .collect();
    let reaches_stopped = reader.capabilities().can(Capability::FilesWhenStopped);
    let unseen = there.iter().map(|(_, instance)| instance);
    let unseen = unseen.filter(|instance| !reaches_stopped && instance.status != Status::Running);
    let mut unseen: BTreeSet<InstanceName> = unseen.map(|instance| instance.name.clone()).collect();
    let sessions = there.iter().filter_map(|(sandbox, instance)| {
        if unseen.contains(&instance.name) {
            return None;
        }
        let query = plan::query(sandbox, instance);
        // One that stands still may be so for want of a disk.
        let worth = !query.is_empty() || instance.status != Status::Running;
        worth.then(|| (instance.name.clone(), query))
    });
    let sessions: Vec<_> = sessions.collect();
    let inspected = futures_util::stream::iter(sessions)
        .map(|(name, query)| async move {
            match reader.inspect(&name, &query).await {
                Ok(inspection) => Ok(Some((name, Seen::Files(inspection)))),
                Err(error) if is_untouched(&error) => Ok(Some((name, Seen::Nothing))),
                Err(error) if has_no_disk(&error) => Ok(Some((name, Seen::NoDisk))),
                // Deleted since a moment ago.
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error),
            }
        })
        .buffer_unordered(reader.capabilities().concurrency.max(1))
        .try_collect::<Vec<_>>()
        .await?;
    let inside: Vec<InstanceName> = matched
        .owned
        .iter()
        .filter(|(name, instance)| {
            let sandbox = desired.sandboxes.get(*name).filter(|_| selected.contains(*name));
            plan::may_be_inside(sandbox, instance, reader.capabilities())
        })
        .map(|(_, instance)| instance.name.clone())
        .collect();
    live.names = names(desired, selected).await;
    if has_rules(desired, selected) {
        live.machine = own_addresses().into_iter().collect();
    }
    live.names.extend(peers(reader, desired, &live, selected).await?);
    look_inside(reader, &mut live, inside).await?;
    if has_volumes(desired, &live) {
        find_volumes(reader, &desired.environment, &mut live).await?;
    }
    let chosen = desired
        .sandboxes
        .values()
        .filter(|sandbox| selected.contains(&sandbox.name));
    let ports = plan::wanted_ports(chosen, &live.instances);
    if !ports.is_empty() {
        live.taken_ports = reader.taken_ports(&ports).await?;
    }
    let mounts = |sandbox: &&Sandbox| selected.contains(&sandbox.name) && !sandbox.mounts.is_empty();
    if desired.sandboxes.values().any(|sandbox| mounts(&sandbox)) {
        live.host_mounts = reader.host_mounts().await?;
    }
    let (mut files, mut values) = (BTreeMap::new(), BTreeMap::new());
    for (name, seen) in inspected.into_iter().flatten() {
        match seen {
            Seen::Files(mut inspection) => {
                values.insert(name.clone(), secrets::take(&mut inspection, &secret[&name]));
                files.insert(name, inspection);
            }
            Seen::Nothing => drop(unseen.insert(name)),
            Seen::NoDisk => drop(live.diskless.insert(name)),
        }
    }
    live.refused_settings = refused_settings(reader, desired, selected);
    live.missing_images = missing_images(reader, images_to_make(desired, selected, &live)).await;
    live.secrets = secrets::hashes(reader, desired, &files, &secret).await?;
    live.secrets.applied = secrets::applied(&live, &values);
    live.files = files;
    live.unseen.extend(unseen);
    Ok(live)
}

/// What looking into an instance came to.
enum Seen {
    Files(Inspection),
    Nothing,
    NoDisk,
}

/// Adds what egress policies some instances have inside, where no observation looks. Those into which nobody can look now
/// are [`Live::unseen`] then, and have what was last applied.
///
/// # Errors
/// Whatever the backend says.
pub async fn look_inside(reader: &dyn Reader, live: &mut Live, names: Vec<InstanceName>) -> Result<()> {
    let reaches_stopped = reader.capabilities().can(Capability::FilesWhenStopped);
    let runs = |name: &InstanceName| {
        let found = live.instances.get(name);
        found.is_none_or(|instance| instance.status == Status::Running)
    };
    let (names, unseen): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| reaches_stopped || runs(name));
    let looked = futures_util::stream::iter(names)
        .map(|name| async move {
            match reader.look_inside(&name).await {
                Ok(found) => Ok(Some((name, Some(found)))),
                Err(error) if is_untouched(&error) => Ok(Some((name, None))),
                // Deleted since a moment ago.
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error),
            }
        })
        .buffer_unordered(reader.capabilities().concurrency.max(1))
        .try_collect::<Vec<_>>()
        .await?;
    let unseen = unseen.into_iter().map(|name| (name, None));
    for (name, found) in looked.into_iter().flatten().chain(unseen) {
        let Some(found) = found else {
            if let Some(instance) = live.instances.get_mut(&name) {
                instance.egress = instance.egress.take().or_else(|| plan::recorded_inside(instance));
            }
            live.unseen.insert(name);
            continue;
        };
        if let Some(instance) = live.instances.get_mut(&name) {
            instance.egress = instance.egress.take().or(found.policy);
        }
        live.lacking_inside.extend(found.lacks.map(|why| (name, why)));
    }
    Ok(())
}

/// Whether there may be volumes: looking for them costs a request.
fn has_volumes(desired: &Desired, live: &Live) -> bool {
    let declared = desired.sandboxes.values().any(|sandbox| !sandbox.volumes.is_empty());
    let recorded = |instance: &LiveInstance| instance.labels.applied().names(Kind::Volume).next().is_some();
    declared || live.instances.values().any(recorded)
}

/// Adds the volumes of an environment, those of sandboxes that are no more, too; they cost a request.
///
/// # Errors
/// Whatever the backend says.
pub async fn find_volumes(reader: &dyn Reader, environment: &EnvironmentName, live: &mut Live) -> Result<()> {
    if !reader.capabilities().can(Capability::Volumes) {
        return Ok(());
    }
    live.volumes = reader.volumes(environment).await?;
    for (name, instance) in &mut live.instances {
        let Ownership::Owned { environment, sandbox } = instance.labels.ownership(name) else {
            continue;
        };
        let sizes = instance.workspace.volumes.keys().filter_map(|volume| {
            let key = VolumeKey {
                environment: environment.clone(),
                sandbox: sandbox.clone(),
                name: volume.clone(),
            };
            Some((volume.clone(), live.volumes.get(&key)?.clone()?))
        });
        instance.workspace.volume_sizes = sizes.collect();
    }
    Ok(())
}

/// What the names in the policies of selected sandboxes resolve to, as this machine sees it.
async fn names(desired: &Desired, selected: &BTreeSet<SandboxName>) -> BTreeMap<String, Resolved> {
    let selected = desired
        .sandboxes
        .values()
        .filter(|sandbox| selected.contains(&sandbox.name));
    let rules = selected
        .filter_map(|sandbox| sandbox.egress.as_ref())
        .flat_map(|policy| &policy.allow);
    let names: BTreeSet<&String> = rules
        .filter_map(|rule| match &rule.to {
            Destination::Domain(name) => Some(name),
            Destination::Network(_) | Destination::Sandbox(_) => None,
        })
        .collect();
    futures_util::stream::iter(names)
        .map(|name| async move { (name.clone(), resolve(name).await) })
        .buffer_unordered(RESOLVING)
        .collect()
        .await
}

fn has_rules(desired: &Desired, selected: &BTreeSet<SandboxName>) -> bool {
    let mut chosen = desired
        .sandboxes
        .values()
        .filter(|sandbox| selected.contains(&sandbox.name));
    chosen.any(|sandbox| sandbox.egress.as_ref().is_some_and(|policy| !policy.allow.is_empty()))
}

/// Where the sandboxes are that the policies of selected ones open, under the names by which policies know them.
async fn peers(
    reader: &dyn Reader,
    desired: &Desired,
    live: &Live,
    selected: &BTreeSet<SandboxName>,
) -> Result<BTreeMap<String, Resolved>> {
    let matched = Matched::of(desired, live);
    let selected = desired
        .sandboxes
        .values()
        .filter(|sandbox| selected.contains(&sandbox.name));
    let rules = selected
        .filter_map(|sandbox| sandbox.egress.as_ref())
        .flat_map(|policy| &policy.allow);
    let open: BTreeSet<&SandboxName> = rules.filter_map(|rule| rule.to.sandbox()).collect();
    let mut found = BTreeMap::new();
    for peer in open {
        let Some(instance) = matched
            .owned
            .get(peer)
            .filter(|instance| instance.status == Status::Running)
        else {
            continue;
        };
        let address = reader.address_of(&instance.name).await?;
        let addresses = address.into_iter().map(IpAddr::V4).collect();
        found.insert(Destination::Sandbox(peer.clone()).to_string(), Ok(addresses));
    }
    Ok(found)
}

/// The images that a plan may have to make instances from: of sandboxes that have none, or one without a disk, or are
/// recorded as made from another.
fn images_to_make(desired: &Desired, selected: &BTreeSet<SandboxName>, live: &Live) -> BTreeSet<String> {
    let matched = Matched::of(desired, live);
    let selected = desired
        .sandboxes
        .values()
        .filter(|sandbox| selected.contains(&sandbox.name));
    let images = selected.filter_map(|sandbox| {
        let Origin::Image { name, .. } = &sandbox.origin else {
            return None;
        };
        let made_from = |instance: &&LiveInstance| {
            let applied = instance.labels.applied();
            applied.get(&Field::sandbox("image")) == Some(name) && !live.diskless.contains(&instance.name)
        };
        let is_made = matched.owned.get(&sandbox.name).is_some_and(made_from);
        (!is_made).then(|| name.clone())
    });
    images.collect()
}

/// Those settings of some sandboxes that they cannot have.
fn refused_settings(
    reader: &dyn Reader,
    desired: &Desired,
    selected: &BTreeSet<SandboxName>,
) -> BTreeMap<(String, String), String> {
    let chosen = desired
        .sandboxes
        .values()
        .filter(|sandbox| selected.contains(&sandbox.name));
    let settings = chosen.flat_map(|sandbox| &sandbox.config);
    let refused = settings.filter_map(|(key, (value, _))| {
        let error = reader.check_setting(key, value).err()?;
        let hint = error.hint().map_or_else(|| error.to_string(), str::to_owned);
        Some(((key.clone(), value.clone()), hint))
    });
    refused.collect()
}

/// Those of some images that cannot be had, so that nothing is deleted to be made anew from a typing error.
async fn missing_images(reader: &dyn Reader, images: BTreeSet<String>) -> BTreeMap<String, String> {
    let mut missing = BTreeMap::new();
    for image in images {
        match reader.find_image(&image).await {
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::NotFound | ErrorKind::Unsupported | ErrorKind::Invalid
                ) =>
            {
                let hint = error.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
                missing.insert(image, format!("{error}{hint}"));
            }
            // Who makes an instance of it will hear of whatever else is the matter.
            _ => {}
        }
    }
    missing
}

/// Reads every instance of an environment, without files.
///
/// # Errors
/// Whatever the backend says.
pub async fn observe_environment(reader: &dyn Reader, environment: &EnvironmentName) -> Result<Live> {
    let mut live = observe_scope(reader, &scope_of_environment(environment)).await?;
    find_volumes(reader, environment, &mut live).await?;
    Ok(live)
}

/// Reads every instance of the environment, of the names that it wants, and one more, without files; and the hashes of the
/// spec's secrets.
///
/// # Errors
/// Whatever the backend says.
pub async fn observe_with(reader: &dyn Reader, desired: &Desired, more: &InstanceName) -> Result<Live> {
    let mut live = observe(reader, desired, &BTreeSet::new()).await?;
    let more = Scope {
        environment: Some(desired.environment.clone()),
        names: BTreeSet::from([more.clone()]),
    };
    live.instances.extend(observe_scope(reader, &more).await?.instances);
    Ok(live)
}

/// Reads every instance that any environment owns, without files.
///
/// # Errors
/// Whatever the backend says.
pub async fn observe_owned(reader: &dyn Reader) -> Result<Live> {
    let everything = Scope {
        environment: None,
        names: BTreeSet::new(),
    };
    let mut live = observe_scope(reader, &everything).await?;
    live.instances
        .retain(|name, instance| instance.labels.ownership(name) != Ownership::Foreign);
    Ok(live)
}

/// Where all that concerns a spec is: the environment, and the names that it wants.
#[must_use]
pub fn scope_of(desired: &Desired) -> Scope {
    let names = desired.sandboxes.keys();
    let names = names.filter_map(|name| InstanceName::of(&desired.environment, name).ok());
    Scope {
        environment: Some(desired.environment.clone()),
        names: names.collect(),
    }
}

/// Where all that an environment owns is.
#[must_use]
pub fn scope_of_environment(environment: &EnvironmentName) -> Scope {
    Scope {
        environment: Some(environment.clone()),
        names: BTreeSet::new(),
    }
}

/// Reads every instance in a scope, without files.
///
/// # Errors
/// Whatever the backend says.
pub async fn observe_scope(reader: &dyn Reader, scope: &Scope) -> Result<Live> {
    let instances = reader.observe(scope).await?;
    Ok(Live {
        instances: instances
            .into_iter()
            .map(|instance| (instance.name.clone(), instance))
            .collect(),
        ..Live::default()
    })
}
