//! The backend itself: what it is made of, and the traits it answers.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::AsyncRead;
use tokio::sync::{OnceCell, RwLock};

use super::client::Client;
use super::convert;
use super::disk::with_way_out;
use super::egress::Guard;
use super::instance::Inherited;
use super::remote::Remotes;
use super::wire::Devices;
use super::workspace::Host;
use crate::backend::attachable;
use crate::backend::{
    Backend, Changes, ConsoleOpts, CreateOpts, Error, ErrorKind, Exec, ExecOpts, FileChange, FileEntry, Files, Observe,
    ReadFiles, Result, Scope, Stop, Streams, Terminal,
};
use crate::model::{
    Attach, Capabilities, Capability, EnvironmentName, GuestPath, HostMount, HotPlug, Inspection, Instance,
    InstanceName, Labels, LiveInstance, Mode, Owner, Protocol, Query, Snapshot, VolumeKey,
};

/// How many operations at once: four were as fast as eight or sixteen, and free of the errors that eight
/// brought (6.0.4, two cores, btrfs).
const CONCURRENCY: usize = 4;

/// Settings that a running container takes up with its next start only: those that the documentation marks
/// `liveupdate: no`.
const RESTART_CONFIG: &[&str] = &[
    "cloud-init.",
    "limits.kernel.",
    "nvidia.",
    "oci.",
    "raw.",
    "security.bpffs.",
    "security.guestapi",
    "security.guestapi.",
    "security.idmap.",
    "security.privileged",
    "security.syscalls.",
];

/// One project of one daemon or cluster.
pub struct Incus {
    pub(super) client: Client,
    pub(super) capabilities: Capabilities,
    /// Profiles of new instances; the first has the least say.
    pub(super) profiles: Vec<String>,
    /// Storage pool of new instances; their profiles' when none.
    pub(super) pool: Option<String>,
    /// Network of new instances; their profiles' when none.
    pub(super) network: Option<String>,
    /// Where images can come from.
    pub(super) remotes: Remotes,
    /// What the profiles give; asked for once.
    pub(super) profile_devices: OnceCell<Devices>,
    /// What clones of a snapshot would inherit, by instance and snapshot. Snapshots hardly ever change, and
    /// reading one costs the daemon 7 ms, because it weighs it.
    pub(super) inherited: Mutex<HashMap<(String, String), Arc<Inherited>>>,
    /// Closes what the daemon leaves open on its host.
    pub(super) guard: Guard,
    /// What of this machine is attached to instances.
    pub(super) host: Host,
    /// Held to write while unused networks of policies are deleted, to read while somebody is put on one.
    pub(super) networks: RwLock<()>,
    /// Held while a policy's network and ACL are made or changed.
    pub(super) making: tokio::sync::Mutex<()>,
    /// The member of a cluster that answers; none where it is no cluster.
    pub(super) member: Option<String>,
}

impl fmt::Debug for Incus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incus")
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}

impl Incus {
    /// Puts it together; nothing is sent yet.
    pub(super) fn new(
        client: Client,
        profiles: Vec<String>,
        pool: Option<String>,
        network: Option<String>,
        remotes: Remotes,
        host: Host,
    ) -> Self {
        let guard = Guard::new(client.is_local());
        let mut capabilities = capabilities();
        let socket = client.is_local().then(|| Path::new(client.place()));
        capabilities.own_paths = host.own_paths(socket);
        if !client.is_local() {
            capabilities.able.remove(&Capability::Mounts);
            let there = format!(
                "Incus at {} is reached over the network: mounts are of this machine, and need its socket",
                client.place()
            );
            capabilities.reasons.push((Capability::Mounts, there));
            let there = format!(
                "ports: they open on 127.0.0.1 of the server, {}, and not on this machine",
                client.place()
            );
            capabilities.workspace_remarks = vec![(Capability::Ports, there)];
        }
        Self {
            client,
            capabilities: Capabilities {
                egress_remarks: guard.remark().into_iter().collect(),
                ..capabilities
            },
            profiles,
            pool,
            network,
            remotes,
            host,
            profile_devices: OnceCell::new(),
            inherited: Mutex::default(),
            guard,
            networks: RwLock::default(),
            making: tokio::sync::Mutex::default(),
            member: None,
        }
    }

    /// Asks the daemon what it is, so that plans know: whether it is a cluster, and whether the project is there. One
    /// request that is needed anyway, and one more for a project of its own.
    ///
    /// # Errors
    /// When the daemon cannot be reached or used, and [`crate::backend::ErrorKind::NotFound`] for the project.
    pub(super) async fn learn(&mut self) -> Result<()> {
        let server = &self.client.server().await?.environment;
        self.host = self.host.of_daemon(&server.certificate_fingerprint);
        if !server.server_clustered {
            self.capabilities.able.remove(&Capability::Target);
            let reason = format!("Incus at {} is no cluster: take `target` out", self.client.place());
            self.capabilities.reasons.push((Capability::Target, reason));
        } else {
            self.member = Some(server.server_name.clone());
            let remark = self.guard.remark_on_cluster(&server.server_name);
            self.capabilities.egress_remarks.extend(remark);
        }
        let project = self.client.project();
        if project == "default" {
            return Ok(());
        }
        let url = self.client.url(["projects", project]);
        match self.client.get::<serde_json::Value>(&url).await {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Err(
                    Error::not_found(format!("no project `{project}` at {}", self.client.place())).with_hint(format!(
                        "make it with `incus project create {project}`, or name another"
                    )),
                )
            }
            // Whoever may use a project need not be allowed to look at it.
            _ => Ok(()),
        }
    }

    /// Requests sent so far, upgrades of connections included.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.client.requests()
    }
}

fn capabilities() -> Capabilities {
    use Capability as C;
    Capabilities {
        backend: "incus",
        able: BTreeSet::from([
            C::Snapshots,
            C::CloneFromDisk,
            C::CloneFromSnapshot,
            C::CpuLimit,
            C::MemoryLimit,
            C::MemoryShare,
            C::DiskSize,
            C::Files,
            C::FilesWhenStopped,
            C::Secrets,
            C::Exec,
            C::Users,
            C::Owners,
            C::Config,
            C::Target,
            C::Expiry,
            C::EgressHost,
            C::EgressNone,
            C::EgressGuest,
            C::EgressIpv6,
            C::Mounts,
            C::Volumes,
            C::VolumeSize,
            C::Ports,
            C::Network,
        ]),
        concurrency: CONCURRENCY,
        reasons: Vec::new(),
        restart_config: RESTART_CONFIG,
        egress_restarts: true,
        hot_plug: HotPlug {
            mounts: true,
            // Root inside could make one that is plugged in writable.
            readonly_mounts: false,
            volumes: true,
            ports: true,
        },
        guards_folders: false,
        own_paths: Vec::new(),
        bounds: Default::default(),
        workspace_remarks: vec![(
            C::Mounts,
            "mounts: the spec's own files in them are read-only inside, as copies of this moment; but root inside can \
             uncover the originals, so mount what root must not touch with `readonly=true`, or a folder without the spec"
                .to_owned(),
        )],
        remarks: Vec::new(),
        egress_remarks: Vec::new(),
    }
}

#[async_trait]
impl Observe for Incus {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn describe(&self) -> Result<String> {
        let server = self.client.server().await?;
        Ok(format!(
            "Incus {} at {}, project {}",
            server.environment.server_version,
            self.client.place(),
            self.client.project()
        ))
    }

    async fn get(&self, name: &InstanceName) -> Result<Instance> {
        self.read_instance(name).await
    }

    async fn address_of(&self, name: &InstanceName) -> Result<Option<Ipv4Addr>> {
        self.leased(name)
            .await
            .map_err(|error| error.within(format_args!("cannot see which address `{name}` has")))
    }

    async fn list(&self) -> Result<Vec<Instance>> {
        self.read_instances().await
    }

    async fn list_snapshots(&self, name: &InstanceName) -> Result<Vec<Snapshot>> {
        self.read_snapshots(name).await
    }

    async fn observe(&self, scope: &Scope) -> Result<Vec<LiveInstance>> {
        self.read_scope(scope).await
    }

    async fn mounts(&self, name: &InstanceName) -> Result<BTreeSet<GuestPath>> {
        let (instance, _) = self
            .fetch(name)
            .await
            .map_err(|error| error.within(format_args!("cannot read `{name}`")))?;
        Ok(convert::mounted(&instance.expanded_devices))
    }

    async fn volumes(&self, environment: &EnvironmentName) -> Result<BTreeMap<VolumeKey, Option<String>>> {
        let found = self.all_volumes(environment).await;
        let found = found.map_err(|error| error.within("cannot list the volumes"))?;
        Ok(found.into_iter().map(|(key, stored)| (key, stored.size)).collect())
    }

    async fn host_mounts(&self) -> Result<BTreeMap<InstanceName, Vec<HostMount>>> {
        match self.client.is_local() {
            true => self.all_host_mounts().await,
            false => Ok(BTreeMap::new()),
        }
    }

    async fn taken_ports(&self, ports: &BTreeSet<(u16, Protocol)>) -> Result<BTreeMap<(u16, Protocol), String>> {
        Ok(match self.client.is_local() {
            true => attachable::taken(ports, attachable::Opens::ByDaemon),
            false => BTreeMap::new(),
        })
    }

    async fn find_image(&self, image: &str) -> Result<()> {
        self.image_source(image).await.map(drop)
    }
}

#[async_trait]
impl Backend for Incus {
    async fn create(&self, opts: &CreateOpts) -> Result<()> {
        self.create_from_image(opts)
            .await
            .map_err(|error| error.within(format_args!("cannot create `{}`", opts.name)))
    }

    async fn clone_from(&self, source: &InstanceName, label: Option<&str>, opts: &CreateOpts) -> Result<()> {
        self.create_from_copy(source, label, opts)
            .await
            .map_err(|error| error.within(format_args!("cannot clone `{source}` to `{}`", opts.name)))
    }

    async fn relabel(&self, name: &InstanceName, seen: &Labels, labels: &Labels) -> Result<()> {
        self.replace_labels(name, seen, labels)
            .await
            .map_err(|error| error.within(format_args!("cannot label `{name}`")))
    }

    async fn configure(&self, name: &InstanceName, changes: &Changes) -> Result<()> {
        self.change_settings(name, changes)
            .await
            .map_err(|error| error.within(format_args!("cannot configure `{name}`")))
    }

    async fn attach(&self, name: &InstanceName, changes: &Attach) -> Result<()> {
        self.change_attached(name, changes)
            .await
            .map_err(|error| error.within(format_args!("cannot attach to `{name}`")))
    }

    async fn delete_volume(&self, key: &VolumeKey) -> Result<()> {
        self.remove_volume(key)
            .await
            .map_err(|error| error.within(format_args!("cannot delete the volume `{}`", key.name)))
    }

    async fn start(&self, name: &InstanceName) -> Result<()> {
        self.power_on(name)
            .await
            .map_err(|error| error.within(format_args!("cannot start `{name}`")))
    }

    async fn stop(&self, name: &InstanceName, how: Stop) -> Result<()> {
        self.power_off(name, how)
            .await
            .map_err(|error| error.within(format_args!("cannot stop `{name}`")))
    }

    async fn delete(&self, name: &InstanceName) -> Result<()> {
        self.remove(name)
            .await
            .map_err(|error| with_way_out(error).within(format_args!("cannot delete `{name}`")))
    }

    async fn create_snapshot(&self, name: &InstanceName, label: &str) -> Result<()> {
        self.take_snapshot(name, label)
            .await
            .map_err(|error| error.within(format_args!("cannot take the snapshot `{label}` of `{name}`")))
    }

    async fn delete_snapshot(&self, name: &InstanceName, label: &str) -> Result<()> {
        self.drop_snapshot(name, label)
            .await
            .map_err(|error| error.within(format_args!("cannot delete the snapshot `{label}` of `{name}`")))
    }

    async fn restore_snapshot(&self, name: &InstanceName, label: &str) -> Result<()> {
        self.go_back(name, label)
            .await
            .map_err(|error| error.within(format_args!("cannot restore the snapshot `{label}` of `{name}`")))
    }

    async fn settle(&self, scope: &Scope) -> Result<()> {
        self.await_others(scope)
            .await
            .map_err(|error| error.within("cannot await what is under way"))
    }

    async fn close(&self) -> Result<()> {
        // Connections go with the last request; none is kept on a socket.
        Ok(())
    }
}

#[async_trait]
impl Exec for Incus {
    async fn run(&self, name: &InstanceName, opts: &ExecOpts, streams: Streams<'_>) -> Result<i32> {
        self.execute(name, opts, streams)
            .await
            .map_err(|error| error.within(format_args!("cannot run a command in `{name}`")))
    }

    async fn console(&self, name: &InstanceName, opts: &ConsoleOpts, terminal: Terminal<'_>) -> Result<i32> {
        self.session_at(name, opts, terminal)
            .await
            .map_err(|error| error.within(format_args!("cannot open a console in `{name}`")))
    }

    async fn ready(&self, name: &InstanceName, timeout: Duration) -> Result<()> {
        self.accepts_commands(name, timeout)
            .await
            .map_err(|error| error.within(format_args!("`{name}` does not get ready")))
    }
}

#[async_trait]
impl ReadFiles for Incus {
    async fn inspect(&self, name: &InstanceName, query: &Query) -> Result<Inspection> {
        self.inspect_files(name, query)
            .await
            .map_err(|error| error.within(format_args!("cannot look at the files of `{name}`")))
    }

    async fn read(&self, name: &InstanceName, path: &GuestPath, max_bytes: u64) -> Result<(Vec<u8>, bool)> {
        self.read_file(name, path, max_bytes)
            .await
            .map_err(|error| error.within(format_args!("cannot read `{path}` in `{name}`")))
    }

    async fn list_files(&self, name: &InstanceName, path: &GuestPath, recursive: bool) -> Result<Vec<FileEntry>> {
        self.list_folder(name, path, recursive)
            .await
            .map_err(|error| error.within(format_args!("cannot list `{path}` in `{name}`")))
    }
}

#[async_trait]
impl Files for Incus {
    async fn change_files(&self, name: &InstanceName, changes: &[FileChange]) -> Result<Vec<bool>> {
        self.write_files(name, changes)
            .await
            .map_err(|error| error.within(format_args!("cannot change the files of `{name}`")))
    }

    async fn write_stream(
        &self,
        name: &InstanceName,
        path: &GuestPath,
        content: &mut (dyn AsyncRead + Send + Unpin),
        mode: Mode,
        owner: Option<Owner>,
    ) -> Result<()> {
        self.write_from(name, path, content, mode, owner)
            .await
            .map_err(|error| error.within(format_args!("cannot write `{path}` in `{name}`")))
    }

    async fn delete_file(&self, name: &InstanceName, path: &GuestPath) -> Result<()> {
        let stood = self
            .change_files(name, &[FileChange::Remove { path: path.clone() }])
            .await?;
        match stood[..] {
            [true] => Ok(()),
            _ => Err(Error::not_found(format!("no `{path}` in `{name}`"))),
        }
    }
}
