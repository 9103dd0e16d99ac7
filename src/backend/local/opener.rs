//! From settings to a backend.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use rustix::process::{getegid, geteuid};

use super::cgroup::Groups;
use super::helper::{Helpers, OWN};
use super::ids::{Ids, range};
use super::network::Network;
use super::state::Store;
use crate::backend::attachable::{guards_beside, real};
use crate::backend::{Error, ErrorKind, Examination, Result, Sandboxes, Settings};
use crate::model::{Capabilities, Capability, HotPlug};

/// Opens [`Local`] by its name, `local`.
#[derive(Debug, Clone, Copy)]
pub struct Opener;

/// Sandboxes on this machine, by Linux namespaces.
#[derive(Debug)]
pub struct Local {
    pub(super) store: Store,
    pub(super) ids: Ids,
    pub(super) helpers: Helpers,
    pub(super) groups: Groups,
    pub(super) network: Network,
    pub(super) capabilities: Capabilities,
    /// The folder that names of images are relative to, and the one that all must lie in, both real.
    pub(super) images: Option<(PathBuf, PathBuf)>,
}

const SETTINGS: &[(&str, &str)] = &[
    (
        "state",
        "folder that holds the sandboxes; /var/lib/sbx-apply for root, else sbx-apply in the user's data folder",
    ),
    ("data", "the user's data folder"),
    ("folder", "the folder that images are looked for in; the spec's own"),
    ("root", "the folder that every image but `host` must lie in"),
];

/// Where root's sandboxes are.
const OF_ROOT: &str = "/var/lib/sbx-apply";
const NO_LIMITS: &str = "limits need root, or a cgroup v2 that is delegated to you, as in a systemd user session; \
                         without, take them out of the spec";
const ONE_USER: &str = "without ranges in /etc/subuid and /etc/subgid and the program newuidmap (package uidmap) there \
                        is nobody but root in a sandbox";

#[async_trait]
impl crate::backend::Opener for Opener {
    fn name(&self) -> &'static str {
        "local"
    }

    fn settings(&self) -> &'static [(&'static str, &'static str)] {
        SETTINGS
    }

    async fn open(&self, settings: &Settings) -> Result<Arc<dyn Sandboxes>> {
        Ok(Arc::new(Local::open(settings, Path::new(OWN))?))
    }

    async fn examine(&self, settings: &Settings) -> Examination {
        super::examine::examine(settings, Path::new(OWN)).await
    }
}

impl Local {
    /// Opens the state folder that the settings name. Changes nothing. `program` is this program, or another
    /// that hands over to [`super::helper`] when its first argument is [`super::ENTRY`].
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a folder that cannot hold sandboxes, and when none is named and there is no
    /// usual one.
    pub fn open(settings: &Settings, program: &Path) -> Result<Self> {
        let setting = |key: &str| settings.get(key).map(PathBuf::from).filter(|path| path.is_absolute());
        let usual = || match geteuid().is_root() {
            true => Some(PathBuf::from(OF_ROOT)),
            false => setting("data").map(|folder| folder.join("sbx-apply")),
        };
        let state = match settings.get("state").filter(|state| !state.is_empty()) {
            Some(_) => setting("state"),
            None => usual(),
        };
        let state = state.ok_or_else(|| {
            Error::new(ErrorKind::Invalid, "no folder to keep sandboxes in")
                .with_hint("name one by an absolute path, with the setting `state` or `SBX_LOCAL_STATE`")
        })?;
        let ids = Store::ids(&state)?.unwrap_or_else(ids);
        let groups = Groups::find(&state);
        let network = Network::find(ids);
        let own_paths = vec![real(&state), real(&guards_beside(&state))];
        Ok(Self {
            store: Store::at(state, ids)?,
            ids,
            helpers: Helpers::new(program.to_owned(), ids),
            capabilities: Capabilities {
                own_paths,
                ..capabilities(ids, &groups, &network)
            },
            groups,
            network,
            images: setting("folder")
                .zip(setting("root"))
                .and_then(|(folder, root)| Some((folder.canonicalize().ok()?, root.canonicalize().ok()?))),
        })
    }
}

/// Whose sandboxes will be, in a new state folder.
fn ids() -> Ids {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    let single = Ids::Single { uid, gid };
    if uid == 0 {
        // Root of a user namespace, as in a container, may not have those ids.
        return match has(Ids::ROOT) {
            true => Ids::ROOT,
            false => single,
        };
    }
    let there = |program: &str| {
        ["/usr/bin", "/bin", "/usr/local/bin"]
            .iter()
            .any(|folder| Path::new(folder).join(program).exists())
    };
    if !there("newuidmap") || !there("newgidmap") {
        return single;
    }
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd.lines().find_map(|line| {
        let mut parts = line.split(':');
        let name = parts.next()?;
        (parts.nth(1)?.parse() == Ok(uid)).then_some(name)
    });
    let first = |file: &str| range(&fs::read_to_string(file).unwrap_or_default(), name, uid);
    match first("/etc/subuid").zip(first("/etc/subgid")) {
        Some((users, groups)) => Ids::Range {
            uid,
            gid,
            users,
            groups,
        },
        None => single,
    }
}

/// Whether this process's own namespace has the outer ids.
fn has(ids: Ids) -> bool {
    let (first, _) = ids.outside(0, 0);
    let (last, _) = ids.outside(super::ids::COUNT - 1, 0);
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.lines().any(|line| {
        let numbers: Vec<u64> = line.split_whitespace().filter_map(|text| text.parse().ok()).collect();
        matches!(numbers[..], [inner, _, count] if inner <= u64::from(first) && u64::from(last) < inner + count)
    })
}

fn capabilities(ids: Ids, groups: &Groups, network: &Network) -> Capabilities {
    use Capability as C;
    let mut able = vec![
        C::Snapshots,
        C::CloneFromDisk,
        C::CloneFromSnapshot,
        C::Files,
        C::FilesWhenStopped,
        C::Secrets,
        C::Exec,
        C::Config,
        C::Expiry,
        C::Mounts,
        C::Volumes,
        C::Ports,
    ];
    let mut reasons = vec![(
        C::DiskSize,
        "local sandboxes share the disk of this machine; take `disk` out of the spec".to_owned(),
    )];
    reasons.push((
        C::VolumeSize,
        "volumes of local sandboxes share the disk of this machine; take `size` out of the spec".to_owned(),
    ));
    match groups.limit() {
        true => able.extend([C::CpuLimit, C::MemoryLimit, C::MemoryShare]),
        false => {
            reasons.extend([C::CpuLimit, C::MemoryLimit, C::MemoryShare].map(|limit| (limit, NO_LIMITS.to_owned())));
        }
    }
    match ids.is_single() {
        false => able.extend([C::Users, C::Owners]),
        true => reasons.extend([C::Users, C::Owners].map(|users| (users, ONE_USER.to_owned()))),
    }
    let (closes, why_not) = network.closes();
    able.extend(closes);
    reasons.extend(why_not.into_iter().map(|(lacking, why)| (lacking, why.to_owned())));
    reasons.push((
        C::EgressGuest,
        "rules inside the guest are for backends that can do no better: leave `enforce` out".to_owned(),
    ));
    match network {
        Network::Loopback(why) => reasons.push((C::Network, why.clone())),
        Network::Nat(_) | Network::Pasta(_) => able.push(C::Network),
    }
    Capabilities {
        backend: "local",
        able: able.into_iter().collect(),
        concurrency: 8,
        reasons,
        restart_config: &[],
        egress_restarts: network.restarts(),
        hot_plug: HotPlug {
            ports: true,
            ..HotPlug::default()
        },
        guards_folders: true,
        own_paths: Vec::new(),
        bounds: Default::default(),
        workspace_remarks: Vec::new(),
        remarks: network.remark().into_iter().collect(),
        egress_remarks: Vec::new(),
    }
}
