//! The backend itself: what it is made of, and the traits it answers.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::AsyncRead;
use tokio::sync::Mutex;

use super::client::Client;
use super::dialect::{Dialect, Places, Version};
use super::ssh::Doors;
use crate::backend::{
    Backend, Changes, ConsoleOpts, CreateOpts, Error, Exec, ExecOpts, FileChange, FileEntry, Files, Observe, ReadFiles,
    Result, Scope, Stop, Streams, Terminal,
};
use crate::model::{
    Bounds, Capabilities, Capability, GuestPath, HotPlug, Inspection, Instance, InstanceName, Labels, LiveInstance,
    Mode, Owner, Query, Snapshot,
};

/// How many operations at once: the system makes and starts instances one after the other where they share a disk, and
/// answers ten calls at once.
const CONCURRENCY: usize = 4;

/// One TrueNAS system.
pub struct TrueNas {
    pub(super) client: Arc<Client>,
    pub(super) dialect: Box<dyn Dialect>,
    pub(super) version: Version,
    pub(super) capabilities: Capabilities,
    /// Connections into sandboxes.
    pub(super) doors: Doors,
    /// The port of sandboxes' SSH servers.
    pub(super) ssh_port: u16,
    /// Held while an instance is read and written again: the system knows no versions of one.
    pub(super) changing: Mutex<()>,
}

impl fmt::Debug for TrueNas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrueNas")
            .field("client", &self.client)
            .field("version", &self.version.text)
            .finish_non_exhaustive()
    }
}

impl TrueNas {
    /// Asks the system for its version, and puts together what fits it.
    pub(super) async fn meet(client: Client, places: Places, doors: Doors, ssh_port: u16) -> Result<Self> {
        let client = Arc::new(client);
        let version = Version::ask(&client).await?;
        let dialect = version.dialect(client.clone(), places)?;
        Ok(Self {
            client,
            capabilities: capabilities(dialect.unable(), dialect.bounds()),
            dialect,
            version,
            doors,
            ssh_port,
            changing: Mutex::default(),
        })
    }

    /// Calls sent so far, logging in aside.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.client.requests()
    }
}

fn capabilities(unable: Vec<(Capability, String)>, bounds: Bounds) -> Capabilities {
    let lacks = |capability: &Capability| unable.iter().any(|(lacking, _)| lacking == capability);
    Capabilities {
        backend: "truenas",
        able: Capability::ALL
            .into_iter()
            .filter(|capability| !lacks(capability))
            .collect(),
        concurrency: CONCURRENCY,
        reasons: unable,
        restart_config: &[],
        egress_restarts: false,
        hot_plug: HotPlug {
            mounts: false,
            readonly_mounts: false,
            volumes: false,
            ports: false,
        },
        guards_folders: false,
        own_paths: Vec::new(),
        bounds,
        workspace_remarks: Vec::new(),
        remarks: Vec::new(),
        egress_remarks: Vec::new(),
    }
}

#[async_trait]
impl Observe for TrueNas {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn describe(&self) -> Result<String> {
        Ok(format!("TrueNAS {} at {}", self.version.text, self.client.address()))
    }

    async fn get(&self, name: &InstanceName) -> Result<Instance> {
        self.read_instance(name)
            .await
            .map_err(|error| error.within(format_args!("cannot read `{name}`")))
    }

    async fn list(&self) -> Result<Vec<Instance>> {
        self.read_instances().await
    }

    async fn list_snapshots(&self, name: &InstanceName) -> Result<Vec<Snapshot>> {
        self.read_snapshots(name)
            .await
            .map_err(|error| error.within(format_args!("cannot list the snapshots of `{name}`")))
    }

    async fn observe(&self, scope: &Scope) -> Result<Vec<LiveInstance>> {
        self.read_scope(scope).await
    }

    async fn mounts(&self, name: &InstanceName) -> Result<BTreeSet<GuestPath>> {
        let mounts = async { self.dialect.mounted(&self.machine(name).await?).await };
        mounts
            .await
            .map_err(|error| error.within(format_args!("cannot read `{name}`")))
    }

    async fn find_image(&self, image: &str) -> Result<()> {
        self.dialect.find_image(image).await
    }
}

#[async_trait]
impl Backend for TrueNas {
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
            .map_err(|error| error.within(format_args!("cannot delete `{name}`")))
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
        self.doors.shut_all().await;
        self.client.close().await;
        Ok(())
    }
}

#[async_trait]
impl Exec for TrueNas {
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
impl ReadFiles for TrueNas {
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
impl Files for TrueNas {
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
