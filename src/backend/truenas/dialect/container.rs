//! 26: containers by `container.*`, which is libvirt's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::OnceCell;

use super::image::{self, Product};
use super::nic::{self, Card};
use super::{Carried, Client, Dialect, Machine, New, Places, Shell, Update, never};
use crate::backend::{Error, ErrorKind, Result, Stop};
use crate::model::{Capability, GuestPath, Status};

/// How long a making may take, with an image that has to be fetched.
const MAKE: Duration = Duration::from_secs(20 * 60);
/// How long anything else may. Shutting down may take five minutes itself.
const ACT: Duration = Duration::from_secs(10 * 60);

/// The way of 26.
#[derive(Debug)]
pub(super) struct Container {
    client: Arc<Client>,
    places: Places,
    preferred: OnceCell<Option<String>>,
    card: OnceCell<Option<Card>>,
}

#[derive(Debug, Deserialize)]
struct Config {
    preferred_pool: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Entry {
    id: i64,
    name: String,
    status: State,
    #[serde(default)]
    initenv: BTreeMap<String, String>,
    dataset: String,
    #[serde(default)]
    devices: Vec<Device>,
}

#[derive(Debug, Deserialize)]
struct State {
    #[serde(default)]
    state: String,
}

#[derive(Debug, Deserialize)]
struct Device {
    #[serde(default)]
    attributes: Attributes,
}

#[derive(Debug, Default, Deserialize)]
struct Attributes {
    #[serde(default)]
    dtype: String,
    target: Option<String>,
}

impl Entry {
    fn machine(self) -> Machine {
        let of = |kind: &'static str| {
            let devices = self.devices.iter().map(|device| &device.attributes);
            devices.filter(move |attributes| attributes.dtype == kind)
        };
        let mounted = of("FILESYSTEM").filter_map(|attributes| attributes.target.as_deref());
        Machine {
            id: json!(self.id),
            status: match self.status.state.as_str() {
                "RUNNING" => Status::Running,
                "STOPPED" => Status::Stopped,
                "SUSPENDED" => Status::Frozen,
                _ => Status::Other,
            },
            carried: Carried::read(&self.initenv),
            addresses: Vec::new(),
            cpu: None,
            memory: None,
            image: None,
            mounted: mounted
                .map(|path| GuestPath::observed(format!("/{}", path.trim_matches('/'))))
                .filter(|path| *path != GuestPath::root())
                .collect(),
            has_card: of("NIC").next().is_some(),
            dataset: self.dataset,
            name: self.name,
        }
    }
}

impl Container {
    pub(super) fn new(client: Arc<Client>, places: Places) -> Self {
        Self {
            client,
            places,
            preferred: OnceCell::new(),
            card: OnceCell::new(),
        }
    }

    async fn card(&self) -> Result<&Option<Card>> {
        let card = self.card.get_or_try_init(|| nic::card(&self.client, &self.places));
        card.await
    }

    async fn products(&self) -> Result<Vec<Product>> {
        let products = self.client.read("container.image.query_registry", json!([]));
        products.await.map_err(|error| error.within("cannot list the images"))
    }

    /// The settings that a new container has, however its disk is made.
    fn settings(&self, new: &New<'_>) -> Result<Map<String, Value>> {
        if new.cpu.is_some() || new.memory.is_some() {
            return Err(Error::unsupported(
                "TrueNAS 26 bounds neither CPUs nor memory of a container",
            ));
        }
        Ok(Map::from_iter([
            ("name".to_owned(), json!(new.name)),
            ("initenv".to_owned(), json!(new.variables)),
            ("autostart".to_owned(), json!(false)),
        ]))
    }
}

#[async_trait]
impl Dialect for Container {
    fn unable(&self) -> Vec<(Capability, String)> {
        let mut unable = never();
        unable.push((
            Capability::CpuLimit,
            "TrueNAS 26 bounds no container's CPUs; it only pins them".to_owned(),
        ));
        unable.push((
            Capability::MemoryLimit,
            "TrueNAS 26 bounds no container's memory".to_owned(),
        ));
        unable
    }

    fn snapshots(&self) -> &'static str {
        "pool.snapshot"
    }

    fn list_snapshots(&self, datasets: &[&str]) -> (String, Value) {
        // `pool.snapshot.query` of this version tells no user properties.
        let query = json!({
            "paths": datasets,
            "properties": ["creation", "used"],
            "get_user_properties": true,
        });
        ("zfs.resource.snapshot.query".to_owned(), json!([query]))
    }

    fn rename_snapshot(&self, from: &str, to: &str) -> Option<(&'static str, Value)> {
        // `pool.snapshot.rename` is there, and refuses every snapshot (26.0.0-BETA.3): it passes them on to the method
        // that renames datasets.
        let query = json!({ "current_name": from, "new_name": to });
        Some(("zfs.resource.snapshot.rename", json!([query])))
    }

    fn jobs(&self) -> &'static [&'static str] {
        &["container.create", "container.stop"]
    }

    async fn pool(&self) -> Result<String> {
        if let Some(pool) = &self.places.pool {
            return Ok(pool.clone());
        }
        let preferred = self.preferred.get_or_try_init(|| async {
            let config: Config = self.client.read("lxc.config", json!([])).await?;
            Ok::<_, Error>(config.preferred_pool)
        });
        preferred.await?.clone().ok_or_else(|| {
            Error::new(ErrorKind::Failed, "the system prefers no pool for containers")
                .with_hint("choose one in the web interface, under Containers, or name one with the setting `pool`")
        })
    }

    async fn network(&self) -> Result<String> {
        Ok(nic::told(self.card().await?))
    }

    async fn machines(&self) -> Result<Vec<Machine>> {
        let entries: Vec<Entry> = self
            .client
            .read("container.query", json!([]))
            .await
            .map_err(|error| error.within("cannot list the containers"))?;
        let mut machines: Vec<Machine> = entries.into_iter().map(Entry::machine).collect();
        machines.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(machines)
    }

    async fn machine(&self, name: &str) -> Result<Machine> {
        let entries: Vec<Entry> = self
            .client
            .read("container.query", json!([[["name", "=", name]]]))
            .await?;
        let found = entries.into_iter().next();
        found
            .map(Entry::machine)
            .ok_or_else(|| Error::not_found(format!("there is no container `{name}`")))
    }

    async fn mounted(&self, machine: &Machine) -> Result<BTreeSet<GuestPath>> {
        Ok(machine.mounted.clone())
    }

    async fn find_image(&self, image: &str) -> Result<()> {
        match image::find(&self.products().await?, image) {
            Some(_) => Ok(()),
            None => Err(no_image(image)),
        }
    }

    async fn create(&self, new: &New<'_>) -> Result<()> {
        let mut settings = self.settings(new)?;
        let products = self.products().await?;
        let (name, version) = image::find(&products, new.image).ok_or_else(|| no_image(new.image))?;
        settings.insert("image".to_owned(), json!({ "name": name, "version": version }));
        settings.insert("pool".to_owned(), json!(self.pool().await?));
        self.client
            .job("container.create", json!([settings]), MAKE)
            .await
            .map(drop)
    }

    async fn create_from(&self, source: &Machine, snapshot: &str, new: &New<'_>) -> Result<()> {
        let mut settings = self.settings(new)?;
        // Asked first, so that a name that is taken leaves nothing behind.
        match self.machine(new.name).await {
            Ok(_) => {
                return Err(Error::new(
                    ErrorKind::AlreadyExists,
                    format!("there is a container `{}`", new.name),
                ));
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let (folder, _) = source.dataset.rsplit_once('/').unwrap_or((&source.dataset, ""));
        let dataset = format!("{folder}/{}", new.name);
        let clone = json!([{ "snapshot": snapshot, "dataset_dst": dataset }]);
        self.client.change("pool.snapshot.clone", clone).await?;
        settings.insert("dataset".to_owned(), json!(dataset));
        let made = self
            .client
            .change("container.create_with_dataset", json!([settings]))
            .await;
        let Err(error) = made else { return Ok(()) };
        if error.kind() != ErrorKind::Unreachable {
            // A disk that nobody has would stand in the way of the next try.
            let gone = json!([dataset, { "recursive": false, "force": false }]);
            if let Err(error) = self.client.change("pool.dataset.delete", gone).await {
                tracing::warn!(dataset, %error, "cannot delete what is left of a clone that failed");
            }
        }
        Err(error)
    }

    async fn update(&self, machine: &Machine, update: Update) -> Result<()> {
        let limits = [update.cpu.flatten().map(u64::from), update.memory.flatten()];
        if limits.iter().any(Option::is_some) {
            return Err(Error::unsupported(
                "TrueNAS 26 bounds neither CPUs nor memory of a container",
            ));
        }
        let Some(variables) = update.variables else {
            return Ok(());
        };
        let params = json!([machine.id, { "initenv": variables }]);
        self.client.change("container.update", params).await.map(drop)
    }

    async fn start(&self, machine: &Machine) -> Result<()> {
        if !machine.has_card {
            // The making cannot say it, and a card that is missing is put in before anything runs.
            if let Some(card) = self.card().await? {
                let attributes = json!({ "dtype": "NIC", "type": "VIRTIO", "nic_attach": card.parent });
                let params = json!([{ "container": machine.id, "attributes": attributes }]);
                self.client.change("container.device.create", params).await?;
            }
        }
        self.client
            .change("container.start", json!([machine.id]))
            .await
            .map(drop)
    }

    async fn stop(&self, machine: &Machine, how: Stop) -> Result<()> {
        let options = match how {
            Stop::Clean(patience) => {
                // What it may take is a setting of the container.
                let seconds = patience.as_secs().clamp(5, 300);
                let params = json!([machine.id, { "shutdown_timeout": seconds }]);
                self.client.change("container.update", params).await?;
                json!({ "force": false, "force_after_timeout": true })
            }
            Stop::Force => json!({ "force": true, "force_after_timeout": false }),
        };
        self.client
            .job("container.stop", json!([machine.id, options]), ACT)
            .await
            .map(drop)
    }

    async fn delete(&self, machine: &Machine) -> Result<()> {
        self.client
            .change("container.delete", json!([machine.id]))
            .await
            .map(drop)
    }

    fn snapshots_go_first(&self) -> bool {
        true
    }

    fn tells_failed_deletions(&self) -> bool {
        // It does not look at what ZFS says (26.0.0-BETA.3).
        false
    }

    async fn folder_of_disks(&self) -> Result<Option<String>> {
        Ok(Some(format!("{}/.truenas_containers/containers", self.pool().await?)))
    }

    fn tells_addresses(&self) -> bool {
        false
    }

    async fn root(&self, machine: &Machine) -> Result<String> {
        let wrong = || {
            Error::new(
                ErrorKind::Failed,
                format!("`{}` is no container's dataset", machine.dataset),
            )
        };
        let (pool, rest) = machine.dataset.split_once('/').ok_or_else(wrong)?;
        let name = rest.strip_prefix(".truenas_containers/containers/").ok_or_else(wrong)?;
        Ok(format!("/mnt/.truenas_containers/{pool}/containers/{name}"))
    }

    fn shell(&self, machine: &Machine, script: &str) -> Shell {
        Shell {
            options: json!({ "container_id": machine.id, "command": script }),
            typed: None,
        }
    }
}

fn no_image(image: &str) -> Error {
    Error::not_found(format!("the registry has no image `{image}`")).with_hint(
        "name it as the registry does, `debian:bookworm:amd64:default`, or in short, `debian/12`; the web interface lists \
         them where a container is made",
    )
}
