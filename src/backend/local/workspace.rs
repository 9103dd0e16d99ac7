//! Mounts, volumes and ports: kept in a sandbox's record, and put into its tree with each start. A volume is a folder of the
//! state folder, below `volumes`, with a note beside it that says whose it is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags, fstat, openat2};
use serde::{Deserialize, Serialize};

use super::Local;
use super::state::{Record, failed, private, write};
use super::wire::Bind;
use crate::backend::attachable::open_source;
use crate::backend::{Error, ErrorKind, Result};
use crate::model::{
    Attach, AttachedMount, Capability, Digest, EnvironmentName, GuestPath, InstanceName, Labels, Ownership,
    SandboxName, VolumeKey, Workspace,
};

/// What is attached, as a record has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Attached {
    mounts: BTreeMap<String, Mount>,
    /// The path of each, by name.
    volumes: BTreeMap<String, String>,
    /// The port of this machine that leads to each of the sandbox.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) ports: BTreeMap<String, u16>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Mount {
    source: String,
    readonly: bool,
    guarded: BTreeSet<String>,
}

/// Whose a volume is.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    environment: String,
    sandbox: String,
    name: String,
}

impl Attached {
    /// What there is of it, as far as `mounted` says. `is_other` tells where something else is mounted than what stands at
    /// the source now, and `folder` the source of a volume.
    fn live(
        &self,
        mounted: impl Fn(&str) -> bool,
        is_other: impl Fn(&str, &str) -> bool,
        folder: impl Fn(&str) -> Option<PathBuf>,
    ) -> Workspace {
        let mounts = self.mounts.iter().filter(|(path, _)| mounted(path));
        let mounts = mounts.filter_map(|(path, mount)| {
            let guarded = mount.guarded.iter().filter(|below| mounted(&format!("{path}/{below}")));
            let odd = match is_other(path, &mount.source) {
                true => ", which has been replaced since",
                false => "",
            };
            let attached = AttachedMount {
                source: format!("{}{odd}", mount.source),
                readonly: mount.readonly,
                guarded: guarded.cloned().collect(),
            };
            Some((GuestPath::new(path.as_str()).ok()?, attached))
        });
        let volumes = self.volumes.iter().filter(|(_, path)| mounted(path));
        let volumes = volumes.map(|(name, path)| {
            let covered = folder(name).is_some_and(|folder| is_other(path, &folder.to_string_lossy()));
            let odd = if covered {
                ", which something else lies over"
            } else {
                ""
            };
            (name.clone(), format!("{path}{odd}"))
        });
        Workspace {
            mounts: mounts.collect(),
            volumes: volumes.collect(),
            volume_sizes: BTreeMap::new(),
            ports: BTreeMap::new(),
            listening: BTreeSet::new(),
        }
    }

    /// Where something else than the sandbox's disk is.
    pub(super) fn paths(&self) -> BTreeSet<GuestPath> {
        let paths = self.mounts.keys().chain(self.volumes.values());
        paths.filter_map(|path| GuestPath::new(path.as_str()).ok()).collect()
    }
}

impl Local {
    pub(super) async fn change_attached(&self, name: &InstanceName, changes: &Attach) -> Result<()> {
        for (needed, capability) in [
            (!changes.mounts.is_empty(), Capability::Mounts),
            (!changes.volumes.is_empty(), Capability::Volumes),
            (!changes.ports.is_empty(), Capability::Ports),
        ] {
            if needed {
                self.need(capability)?;
            }
        }
        let (_lock, mut record) = self.lock(name).await?;
        let runs = self.store.process(name).is_some();
        if runs && !(changes.mounts.is_empty() && changes.volumes.is_empty()) {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("`{name}` runs: what is attached takes hold with a start"),
            ));
        }
        let wanted = changes.ports.iter();
        self.check_ports(name, wanted.filter_map(|(guest, host)| Some((*guest, (*host)?))))?;
        for mount in changes.mounts.values().flatten() {
            open_source(Path::new(&mount.source))?;
        }
        let mut attached = record.attached.clone().unwrap_or_default();
        for (path, mount) in &changes.mounts {
            match mount {
                Some(mount) => {
                    let mount = Mount {
                        source: mount.source.clone(),
                        readonly: mount.readonly,
                        guarded: mount.guarded.clone(),
                    };
                    attached.mounts.insert(path.to_string(), mount);
                }
                None => drop(attached.mounts.remove(path.as_str())),
            }
        }
        for (volume, wanted) in &changes.volumes {
            match wanted {
                Some(wanted) => {
                    let key = self.key(name, &record, volume)?;
                    self.make_volume(&key, (wanted.owner.uid, wanted.owner.gid))?;
                    attached.volumes.insert(volume.clone(), wanted.path.to_string());
                }
                None => drop(attached.volumes.remove(volume)),
            }
        }
        for (guest, wanted) in &changes.ports {
            match wanted {
                Some(host) => drop(attached.ports.insert(guest.to_string(), *host)),
                None => drop(attached.ports.remove(&guest.to_string())),
            }
        }
        let before = record.clone();
        record.attached = Some(attached).filter(|attached| *attached != Attached::default());
        self.store.keep(name, &record)?;
        match runs {
            true => self.change_ports(name, &before, &record).await,
            false => Ok(()),
        }
    }

    /// What is put into a sandbox's tree, outer paths first.
    pub(super) fn binds(&self, name: &InstanceName, record: &Record) -> Result<Vec<Bind>> {
        let Some(attached) = &record.attached else {
            return Ok(Vec::new());
        };
        let mounts = attached.mounts.iter().map(|(path, mount)| {
            Ok(Bind {
                source: PathBuf::from(&mount.source),
                at: path.clone(),
                readonly: mount.readonly,
                guarded: mount.guarded.iter().cloned().collect(),
                shifted: true,
            })
        });
        let volumes = attached.volumes.iter().map(|(volume, path)| {
            Ok(Bind {
                source: self.volume(&self.key(name, record, volume)?).join("data"),
                at: path.clone(),
                readonly: false,
                guarded: Vec::new(),
                shifted: false,
            })
        });
        let mut binds = mounts.chain(volumes).collect::<Result<Vec<_>>>()?;
        binds.sort_by(|one, other| one.at.cmp(&other.at));
        Ok(binds)
    }

    /// What is attached to a sandbox. Of one that runs, what its own kernel says is mounted, where that can be read.
    pub(super) fn workspace(&self, name: &InstanceName, record: &Record) -> Workspace {
        let mut workspace = self.mounted(name, record);
        self.observe_ports(name, record, &mut workspace);
        workspace
    }

    fn mounted(&self, name: &InstanceName, record: &Record) -> Workspace {
        let Some(attached) = &record.attached else {
            return Workspace::default();
        };
        let process = self.store.process(name);
        let root = process
            .as_ref()
            .and_then(|process| fs::File::open(format!("/proc/{}/root", process.pid)).ok());
        let is_other = |path: &str, source: &str| {
            let found = root.as_ref().and_then(|root| which(root, path.trim_start_matches('/')));
            let wanted = fs::File::open("/")
                .ok()
                .and_then(|root| which(&root, source.trim_start_matches('/')));
            found.is_some() && wanted.is_some() && found != wanted
        };
        let mounts = process.and_then(|process| fs::read_to_string(format!("/proc/{}/mountinfo", process.pid)).ok());
        let points: Option<BTreeSet<String>> = mounts.map(|text| {
            let points = text.lines().filter_map(|line| line.split(' ').nth(4));
            points.map(unescaped).collect()
        });
        attached.live(
            |path| points.as_ref().is_none_or(|points| points.contains(path)),
            is_other,
            |volume| Some(self.volume(&self.key(name, record, volume).ok()?).join("data")),
        )
    }

    fn key(&self, name: &InstanceName, record: &Record, volume: &str) -> Result<VolumeKey> {
        match Labels(record.labels.clone()).ownership(name) {
            Ownership::Owned { environment, sandbox } => Ok(VolumeKey {
                environment,
                sandbox,
                name: volume.to_owned(),
            }),
            Ownership::Foreign => Err(Error::new(
                ErrorKind::Invalid,
                format!("no environment owns `{name}`, so it has no volumes"),
            )),
        }
    }

    fn volume(&self, key: &VolumeKey) -> PathBuf {
        let digest = Digest::of(format!("{}/{}/{}", key.environment, key.sandbox, key.name).as_bytes());
        let id = digest.as_str().get(..24).unwrap_or_default();
        self.store.root().join("volumes").join(id)
    }

    fn make_volume(&self, key: &VolumeKey, (uid, gid): (u32, u32)) -> Result<()> {
        let folder = self.volume(key);
        let cannot = |source: std::io::Error| failed(format!("cannot make the volume `{}`", key.name), source);
        private().recursive(true).create(&folder).map_err(cannot)?;
        let data = folder.join("data");
        if !data.exists() {
            let made = folder.join("new");
            let _ = fs::remove_dir(&made);
            fs::create_dir(&made).map_err(cannot)?;
            if self.ids.is_root() {
                let (uid, gid) = self.ids.outside(uid, gid);
                std::os::unix::fs::chown(&made, Some(uid), Some(gid)).map_err(cannot)?;
            }
            use std::os::unix::fs::PermissionsExt as _;
            fs::set_permissions(&made, fs::Permissions::from_mode(0o755)).map_err(cannot)?;
            fs::rename(&made, &data).map_err(cannot)?;
        }
        let note = Note {
            environment: key.environment.to_string(),
            sandbox: key.sandbox.to_string(),
            name: key.name.clone(),
        };
        write(&folder.join("volume.json"), &note).map_err(cannot)
    }

    pub(super) fn kept_volumes(&self, environment: &EnvironmentName) -> Result<BTreeSet<VolumeKey>> {
        let folder = self.store.root().join("volumes");
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
            entries => entries.map_err(|source| failed("cannot look for volumes", source))?,
        };
        let notes = entries.flatten().filter_map(|entry| {
            let text = fs::read_to_string(entry.path().join("volume.json")).ok()?;
            let note: Note = serde_json::from_str(&text).ok()?;
            let key = VolumeKey {
                environment: EnvironmentName::new(note.environment).ok()?,
                sandbox: SandboxName::new(note.sandbox).ok()?,
                name: note.name,
            };
            (key.environment == *environment && self.volume(&key) == entry.path()).then_some(key)
        });
        Ok(notes.collect())
    }

    pub(super) async fn remove_volume(&self, key: &VolumeKey) -> Result<()> {
        let folder = self.volume(key);
        if !folder.exists() {
            return Ok(());
        }
        for name in self.store.all()? {
            let record = match self.store.record(&name) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                // It might be attached there.
                record => record?,
            };
            let names = record.attached.iter().flat_map(|attached| attached.volumes.keys());
            let mut keys = names.filter_map(|volume| self.key(&name, &record, volume).ok());
            if keys.any(|other| other == *key) {
                return Err(Error::new(
                    ErrorKind::Failed,
                    format!("the volume `{}` is attached to `{name}`", key.name),
                ));
            }
        }
        self.store.discard(&folder)?;
        self.store.sweep(self.ids, &self.helpers).await
    }
}

/// What stands at a path below a root: the number of its file system, and its own. Links are not followed.
fn which(root: &fs::File, path: &str) -> Option<(u64, u64)> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let strictly = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
    let opened = openat2(root, path, flags, Mode::empty(), strictly).ok()?;
    let found = fstat(&opened).ok()?;
    Some((found.st_dev, found.st_ino))
}

/// A path as mountinfo writes it: some characters in octal (Linux, `proc_pid_mountinfo(5)`).
fn unescaped(text: &str) -> String {
    let mut path = text.to_owned();
    for (escape, character) in [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")] {
        path = path.replace(escape, character);
    }
    path
}
