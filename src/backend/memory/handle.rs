//! The handle: what a test sets up, asks and does behind the tool's back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::disk::Disk;
use super::image;
use super::machine::Machine;
use super::world::{World, no_instance};
use crate::backend::strict;
use crate::backend::{Error, ErrorKind, ExecOpts, Output, Result};
use crate::model::{Capabilities, Capability, HotPlug, InstanceName, Status};

/// The simulated backend. Clones are handles of the same one.
#[derive(Debug, Clone)]
pub struct Memory {
    capabilities: Arc<Capabilities>,
    latency: Duration,
    world: Arc<Mutex<World>>,
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl Memory {
    /// A backend without instances, which knows the images `debian/12` and `debian/13`: the same but for their names.
    #[must_use]
    pub fn new() -> Self {
        use Capability as Can;
        let able = BTreeSet::from([
            Can::Snapshots,
            Can::CloneFromDisk,
            Can::CloneFromSnapshot,
            Can::CpuLimit,
            Can::MemoryLimit,
            Can::MemoryShare,
            Can::DiskSize,
            Can::Files,
            Can::FilesWhenStopped,
            Can::Secrets,
            Can::Exec,
            Can::Users,
            Can::Owners,
            Can::Config,
            Can::Target,
            Can::Expiry,
            Can::EgressHost,
            Can::EgressNone,
            Can::Mounts,
            Can::Volumes,
            Can::VolumeSize,
            Can::Ports,
        ]);
        Self {
            capabilities: Arc::new(Capabilities {
                backend: "memory",
                able,
                concurrency: 4,
                restart_config: &["linux.", "security.syscalls.intercept."],
                egress_restarts: true,
                hot_plug: HotPlug {
                    mounts: true,
                    readonly_mounts: false,
                    volumes: true,
                    ports: true,
                },
                guards_folders: false,
                own_paths: Vec::new(),
                bounds: Default::default(),
                workspace_remarks: Vec::new(),
                remarks: Vec::new(),
                egress_remarks: Vec::new(),
                reasons: Vec::new(),
            }),
            latency: Duration::ZERO,
            world: Arc::default(),
        }
    }

    /// The same through a handle that can only this; what is not in it fails as unsupported.
    #[must_use]
    pub fn with_capabilities(mut self, capabilities: Capabilities) -> Self {
        self.capabilities = Arc::new(capabilities);
        self
    }

    /// The same through a handle whose operations take this long (by tokio's clock, which a test can pause).
    #[must_use]
    pub fn with_latency(mut self, latency: Duration) -> Self {
        self.latency = latency;
        self
    }

    /// The same with one more image: the base image and these files, 0644 and root's.
    #[must_use]
    pub fn with_image(self, name: &str, files: &[(&str, &str)]) -> Self {
        self.world().images.insert(name.to_owned(), image::with_files(files));
        self
    }

    /// The same as a cluster with one more member, in these groups.
    #[must_use]
    pub fn with_member(self, name: &str, groups: &[&str]) -> Self {
        let groups = groups.iter().map(|&group| group.to_owned()).collect();
        self.world().members.insert(name.to_owned(), groups);
        self
    }

    /// Answers commands from now on; what `hook` gives none for goes to the imitated shell. It may change the
    /// instance as the command would. It must not use a handle of this backend.
    pub fn on_exec(&self, hook: impl Fn(&mut Machine, &ExecOpts) -> Option<Output> + Send + Sync + 'static) {
        self.world().hook = Some(Arc::new(hook));
    }

    /// Every call that could change something of an instance, in the order in which they came, whether they
    /// succeeded or not: `create demo-base from image debian/12`, `write demo-base /etc/motd 0644 0:0`. No contents
    /// and no values, so no secrets; the text of commands is in it. Not the keeping of notes, which every apply does.
    #[must_use]
    pub fn journal(&self) -> Vec<String> {
        self.world().journal.clone()
    }

    /// The journal since it was last taken.
    #[must_use]
    pub fn take_journal(&self) -> Vec<String> {
        std::mem::take(&mut self.world().journal)
    }

    /// How often each method of the traits was called, reading ones included.
    #[must_use]
    pub fn calls(&self) -> BTreeMap<&'static str, usize> {
        self.world().calls.clone()
    }

    /// How many calls were made that read and change nothing.
    #[must_use]
    pub fn reads(&self) -> usize {
        const READING: [&str; 11] = [
            "describe",
            "find_image",
            "get",
            "inspect",
            "list",
            "list_files",
            "list_snapshots",
            "note",
            "observe",
            "read",
            "settle",
        ];
        let world = self.world();
        READING.iter().filter_map(|name| world.calls.get(name)).sum()
    }

    /// Sets the counter that stands for time, in seconds since 1970-01-01T00:00:00Z. It moves on by one with
    /// all that is made.
    pub fn set_time(&self, seconds: u64) {
        self.world().time = seconds;
    }

    /// An instance as it is now, its disk included.
    #[must_use]
    pub fn machine(&self, name: &str) -> Option<Machine> {
        self.world().machines.get(&InstanceName::observed(name)).cloned()
    }

    /// The names of all instances, ordered.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.world().machines.keys().map(ToString::to_string).collect()
    }

    /// Somebody with root changes an instance by hand. Not in the journal, and nothing is checked.
    ///
    /// # Errors
    /// When there is no such instance, and what `change` says.
    pub fn edit<T>(&self, name: &str, change: impl FnOnce(&mut Machine) -> Result<T>) -> Result<T> {
        change(self.world().machine_mut(&InstanceName::observed(name))?)
    }

    /// Somebody makes an instance by hand: running, from the base image, without labels.
    ///
    /// # Errors
    /// When the name is none, or taken.
    pub fn make_foreign(&self, name: &str) -> Result<()> {
        self.make_by_hand(name, image::base())
    }

    /// Somebody copies an instance by hand, as it is, labels and all; the copy is stopped.
    ///
    /// # Errors
    /// When there is no such source, or the name is none, or taken.
    pub fn copy_by_hand(&self, source: &str, name: &str) -> Result<()> {
        let source = self
            .machine(source)
            .ok_or_else(|| no_instance(&InstanceName::observed(source)))?;
        self.make_by_hand(name, source.root.clone())?;
        self.edit(name, |copy| {
            *copy = Machine {
                name: copy.name.clone(),
                status: Status::Stopped,
                address: copy.address,
                created_at: copy.created_at,
                ..source
            };
            Ok(())
        })
    }

    /// Somebody deletes an instance by hand.
    ///
    /// # Errors
    /// When there is none.
    pub fn delete_by_hand(&self, name: &str) -> Result<()> {
        let name = InstanceName::observed(name);
        let gone = self.world().machines.remove(&name);
        gone.map(drop).ok_or_else(|| no_instance(&name))
    }

    fn make_by_hand(&self, name: &str, root: Disk) -> Result<()> {
        strict::instance_name(name)?;
        let mut world = self.world();
        let name = InstanceName::observed(name);
        if world.machines.contains_key(&name) {
            return Err(Error::new(
                ErrorKind::AlreadyExists,
                format!("`{name}` is there already"),
            ));
        }
        let machine = Machine {
            name: name.clone(),
            status: Status::Running,
            created_at: world.tick(),
            address: world.next_address(),
            location: world.member(None)?,
            ..Machine::bare(root)
        };
        world.machines.insert(name, machine);
        Ok(())
    }

    pub(super) fn able(&self) -> &Capabilities {
        &self.capabilities
    }

    /// Refuses what this handle cannot do.
    pub(super) fn need(&self, capability: Capability) -> Result<()> {
        match self.capabilities.can(capability) {
            true => Ok(()),
            false => Err(Error::unsupported(format!(
                "this backend cannot do that: it lacks {capability:?}"
            ))),
        }
    }

    /// The shared state. Never held over an await.
    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        // What a panicking test leaves behind is still whole: no change of the state panics halfway.
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a call that reads.
    pub(super) fn count(&self, call: &'static str) {
        *self.world().calls.entry(call).or_default() += 1;
    }

    /// Counts a call that changes, and keeps it in the journal.
    pub(super) fn note(&self, call: &'static str, entries: impl IntoIterator<Item = String>) {
        let mut world = self.world();
        *world.calls.entry(call).or_default() += 1;
        world.journal.extend(entries);
    }

    /// What a request takes: at least one turn of the others.
    pub(super) async fn pause(&self) {
        if self.latency.is_zero() {
            tokio::task::yield_now().await;
        } else {
            tokio::time::sleep(self.latency).await;
        }
    }
}
