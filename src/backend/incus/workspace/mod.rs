//! Mounts, volumes and ports.
//!
//! What was tried on 6.0.4. A disk device with `shift` maps every id to itself, by an idmapped mount. Root inside can
//! unmount what lies over something else, and can make a read-only mount that was plugged into a running instance
//! writable, but none that was there when it started. The daemon follows links in a source at every start, also at one
//! that the guest brings about itself: so no source may lie where a guest can write, and files of the spec that lie in a
//! mount are covered by copies kept elsewhere. Taking a device away from a running instance removes the file or the empty
//! folder that it was mounted on; where that lies in another mount, it is the host's.

mod devices;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use reqwest::Method;
use serde::Deserialize;
use serde_json::json;

pub(super) use devices::Host;

use super::wire::{Config, Devices, nullable};
use super::{Incus, convert, wire};
use crate::backend::attachable::{Opens, guards_beside, has_ipv6, make_below, open_source, real, taken};
use crate::backend::retry::retry;
use crate::backend::{Error, ErrorKind, Result, Settings};
use crate::model::{
    Attach, AttachedMount, Bytes, EnvironmentName, GuestPath, InstanceName, Ownership, Protocol, VolumeKey, Workspace,
};

const ENVIRONMENT: &str = "user.sbx-apply.environment";
const SANDBOX: &str = "user.sbx-apply.sandbox";
const VOLUME: &str = "user.sbx-apply.volume";
const PROJECT: &str = "user.sbx-apply.project";

/// Whether a volume's owners are mapped by the mount, not on its disk.
const SHIFTED: &str = "security.shifted";

/// How much a volume may hold.
const SIZE: &str = "size";

/// The largest file that is guarded: a spec's file is never larger.
const LIMIT: u64 = 1 << 20;

/// A storage volume.
#[derive(Debug, Deserialize)]
struct Volume {
    name: String,
    #[serde(default, deserialize_with = "nullable")]
    config: Config,
}

/// A volume of ours as it is in its pool.
pub(super) struct Stored {
    pub(super) pool: String,
    /// How much it may hold, in the normal form of [`Bytes`], or as the daemon has it.
    pub(super) size: Option<String>,
}

impl Host {
    /// This machine, where the daemon is its own.
    pub(super) fn of(settings: &Settings) -> Self {
        let absolute = |key: &str| settings.get(key).map(PathBuf::from).filter(|path| path.is_absolute());
        let usual = || match rustix::process::geteuid().is_root() {
            true => Some(PathBuf::from("/var/lib")),
            false => absolute("data"),
        };
        let folder = absolute("state").or_else(|| usual().map(|folder| folder.join("sbx-apply")));
        Self {
            guards: folder.map(|folder| guards_beside(&folder)),
            ipv6: has_ipv6(),
        }
    }

    /// What nobody in a sandbox may get at: the folder of copies with the state folder beside it, the daemon's socket, and
    /// its own folder.
    pub(super) fn own_paths(&self, socket: Option<&Path>) -> Vec<PathBuf> {
        let state = self.guards.as_deref().map(|guards| guards.with_extension(""));
        let folder = socket
            .and_then(Path::parent)
            .filter(|folder| folder.join("storage-pools").is_dir());
        let own = [self.guards.as_deref(), state.as_deref(), socket, folder];
        own.into_iter().flatten().map(real).collect()
    }

    /// The same for one daemon, by its certificate's fingerprint: another one on this machine may have an instance of the same
    /// name.
    pub(super) fn of_daemon(&self, fingerprint: &str) -> Self {
        let key: String = fingerprint.chars().filter(char::is_ascii_hexdigit).take(16).collect();
        Self {
            guards: self.guards.as_ref().map(|folder| folder.join(key)),
            ipv6: self.ipv6,
        }
    }

    /// The same for one instance, whose copies are in a folder of their own.
    fn of_instance(&self, project: &str, name: &InstanceName) -> Self {
        Self {
            guards: self
                .guards
                .as_ref()
                .map(|folder| folder.join(format!("{project}.{name}"))),
            ipv6: self.ipv6,
        }
    }
}

impl Incus {
    /// What is attached to an instance, as we do it.
    pub(super) fn workspace_of(&self, instance: &wire::Instance) -> Workspace {
        let name = InstanceName::observed(&instance.name);
        let host = self.host.of_instance(self.client.project(), &name);
        devices::read(&instance.put.devices, &host, key(instance).as_ref())
    }

    pub(super) async fn change_attached(&self, name: &InstanceName, changes: &Attach) -> Result<()> {
        let host = self.host.of_instance(self.client.project(), name);
        let (instance, _) = self.fetch(name).await?;
        let mounts = changes
            .mounts
            .iter()
            .filter_map(|(path, mount)| Some((path, mount.as_ref()?)));
        for (path, mount) in mounts {
            self.prepare(path, mount, &host)?;
        }
        self.check_ports(&instance, changes)?;
        let inner = within(&host, &instance, changes)?;
        let pools = self.prepare_volumes(&instance, changes, &inner).await?;
        let key = key(&instance);
        let put = |own: &mut Devices| {
            for (path, mount) in &changes.mounts {
                devices::remove_mount(own, path);
                if let Some(mount) = mount {
                    devices::add_mount(own, path, mount, &host);
                }
            }
            for (volume, wanted) in &changes.volumes {
                devices::remove_volume(own, volume);
                if let (Some(wanted), Some(key), Some(pool)) = (wanted, &key, pools.get(volume)) {
                    let key = VolumeKey {
                        name: volume.clone(),
                        ..key.clone()
                    };
                    devices::add_volume(own, &key, wanted, pool);
                }
            }
            for (guest, wanted) in &changes.ports {
                devices::remove_port(own, *guest);
                if let Some(wanted) = wanted {
                    devices::add_port(own, *guest, *wanted, host.ipv6);
                }
            }
        };
        if convert::status(&instance.status) != crate::model::Status::Stopped {
            let mut after = instance.put.devices.clone();
            put(&mut after);
            if let Some(path) = devices::uncovers(&instance.put.devices, &after) {
                return Err(Error::new(
                    ErrorKind::Invalid,
                    format!("`{name}` runs: what lies over a mount at {path} cannot be changed or taken away"),
                )
                .with_hint("stop it, and apply again"));
            }
        }
        self.change_devices(name, |own, _| put(own)).await?;
        let (instance, _) = self.fetch(name).await?;
        forget_copies(&host, &instance.put.devices);
        Ok(())
    }

    /// Looks at a source again, and copies what is guarded in it.
    ///
    /// Between this look and the daemon's own somebody of this machine can still put a link in a folder's place, though
    /// nobody in a sandbox: no source lies where one may write.
    fn prepare(&self, path: &GuestPath, mount: &AttachedMount, host: &Host) -> Result<()> {
        if !self.client.is_local() {
            return Err(Error::unsupported("nothing of this machine can be mounted on another"));
        }
        // The daemon writes it into a file of lines.
        if mount.source.contains(char::is_control) || path.as_str().contains(char::is_control) {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("{path:?} or its source has a control character"),
            ));
        }
        let source = Path::new(&mount.source);
        open_source(source)?;
        if mount.guarded.is_empty() {
            return Ok(());
        }
        let guards = host.guards.as_deref().ok_or_else(|| {
            Error::new(ErrorKind::Invalid, "no folder to keep copies of the spec's files in")
                .with_hint("name one by an absolute path: `SBX_LOCAL_STATE`")
        })?;
        let failed = |error: std::io::Error| {
            Error::new(ErrorKind::Failed, format!("cannot guard the spec's files in {path}")).with_source(error)
        };
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o755).create(guards).map_err(failed)?;
        for (below, at) in mount.guarded.iter().zip(devices::guarded(path, mount)) {
            let bytes = read(&source.join(below))?;
            let copy = devices::copy_of(guards, &at);
            // A mount of the file that is there holds on to that very file: it is written anew where it is.
            if fs::read(&copy).is_ok_and(|found| found == bytes) {
                continue;
            }
            fs::write(&copy, bytes).map_err(failed)?;
            fs::set_permissions(&copy, fs::Permissions::from_mode(0o644)).map_err(failed)?;
        }
        Ok(())
    }

    /// Ports that somebody has are refused before anything is touched; the daemon would not say.
    fn check_ports(&self, instance: &wire::Instance, changes: &Attach) -> Result<()> {
        if !self.client.is_local() {
            return Ok(());
        }
        let running = convert::status(&instance.status) == crate::model::Status::Running;
        let open = match running {
            true => self.workspace_of(instance).listening,
            false => BTreeSet::new(),
        };
        let new = changes
            .ports
            .iter()
            .filter_map(|(guest, host)| Some(((*host)?, guest.protocol)));
        let new: BTreeSet<(u16, Protocol)> = new.filter(|port| !open.contains(port)).collect();
        match taken(&new, Opens::ByDaemon).into_iter().next() {
            Some(((port, _), why)) => Err(Error::new(
                ErrorKind::AlreadyExists,
                format!("port {port} of this machine {why}"),
            )),
            None => Ok(()),
        }
    }

    /// Sees that the volumes are there, and gives the pool of each.
    ///
    /// LXC first mounts what is not shifted, then what is: so a volume that lies `within` a mount has to be shifted, too,
    /// or the mount covers it, and what is written there goes to this machine's folder.
    async fn prepare_volumes(
        &self,
        instance: &wire::Instance,
        changes: &Attach,
        within: &BTreeSet<GuestPath>,
    ) -> Result<BTreeMap<String, String>> {
        let mut pools = BTreeMap::new();
        let wanted: Vec<_> = changes
            .volumes
            .iter()
            .filter_map(|(name, volume)| Some((name, volume.as_ref()?)))
            .collect();
        if wanted.is_empty() {
            return Ok(pools);
        }
        let key = key(instance).ok_or_else(|| {
            Error::new(
                ErrorKind::Invalid,
                format!("no environment owns `{}`, so it has no volumes", instance.name),
            )
        })?;
        let found = self.all_volumes(&key.environment).await?;
        let root = convert::root(&instance.expanded_devices).and_then(|(_, device)| device.get("pool"));
        for (name, volume) in wanted {
            let key = VolumeKey {
                name: name.clone(),
                ..key.clone()
            };
            let shifted = within.contains(&volume.path);
            if let Some(Stored { pool, size }) = found.get(&key) {
                if shifted {
                    self.shift(pool, &key).await?;
                }
                if let Some(wanted) = volume.size.filter(|wanted| size.as_ref() != Some(&wanted.to_string())) {
                    self.resize(pool, &key, wanted).await?;
                }
                pools.insert(name.clone(), pool.clone());
                continue;
            }
            let pool =
                root.ok_or_else(|| Error::new(ErrorKind::Invalid, "it has no root disk, so no pool for volumes"))?;
            let url = self.client.url(["storage-pools", pool, "volumes", "custom"]);
            let mut body = json!({
                "name": devices::volume_name(&key),
                "type": "custom",
                "content_type": "filesystem",
                "description": format!("{} of {} in {} (sbx-apply)", key.name, key.sandbox, key.environment),
                "config": {
                    ENVIRONMENT: key.environment.as_str(),
                    SANDBOX: key.sandbox.as_str(),
                    VOLUME: key.name,
                    PROJECT: self.client.project(),
                    "initial.uid": volume.owner.uid.to_string(),
                    "initial.gid": volume.owner.gid.to_string(),
                    "initial.mode": "0755",
                },
            });
            if shifted {
                body["config"][SHIFTED] = json!("true");
            }
            if let Some(size) = volume.size {
                body["config"][SIZE] = json!(size.to_string());
            }
            self.client
                .act(Method::POST, &url, Some(&body), None)
                .await
                .map_err(|error: Error| error.within(format_args!("cannot make the volume `{}`", key.name)))?;
            pools.insert(name.clone(), pool.clone());
        }
        Ok(pools)
    }

    /// Has a volume that is there hold more, as long as it does not come to hold less.
    async fn resize(&self, pool: &str, key: &VolumeKey, wanted: Bytes) -> Result<()> {
        let name = devices::volume_name(key);
        let url = self.client.url(["storage-pools", pool, "volumes", "custom", &name]);
        let (volume, _): (Volume, _) = self.client.get(&url).await?;
        let before = volume.config.get(SIZE).and_then(|size| size.parse::<Bytes>().ok());
        if let Some(before) = before.filter(|before| wanted < *before) {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("the volume `{}` has {before}, and cannot shrink to {wanted}", key.name),
            ));
        }
        let body = json!({ "config": { SIZE: wanted.to_string() } });
        let resized = self.client.act(Method::PATCH, &url, Some(&body), None).await;
        resized
            .map(drop)
            .map_err(|error: Error| error.within(format_args!("cannot have the volume `{}` hold {wanted}", key.name)))
    }

    /// Has a volume that is there shifted; its owners stay who they are.
    async fn shift(&self, pool: &str, key: &VolumeKey) -> Result<()> {
        let name = devices::volume_name(key);
        let url = self.client.url(["storage-pools", pool, "volumes", "custom", &name]);
        let (volume, _): (Volume, _) = self.client.get(&url).await?;
        if volume.config.get(SHIFTED).is_some_and(|value| value == "true") {
            return Ok(());
        }
        let body = json!({ "config": { SHIFTED: "true" } });
        let shifted = self.client.act(Method::PATCH, &url, Some(&body), None).await;
        shifted.map(drop).map_err(|error: Error| {
            let message = format!("cannot have the volume `{}` lie in a mount", key.name);
            error.within(message).with_hint("stop the sandbox, and apply again")
        })
    }

    /// The volumes of an environment.
    pub(super) async fn all_volumes(&self, environment: &EnvironmentName) -> Result<BTreeMap<VolumeKey, Stored>> {
        let (pools, _): (Vec<String>, _) = self.client.get(&self.client.url(["storage-pools"])).await?;
        let mut found = BTreeMap::new();
        for pool in pools.iter().filter_map(|url| url.rsplit('/').next()) {
            let pool = pool.split('?').next().unwrap_or(pool);
            let mut url = self.client.url(["storage-pools", pool, "volumes", "custom"]);
            url.query_pairs_mut().append_pair("recursion", "1");
            let (volumes, _): (Vec<Volume>, _) = self.client.get(&url).await?;
            for volume in volumes {
                let label = |key: &str| volume.config.get(key).map(String::as_str);
                if label(ENVIRONMENT) != Some(environment.as_str()) || label(PROJECT) != Some(self.client.project()) {
                    continue;
                }
                let Some(sandbox) = label(SANDBOX).and_then(|name| crate::model::SandboxName::new(name).ok()) else {
                    continue;
                };
                let key = VolumeKey {
                    environment: environment.clone(),
                    sandbox,
                    name: label(VOLUME).unwrap_or_default().to_owned(),
                };
                // A copy that somebody has made by hand keeps the labels, and not the name.
                if volume.name == devices::volume_name(&key) {
                    let size = label(SIZE).filter(|size| !size.is_empty());
                    let size =
                        size.map(|size| size.parse::<Bytes>().map_or(size.to_owned(), |bytes| bytes.to_string()));
                    let pool = pool.to_owned();
                    found.insert(key, Stored { pool, size });
                }
            }
        }
        Ok(found)
    }

    pub(super) async fn remove_volume(&self, key: &VolumeKey) -> Result<()> {
        let found = self.all_volumes(&key.environment).await?;
        let Some(Stored { pool, .. }) = found.get(key) else {
            return Ok(());
        };
        let name = devices::volume_name(key);
        let url = self.client.url(["storage-pools", pool, "volumes", "custom", &name]);
        let removed = retry(|| self.client.act(Method::DELETE, &url, None::<&()>, None)).await;
        match removed {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            answer => answer.map(drop),
        }
    }

    /// Forgets the copies of an instance that is no more.
    pub(super) fn forget_guards(&self, name: &InstanceName) {
        if let Some(guards) = self.host.of_instance(self.client.project(), name).guards {
            let _ = fs::remove_dir_all(guards);
        }
    }
}

/// Whose volumes an instance has: those of its sandbox. The name is empty.
fn key(instance: &wire::Instance) -> Option<VolumeKey> {
    let labels = convert::labels(&instance.put.config);
    match labels.ownership(&InstanceName::observed(&instance.name)) {
        Ownership::Owned { environment, sandbox } => Some(VolumeKey {
            environment,
            sandbox,
            name: String::new(),
        }),
        Ownership::Foreign => None,
    }
}

/// The paths of changes that lie within a mount, now that there is something in its source to mount them on.
fn within(host: &Host, instance: &wire::Instance, changes: &Attach) -> Result<BTreeSet<GuestPath>> {
    let mut mounts = devices::read(&instance.put.devices, host, None).mounts;
    for (path, mount) in &changes.mounts {
        match mount {
            Some(mount) => drop(mounts.insert(path.clone(), mount.clone())),
            None => drop(mounts.remove(path)),
        }
    }
    let inner = changes.mounts.iter().filter(|(_, mount)| mount.is_some());
    let volumes = changes.volumes.values().flatten().map(|volume| &volume.path);
    let mut found = BTreeSet::new();
    for path in inner.map(|(path, _)| path).chain(volumes) {
        // The nearest one.
        let mut outer = mounts.iter().rev();
        let Some((below, mount)) = outer.find_map(|(outer, mount)| Some((path.below(outer)?, mount))) else {
            continue;
        };
        make_below(Path::new(&mount.source), below)?;
        found.insert(path.clone());
    }
    Ok(found)
}

/// The bytes of a file of the spec, found without following links.
fn read(path: &Path) -> Result<Vec<u8>> {
    let failed = |error: std::io::Error| {
        Error::new(ErrorKind::Invalid, format!("cannot read {}", path.display())).with_source(error)
    };
    let mut bytes = Vec::new();
    let file = crate::backend::source::regular(path).map_err(failed)?;
    file.take(LIMIT + 1).read_to_end(&mut bytes).map_err(failed)?;
    match bytes.len() as u64 > LIMIT {
        true => Err(Error::new(
            ErrorKind::Invalid,
            format!("{} is too large for a spec", path.display()),
        )),
        false => Ok(bytes),
    }
}

/// Removes copies that no device names any more.
fn forget_copies(host: &Host, own: &Devices) {
    let Some(guards) = host.guards.as_deref() else { return };
    let used: BTreeSet<&str> = own
        .values()
        .filter_map(|device| device.get("source"))
        .map(String::as_str)
        .collect();
    for entry in fs::read_dir(guards).into_iter().flatten().flatten() {
        if !used.contains(&*entry.path().to_string_lossy()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}
