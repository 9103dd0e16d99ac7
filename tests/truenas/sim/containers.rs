//! Containers: what the product asks of its own Incus, asked of the daemon of the tests.

use std::path::PathBuf;

use reqwest::Method;
use serde_json::{Map, Value, json};

use super::Dialect;
use super::daemon;
use super::disks;
use super::failure::Failure;
use super::hostfiles;
use super::server::Server;
use super::tree::{Dataset, POOLS, Tree};

/// Where the pool that a container is said to be in is kept: the daemon has one pool only.
const POOL: &str = "user.sim.pool";
/// And the image that it is said to be made from.
const IMAGE: &str = "user.sim.image";

/// What the image server offers, with and without the ending of its variant.
const IMAGES: [(&str, &str); 8] = [
    ("alpine", "3.20"),
    ("alpine", "3.21"),
    ("alpine", "edge"),
    ("debian", "bookworm"),
    ("debian", "12"),
    ("debian", "13"),
    ("ubuntu", "noble"),
    ("ubuntu", "24.04"),
];

/// A container to make.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    pub(super) name: &'a str,
    pub(super) image: &'a str,
    pub(super) pool: &'a str,
    /// Settings of the daemon.
    pub(super) config: Map<String, Value>,
    /// The name of a network device of its own.
    pub(super) nic: Option<&'a str>,
}

fn failed(error: String) -> Failure {
    Failure::fault(error)
}

/// Whether the image server has an image, by `os/release` with or without `/default`.
pub(super) fn offered(image: &str) -> Option<(&'static str, &'static str)> {
    let short = image.strip_suffix("/default").unwrap_or(image);
    let (os, release) = short.split_once('/')?;
    IMAGES.into_iter().find(|offered| *offered == (os, release))
}

/// Every container as the daemon has it, state along.
pub(super) async fn all(server: &Server) -> Result<Vec<Value>, Failure> {
    let answer = server
        .daemon
        .call(Method::GET, "/instances?recursion=2", None)
        .await
        .map_err(failed)?;
    Ok(answer.as_array().cloned().unwrap_or_default())
}

/// Makes a container that does not run.
pub(super) async fn create(server: &Server, wanted: &Wanted<'_>) -> Result<(), Failure> {
    if offered(wanted.image).is_none() {
        let text = "Failed getting remote image info: Failed getting image: The requested image couldn't be found";
        return Err(failed(text.to_owned()));
    }
    let mut config = wanted.config.clone();
    config.insert(POOL.to_owned(), json!(wanted.pool));
    config.insert(IMAGE.to_owned(), json!(wanted.image));
    let nic = wanted.nic.unwrap_or("eth0");
    let body = json!({
        "name": wanted.name,
        "type": "container",
        "profiles": [],
        "config": config,
        "devices": {
            "root": { "type": "disk", "path": "/", "pool": "default" },
            nic: { "type": "nic", "name": nic, "network": server.daemon.network() },
        },
        "source": { "type": "image", "alias": daemon::IMAGE },
    });
    server
        .daemon
        .call(Method::POST, "/instances", Some(body))
        .await
        .map_err(failed)?;
    if server.knobs().no_server {
        take_server_away(server, wanted.name).map_err(|error| failed(error.to_string()))?;
    }
    server
        .tree()
        .await
        .container_made(wanted.pool, wanted.name, server.daemon.disk(wanted.name));
    Ok(())
}

/// Leaves the SSH server out of what a container starts, until its `apt-get` is asked to install one.
fn take_server_away(server: &Server, name: &str) -> std::io::Result<()> {
    let root = server.daemon.disk(name).unwrap_or_default().join("rootfs");
    let table = root.join("etc/inittab");
    let (line, rest): (Vec<String>, Vec<String>) = std::fs::read_to_string(&table)?
        .lines()
        .map(|line| format!("{line}\n"))
        .partition(|line| line.contains("sshd"));
    std::fs::write(&table, rest.concat())?;
    std::fs::write(root.join("etc/inittab.server"), line.concat())?;
    let installer = root.join("usr/bin/apt-get");
    std::fs::write(
        &installer,
        "#!/bin/sh\n[ \"$*\" != 'install -y openssh-server' ] || { cat /etc/inittab.server >>/etc/inittab; kill -HUP 1; }\n",
    )?;
    std::fs::set_permissions(&installer, std::os::unix::fs::PermissionsExt::from_mode(0o755))
}

async fn change_state(server: &Server, name: &str, action: &str, timeout: i64, force: bool) -> Result<(), String> {
    let body = json!({ "action": action, "timeout": timeout, "force": force });
    let path = format!("/instances/{name}/state");
    server.daemon.call(Method::PUT, &path, Some(body)).await.map(drop)
}

/// The container whose disk a dataset is.
pub(super) async fn of_dataset(server: &Server, dataset: &str) -> Option<String> {
    let tree = server.tree().await;
    let place = tree
        .datasets
        .get(dataset)?
        .disk
        .as_deref()?
        .file_name()?
        .to_str()?
        .to_owned();
    Some(
        place
            .strip_prefix(server.daemon.project())?
            .strip_prefix('_')?
            .to_owned(),
    )
}

/// The name of a container of 26 that a number stands for.
pub(super) fn name_of(server: &Server, id: i64) -> Option<String> {
    server.rows().get(&id).map(|row| row.name.clone())
}

/// Whether a container runs; one that is not there does not.
pub(super) async fn runs(server: &Server, name: &str) -> Result<bool, Failure> {
    let all = all(server).await?;
    Ok(all
        .iter()
        .any(|instance| instance["name"] == name && instance["status"] == "Running"))
}

/// Where the disk of a clone comes to lie: where the daemon looks for it, when it is to be a container's.
pub(super) fn place_of_clone(server: &Server, tree: &Tree, dataset: &str) -> Option<PathBuf> {
    let name = dataset.rsplit('/').next().unwrap_or_default();
    let container = POOLS.iter().any(|pool| tree.of_container(pool, name) == dataset);
    match (server.dialect, container) {
        (Dialect::V25_04 | Dialect::V25_10, true) => server.daemon.disk(name),
        // A container is made around it later.
        _ => Some(
            server
                .daemon
                .snapshots()?
                .join(format!("clone-{}", server.next_number())),
        ),
    }
}

/// Starts a container. One that runs already is an error, as it is to Incus.
pub(super) async fn start(server: &Server, name: &str) -> Result<(), Failure> {
    let place = server.daemon.disk(name);
    if !server
        .tree()
        .await
        .datasets
        .values()
        .any(|dataset| dataset.disk == place)
    {
        let text = "Failed to start instance: Failed to mount: dataset does not exist. Please check job logs.";
        return Err(failed(text.to_owned()));
    }
    let started = change_state(server, name, "start", -1, false).await;
    started.map_err(|error| failed(format!("Failed to start instance: {error}. Please check job logs.")))
}

/// Ends a container and starts it again.
pub(super) async fn restart(server: &Server, name: &str) -> Result<(), String> {
    change_state(server, name, "restart", -1, true).await
}

/// The address of this machine in the containers' network.
pub(super) async fn gateway(server: &Server) -> Option<std::net::Ipv4Addr> {
    let path = format!("/networks/{}", server.daemon.network());
    let network = server.daemon.call(Method::GET, &path, None).await.ok()?;
    let range = network["config"]["ipv4.address"].as_str()?;
    range.split_once('/')?.0.parse().ok()
}

/// Stops a container. One that does not run is an error, as it is to Incus.
pub(super) async fn stop(server: &Server, name: &str, timeout: i64, force: bool) -> Result<(), Failure> {
    change_state(server, name, "stop", timeout, force).await.map_err(failed)
}

/// Deletes a container, which is stopped first.
pub(super) async fn delete(server: &Server, name: &str) -> Result<(), Failure> {
    // Nobody minds when it was stopped already.
    let _ = change_state(server, name, "stop", -1, true).await;
    server
        .daemon
        .call(Method::DELETE, &format!("/instances/{name}"), None)
        .await
        .map_err(failed)?;
    let deleted = server.tree().await.container_deleted(name).await;
    deleted.map_err(|refused| failed(format!("{refused:?}")))
}

/// Gives a container that was just made the disk of a dataset that was there before.
pub(super) async fn adopt_disk(server: &Server, name: &str, dataset: &str, held: Dataset) -> Result<(), Failure> {
    let place = server
        .daemon
        .disk(name)
        .ok_or_else(|| failed("no daemon for the tests".to_owned()))?;
    if let Some(disk) = &held.disk {
        disks::remove(&place).await.map_err(failed)?;
        disks::copy(disk, &place).await.map_err(failed)?;
        disks::remove(disk).await.map_err(failed)?;
    }
    let held = Dataset {
        disk: Some(place),
        ..held
    };
    server.tree().await.datasets.insert(dataset.to_owned(), held);
    Ok(())
}

/// Deletes a container as 26 does: its dataset goes only when it has no snapshots, and nobody says so.
pub(super) async fn delete_and_leave(server: &Server, name: &str, dataset: &str) -> Result<(), Failure> {
    let mut tree = server.tree().await;
    if let Some(folder) = server.daemon.snapshots() {
        let aside = folder.join(format!("left-{}", server.next_number()));
        let there = tree.datasets.get(dataset).and_then(|dataset| dataset.disk.clone());
        if let Some(disk) = there.filter(|disk| disk.exists()) {
            disks::copy(&disk, &aside).await.map_err(failed)?;
            tree.datasets
                .entry(dataset.to_owned())
                .and_modify(|dataset| dataset.disk = Some(aside));
        }
    }
    server
        .daemon
        .call(Method::DELETE, &format!("/instances/{name}"), None)
        .await
        .map_err(failed)?;
    // What ZFS says is not looked at.
    if !server.stays(dataset) {
        let _ = tree.destroy(dataset, false).await;
    }
    Ok(())
}

/// Writes a container's name into it, as 26 does before each start.
pub(super) fn name_host(server: &Server, name: &str) -> Result<(), Failure> {
    let root = server
        .daemon
        .disk(name)
        .ok_or_else(|| failed("no daemon for the tests".to_owned()))?
        .join("rootfs");
    // A guest may have made its folder a link, and the product follows it; this is a machine that runs tests.
    if !root.join("etc").symlink_metadata().is_ok_and(|etc| etc.is_dir()) {
        return Ok(());
    }
    let hosts = std::fs::read_to_string(root.join("etc/hosts")).unwrap_or_default();
    let others = hosts
        .lines()
        .filter(|line| line.split_whitespace().next() != Some("127.0.1.1"));
    let lines: Vec<_> = others
        .map(str::to_owned)
        .chain([format!("127.0.1.1\t{name}")])
        .collect();
    for (file, text) in [("hostname", format!("{name}\n")), ("hosts", lines.join("\n") + "\n")] {
        // Written beside it and put in its place, so that a link there is replaced and not followed. What fails is
        // only logged.
        let beside = root.join(format!("etc/.{file}.new"));
        let _ = std::fs::write(&beside, text).and_then(|()| std::fs::rename(&beside, root.join("etc").join(file)));
    }
    Ok(())
}

/// Changes what a container of 26 is given, all of it.
pub(super) async fn replace_settings(server: &Server, name: &str, new: Map<String, Value>) -> Result<(), Failure> {
    let path = format!("/instances/{name}");
    let mut instance = server.daemon.call(Method::GET, &path, None).await.map_err(failed)?;
    let config = instance["config"].as_object_mut().expect("an instance has settings");
    config.retain(|key, _| !key.starts_with("environment.") && key != "limits.cpu");
    config.extend(new);
    server
        .daemon
        .call(Method::PUT, &path, Some(instance))
        .await
        .map_err(failed)?;
    Ok(())
}

/// The daemon's settings for what `virt.instance.create` and `update` are given.
pub(super) fn virt_config(data: &Value) -> Map<String, Value> {
    let mut config = Map::new();
    for (key, value) in data["environment"].as_object().into_iter().flatten() {
        config.insert(format!("environment.{key}"), value.clone());
    }
    if let Some(cpu) = data["cpu"].as_str() {
        config.insert("limits.cpu".to_owned(), json!(cpu));
    }
    if let Some(memory) = data["memory"].as_u64() {
        config.insert("limits.memory".to_owned(), json!(format!("{}MiB", memory >> 20)));
    }
    config.insert("boot.autostart".to_owned(), json!("false"));
    if let Some(autostart) = data["autostart"].as_bool() {
        config.insert("user.autostart".to_owned(), json!(autostart.to_string()));
    }
    config
}

/// Changes what `virt.instance.update` is given, and leaves the rest.
pub(super) async fn virt_update(server: &Server, name: &str, data: &Value) -> Result<(), Failure> {
    let path = format!("/instances/{name}");
    let mut instance = server.daemon.call(Method::GET, &path, None).await.map_err(failed)?;
    let config = instance["config"].as_object_mut().expect("an instance has settings");
    if data.get("environment").is_some() {
        config.retain(|key, _| !key.starts_with("environment."));
    }
    for (field, key) in [("cpu", "limits.cpu"), ("memory", "limits.memory")] {
        if data.get(field).is_some() {
            config.shift_remove(key);
        }
    }
    config.extend(virt_config(data));
    server
        .daemon
        .call(Method::PUT, &path, Some(instance))
        .await
        .map_err(failed)?;
    Ok(())
}

/// Every container as `virt.instance.query` tells it, with what Incus says of it where that is wanted.
pub(super) async fn virt_entries(server: &Server, extra: &Value) -> Result<Vec<Value>, Failure> {
    let (told, legacy) = {
        let knobs = server.knobs();
        (knobs.addresses, knobs.legacy_pool)
    };
    let all = all(server).await?;
    let entries = all.iter().map(|instance| {
        let mut entry = virt_entry(server.dialect, instance, told);
        if extra["raw"] == true {
            entry["raw"] = raw(instance, legacy);
        }
        entry
    });
    Ok(entries.collect())
}

/// What Incus on an appliance would say of a container: in a pool of the appliance's, and without what is ours.
fn raw(instance: &Value, legacy: bool) -> Value {
    let mut raw = instance.clone();
    let pool = raw["config"][POOL].as_str().unwrap_or(POOLS[0]);
    let pool = json!(hostfiles::pool_of_incus(pool, legacy));
    for devices in ["devices", "expanded_devices"] {
        if raw[devices]["root"].is_object() {
            raw[devices]["root"]["pool"] = pool.clone();
        }
    }
    for config in ["config", "expanded_config"] {
        // One that is being made or deleted has none for a moment.
        if let Some(config) = raw[config].as_object_mut() {
            config.retain(|key, _| key != POOL && key != IMAGE);
        }
    }
    raw["project"] = json!("default");
    raw
}

fn bytes(text: &str) -> Option<u64> {
    text.strip_suffix("MiB")?.parse::<u64>().ok().map(|number| number << 20)
}

fn virt_entry(dialect: Dialect, instance: &Value, told: bool) -> Value {
    let config = &instance["config"];
    let environment = config.as_object().into_iter().flatten().filter_map(|(key, value)| {
        let key = key.strip_prefix("environment.")?;
        Some((key.to_owned(), value.clone()))
    });
    let status = match instance["state"]["status"].as_str() {
        Some(status) => status.to_uppercase(),
        None => "UNKNOWN".to_owned(),
    };
    let image = config[IMAGE].as_str().unwrap_or_default();
    let (os, release) = offered(image).unwrap_or(("unknown", "0"));
    let mut entry = json!({
        "id": instance["name"],
        "name": instance["name"],
        "type": "CONTAINER",
        "status": status,
        "cpu": config["limits.cpu"],
        "memory": config["limits.memory"].as_str().and_then(bytes),
        "autostart": config["user.autostart"] == "true",
        "environment": environment.collect::<Map<_, _>>(),
        "aliases": if told { aliases(instance) } else { json!([]) },
        "image": {
            "architecture": "amd64",
            "description": format!("{os} {release} amd64"),
            "os": os,
            "release": release,
            "serial": "20251101_07:42",
            "type": "squashfs",
            "variant": "default",
            "secureboot": null,
        },
        "userns_idmap": idmap(config),
        "raw": null,
        "vnc_enabled": false,
        "vnc_port": null,
        "vnc_password": null,
        "secure_boot": null,
        "root_disk_size": null,
        "root_disk_io_bus": null,
        "storage_pool": config[POOL],
    });
    if dialect == Dialect::V25_10 {
        entry["privileged_mode"] = json!(config["security.privileged"] == "true");
    }
    entry
}

/// The first IPv4 address of a container, if it has one.
pub(super) async fn address(server: &Server, name: &str) -> Option<String> {
    let all = all(server).await.ok()?;
    let instance = all.iter().find(|instance| instance["name"] == name)?;
    let aliases = aliases(instance);
    let first = aliases.as_array()?.iter().find(|alias| alias["type"] == "INET")?;
    first["address"].as_str().map(str::to_owned)
}

/// The addresses of a container that reach beyond its own link.
fn aliases(instance: &Value) -> Value {
    let networks = instance["state"]["network"].as_object().into_iter().flatten();
    let addresses = networks.flat_map(|(_, network)| network["addresses"].as_array().into_iter().flatten());
    let global = addresses.filter(|address| address["scope"] == "global");
    global
        .map(|address| {
            let family = address["family"].as_str().unwrap_or_default().to_uppercase();
            let netmask = address["netmask"]
                .as_str()
                .and_then(|netmask| netmask.parse::<u8>().ok());
            json!({ "type": family, "address": address["address"], "netmask": netmask })
        })
        .collect()
}

fn idmap(config: &Value) -> Value {
    let text = config["volatile.idmap.current"].as_str().unwrap_or("[]");
    let map: Value = serde_json::from_str(text).unwrap_or_default();
    let find = |key: &str| {
        let entry = map.as_array()?.iter().find(|entry| entry[key] == true)?;
        Some(json!({ "hostid": entry["Hostid"], "maprange": entry["Maprange"], "nsid": entry["Nsid"] }))
    };
    match (find("Isuid"), find("Isgid")) {
        (Some(uid), Some(gid)) => json!({ "uid": uid, "gid": gid }),
        _ => Value::Null,
    }
}

/// The devices of a container as `virt.instance.device_list` tells them.
pub(super) async fn virt_devices(server: &Server, name: &str) -> Result<Value, Failure> {
    let path = format!("/instances/{name}");
    let instance = server.daemon.call(Method::GET, &path, None).await.map_err(failed)?;
    let devices = instance["devices"].as_object().into_iter().flatten();
    let nics = devices.filter(|(_, device)| device["type"] == "nic").map(|(name, _)| {
        json!({
            "name": name, "description": null, "readonly": true, "dev_type": "NIC",
            "network": null, "nic_type": "BRIDGED", "parent": "incusbr0",
        })
    });
    Ok(nics.collect())
}
