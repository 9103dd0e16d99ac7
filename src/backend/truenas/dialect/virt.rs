//! 25.04 and 25.10: containers by `virt.*`, which is Incus behind a narrow door.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::OnceCell;

use super::nic::{self, Card};
use super::{Carried, Client, Dialect, Machine, New, Places, Shell, Update, never};
use crate::backend::{Error, ErrorKind, Result, Stop};
use crate::model::{Bounds, Capability, GuestPath, Status};

/// How long a making may take, with an image that has to be fetched: the system gives it 15 minutes itself.
const MAKE: Duration = Duration::from_secs(20 * 60);
/// How long anything else may.
const ACT: Duration = Duration::from_secs(5 * 60);

/// The least that a bound on memory may be (API, `memory`).
const LEAST_MEMORY: u64 = 32 << 20;
/// What memory is counted in.
const UNIT: u64 = 1 << 20;

/// The way of 25.04 and 25.10.
#[derive(Debug)]
pub(super) struct Virt {
    client: Arc<Client>,
    places: Places,
    minor: u32,
    global: OnceCell<Global>,
    card: OnceCell<Option<Card>>,
}

#[derive(Debug, Deserialize)]
struct Global {
    pool: Option<String>,
    state: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Entry {
    id: String,
    #[serde(default)]
    status: String,
    cpu: Option<String>,
    memory: Option<u64>,
    #[serde(default)]
    environment: BTreeMap<String, String>,
    #[serde(default)]
    aliases: Vec<Alias>,
    #[serde(default)]
    image: Image,
    storage_pool: Option<String>,
    #[serde(default)]
    raw: Value,
}

#[derive(Debug, Deserialize)]
struct Alias {
    address: String,
}

#[derive(Debug, Default, Deserialize)]
struct Image {
    os: Option<String>,
    release: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Device {
    dev_type: String,
    destination: Option<String>,
}

impl Virt {
    pub(super) fn new(client: Arc<Client>, places: Places, minor: u32) -> Self {
        Self {
            client,
            places,
            minor,
            global: OnceCell::new(),
            card: OnceCell::new(),
        }
    }

    async fn global(&self) -> Result<&Global> {
        let global = self.global.get_or_try_init(|| async {
            let global: Global = self.client.read("virt.global.config", json!([])).await?;
            match global.state.as_deref() {
                Some("INITIALIZED") => Ok(global),
                Some("LOCKED") => Err(
                    Error::new(ErrorKind::Failed, "the pool of the system's containers is locked")
                        .with_hint("unlock it in the web interface, under Datasets"),
                ),
                state => Err(Error::new(
                    ErrorKind::Failed,
                    format!(
                        "the system's containers are not set up (state {})",
                        state.unwrap_or("unknown")
                    ),
                )
                .with_hint("choose a pool for them in the web interface, under Containers")),
            }
        });
        global.await
    }

    async fn card(&self) -> Result<&Option<Card>> {
        let card = self.card.get_or_try_init(|| nic::card(&self.client, &self.places));
        card.await
    }

    async fn dataset(&self, name: &str, pool: Option<&str>) -> Result<String> {
        let pool = match pool {
            Some(pool) => pool.to_owned(),
            None => self.pool().await?,
        };
        Ok(format!("{pool}/.ix-virt/containers/{name}"))
    }

    async fn machine_of(&self, entry: Entry) -> Result<Machine> {
        let dataset = self.dataset(&entry.id, entry.storage_pool.as_deref()).await?;
        let image = entry.image.os.zip(entry.image.release);
        Ok(Machine {
            id: json!(entry.id),
            status: status(&entry.status),
            carried: Carried::read(&entry.environment),
            addresses: entry
                .aliases
                .iter()
                .filter_map(|alias| alias.address.parse().ok())
                .collect(),
            cpu: entry.cpu,
            memory: entry.memory,
            image: image.map(|(os, release)| format!("{}/{release}", os.to_lowercase())),
            dataset,
            mounted: BTreeSet::new(),
            has_card: true,
            name: entry.id,
        })
    }

    /// The settings of a new instance. Only what all patch versions take: each refuses what it does not know.
    async fn settings(&self, new: &New<'_>, image: &str) -> Result<Value> {
        let card = self.card().await?;
        let devices = card.as_ref().map(|card| {
            json!([{
                "dev_type": "NIC",
                "nic_type": if card.bridged { "BRIDGED" } else { "MACVLAN" },
                "parent": card.parent,
            }])
        });
        let mut settings = Map::from_iter([
            ("name".to_owned(), json!(new.name)),
            ("image".to_owned(), json!(image)),
            ("instance_type".to_owned(), json!("CONTAINER")),
            ("environment".to_owned(), json!(new.variables)),
            // What it says is also whether it starts at once.
            ("autostart".to_owned(), json!(false)),
        ]);
        settings.extend(devices.map(|devices| ("devices".to_owned(), devices)));
        settings.extend(
            self.places
                .pool
                .clone()
                .map(|pool| ("storage_pool".to_owned(), json!(pool))),
        );
        settings.extend(new.cpu.map(|cpu| ("cpu".to_owned(), json!(cpu.to_string()))));
        settings.extend(memory(new.memory)?.map(|memory| ("memory".to_owned(), json!(memory))));
        Ok(Value::Object(settings))
    }

    async fn act(&self, method: &str, params: Value) -> Result<()> {
        self.client.job(method, params, ACT).await.map(drop)
    }
}

/// A bound that the system keeps as it is: it counts in whole mebibytes.
fn memory(bytes: Option<u64>) -> Result<Option<u64>> {
    match bytes {
        Some(bytes) if bytes < LEAST_MEMORY || !bytes.is_multiple_of(UNIT) => Err(Error::new(
            ErrorKind::Invalid,
            "TrueNAS bounds memory in whole MiB, of which it wants 32 at least",
        )),
        bytes => Ok(bytes),
    }
}

fn status(word: &str) -> Status {
    match word {
        "RUNNING" | "READY" | "THAWED" => Status::Running,
        "STOPPED" => Status::Stopped,
        "FROZEN" => Status::Frozen,
        _ => Status::Other,
    }
}

#[async_trait]
impl Dialect for Virt {
    fn unable(&self) -> Vec<(Capability, String)> {
        never()
    }

    fn bounds(&self) -> Bounds {
        Bounds {
            memory_unit: UNIT,
            memory_least: LEAST_MEMORY,
            restore_deletes_newer: true,
            // Only 25.10 can rename one, which sets it aside.
            keeps_cloned_snapshots: self.minor == 4,
        }
    }

    fn snapshots(&self) -> &'static str {
        match self.minor {
            4 => "zfs.snapshot",
            _ => "pool.snapshot",
        }
    }

    fn list_snapshots(&self, datasets: &[&str]) -> (String, Value) {
        let filter = match datasets {
            [one] => json!([["dataset", "=", one]]),
            more => json!([["dataset", "in", more]]),
        };
        // All properties come by themselves.
        (format!("{}.query", self.snapshots()), json!([filter]))
    }

    fn rename_snapshot(&self, from: &str, to: &str) -> Option<(&'static str, Value)> {
        match self.minor {
            4 => None,
            _ => Some(("pool.snapshot.rename", json!([from, { "new_name": to, "force": true }]))),
        }
    }

    fn jobs(&self) -> &'static [&'static str] {
        &[
            "virt.instance.create",
            "virt.instance.update",
            "virt.instance.delete",
            "virt.instance.start",
            "virt.instance.stop",
            "virt.instance.restart",
        ]
    }

    async fn pool(&self) -> Result<String> {
        if let Some(pool) = &self.places.pool {
            return Ok(pool.clone());
        }
        self.global().await?.pool.clone().ok_or_else(|| {
            Error::new(ErrorKind::Failed, "the system has no pool for containers")
                .with_hint("choose one in the web interface, under Containers, or name one with the setting `pool`")
        })
    }

    async fn network(&self) -> Result<String> {
        Ok(nic::told(self.card().await?))
    }

    async fn machines(&self) -> Result<Vec<Machine>> {
        // Where they are not set up, a listing would be empty, and everything of ours look gone.
        self.global().await?;
        let entries: Vec<Entry> = self
            .client
            .read("virt.instance.query", json!([]))
            .await
            .map_err(|error| error.within("cannot list the instances"))?;
        let mut machines = Vec::new();
        for entry in entries {
            machines.push(self.machine_of(entry).await?);
        }
        machines.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(machines)
    }

    async fn machine(&self, name: &str) -> Result<Machine> {
        self.global().await?;
        let entry: Entry = self.client.read("virt.instance.get_instance", json!([name])).await?;
        self.machine_of(entry).await
    }

    async fn mounted(&self, machine: &Machine) -> Result<BTreeSet<GuestPath>> {
        let devices: Vec<Device> = self
            .client
            .read("virt.instance.device_list", json!([machine.id]))
            .await?;
        let disks = devices.into_iter().filter(|device| device.dev_type == "DISK");
        let paths = disks.filter_map(|disk| disk.destination);
        Ok(paths
            .map(|path| GuestPath::observed(format!("/{}", path.trim_matches('/'))))
            .filter(|path| *path != GuestPath::root())
            .collect())
    }

    async fn find_image(&self, _image: &str) -> Result<()> {
        // The choices are fetched from the image server, and images that the system has are not among them.
        Ok(())
    }

    async fn create(&self, new: &New<'_>) -> Result<()> {
        self.global().await?;
        let settings = self.settings(new, new.image).await?;
        self.client
            .job("virt.instance.create", json!([settings]), MAKE)
            .await
            .map(drop)
    }

    /// An instance of its own is made, and its disk replaced by a clone before it has ever started: nothing of the first
    /// disk is left, and no command runs on the system for it.
    async fn create_from(&self, source: &Machine, snapshot: &str, new: &New<'_>) -> Result<()> {
        self.create(&New {
            variables: new.unfinished.clone(),
            unfinished: BTreeMap::new(),
            ..*new
        })
        .await?;
        let result = async {
            let target = self.machine(new.name).await?;
            let (from, to) = (pool_of(&source.dataset), pool_of(&target.dataset));
            if from != to {
                return Err(Error::unsupported(format!(
                    "`{}` is in the pool `{from}`, and a clone of it cannot be in `{to}`",
                    source.name
                )));
            }
            let params = json!([target.dataset, { "recursive": true }]);
            self.client.change("zfs.dataset.delete", params).await?;
            // It inherits that Incus alone mounts it.
            let clone = json!([{ "snapshot": snapshot, "dataset_dst": target.dataset }]);
            let method = format!("{}.clone", self.snapshots());
            self.client.change(&method, clone).await?;
            let update = Update {
                variables: Some(new.variables.clone()),
                ..Update::default()
            };
            self.update(&target, update).await
        };
        let Err(error) = result.await else { return Ok(()) };
        // Half of one would look like a whole one.
        if let Err(error) = self.act("virt.instance.delete", json!([new.name])).await {
            tracing::warn!(instance = new.name, %error, "cannot delete what is left of a clone that failed");
        }
        Err(error)
    }

    async fn update(&self, machine: &Machine, update: Update) -> Result<()> {
        let mut settings = Map::new();
        if let Some(variables) = &update.variables {
            settings.insert("environment".to_owned(), json!(variables));
        }
        if let Some(cpu) = update.cpu {
            settings.insert("cpu".to_owned(), json!(cpu.map(|cpu| cpu.to_string())));
        }
        if let Some(bytes) = update.memory {
            settings.insert("memory".to_owned(), json!(memory(bytes)?));
        }
        self.act("virt.instance.update", json!([machine.id, settings])).await
    }

    async fn start(&self, machine: &Machine) -> Result<()> {
        self.act("virt.instance.start", json!([machine.id])).await
    }

    async fn stop(&self, machine: &Machine, how: Stop) -> Result<()> {
        let options = match how {
            Stop::Clean(patience) => json!({ "timeout": patience.as_secs().max(1), "force": false }),
            Stop::Force => json!({ "timeout": -1, "force": true }),
        };
        self.act("virt.instance.stop", json!([machine.id, options])).await
    }

    async fn delete(&self, machine: &Machine) -> Result<()> {
        self.act("virt.instance.delete", json!([machine.id])).await
    }

    fn snapshots_go_first(&self) -> bool {
        false
    }

    fn tells_addresses(&self) -> bool {
        true
    }

    async fn root(&self, machine: &Machine) -> Result<String> {
        // Incus may call its pool otherwise than ZFS does; only what it says itself tells.
        let extra = json!({ "extra": { "raw": true } });
        let entry: Entry = self
            .client
            .read("virt.instance.get_instance", json!([machine.id, extra]))
            .await?;
        let devices =
            ["expanded_devices", "devices"].map(|devices| entry.raw.pointer(&format!("/{devices}/root/pool")));
        let pool = devices.into_iter().flatten().find_map(Value::as_str);
        let pool = pool.unwrap_or_else(|| pool_of(&machine.dataset));
        Ok(format!(
            "/var/lib/incus/storage-pools/{pool}/containers/{}/rootfs",
            machine.name
        ))
    }

    fn shell(&self, machine: &Machine, script: &str) -> Shell {
        Shell {
            options: json!({ "virt_instance_id": machine.id, "command": "/bin/sh" }),
            typed: Some(script.to_owned()),
        }
    }
}

fn pool_of(dataset: &str) -> &str {
    dataset.split('/').next().unwrap_or_default()
}
