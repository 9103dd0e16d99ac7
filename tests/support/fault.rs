//! A backend on which one changing call goes wrong, always the same one.
//!
//! Calls that could change something are counted from 1 as they come. Reading ones are not, and fail only where
//! the process is dead.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use sbx_apply::backend::{
    Backend, Changes, ConsoleOpts, CreateOpts, Error, ErrorKind, Exec, ExecOpts, FileChange, FileEntry, Files,
    KeepNotes, NetworkPolicy, Observe, Output, ReadFiles, ReadNotes, ReadPolicy, Result, Sandboxes, Scope, Stop,
    Streams, Terminal,
};
use sbx_apply::model::{
    Attach, Capabilities, Content, EgressMode, EnvironmentName, GuestPath, HostMount, Inspection, Instance,
    InstanceName, Labels, LiveInstance, LivePolicy, LookInside, Mode, Note, NoteKey, Owner, PinnedPolicy, Protocol,
    Query, Snapshot, VolumeKey,
};
use tokio::io::AsyncRead;

/// How a call goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It fails, and has changed nothing.
    Before(ErrorKind),
    /// The connection drops within the call: of a batch, the first half is done; of all else, all of it.
    Within,
    /// It has changed everything that it should, and the answer is lost.
    After,
    /// The process dies before the call: nothing is changed by it or by any later one, and none is answered.
    DeathBefore,
    /// The process dies within the call: of a batch, the first half is done.
    DeathWithin,
    /// The process dies after the call, before it knows.
    DeathAfter,
}

/// A backend on which one call goes wrong.
#[derive(Debug)]
pub(crate) struct Faulty {
    inner: Arc<dyn Sandboxes>,
    /// Which call, from 1; 0 for none.
    at: usize,
    fault: Fault,
    changes: AtomicUsize,
    dead: AtomicBool,
}

impl Faulty {
    /// The `at`th changing call, from 1, goes wrong.
    pub(crate) fn new(inner: Arc<dyn Sandboxes>, at: usize, fault: Fault) -> Self {
        Self {
            inner,
            at,
            fault,
            changes: AtomicUsize::new(0),
            dead: AtomicBool::new(false),
        }
    }

    /// Nothing goes wrong; the calls are counted.
    pub(crate) fn counting(inner: Arc<dyn Sandboxes>) -> Self {
        Self::new(inner, 0, Fault::After)
    }

    /// How many changing calls were made.
    pub(crate) fn changes(&self) -> usize {
        self.changes.load(Ordering::SeqCst)
    }

    /// Whether the call that goes wrong has come.
    pub(crate) fn has_struck(&self) -> bool {
        self.at != 0 && self.changes() >= self.at
    }

    /// Counts a changing call and says what goes wrong with it.
    fn next(&self) -> Result<Option<Fault>> {
        self.alive()?;
        let number = self.changes.fetch_add(1, Ordering::SeqCst) + 1;
        Ok((number == self.at).then_some(self.fault))
    }

    fn alive(&self) -> Result<()> {
        match self.dead.load(Ordering::SeqCst) {
            true => Err(Error::new(ErrorKind::Unreachable, "injected: the process is dead")),
            false => Ok(()),
        }
    }

    fn die<T>(&self) -> Result<T> {
        self.dead.store(true, Ordering::SeqCst);
        Err(Error::new(ErrorKind::Unreachable, "injected: the process dies"))
    }

    async fn change<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        let fault = self.next()?;
        self.strike(fault, call).await
    }

    async fn strike<T>(&self, fault: Option<Fault>, call: impl Future<Output = Result<T>>) -> Result<T> {
        match fault {
            None => {
                let answer = call.await;
                // Whoever died meanwhile does not hear it.
                self.alive()?;
                answer
            }
            Some(Fault::Before(kind)) => Err(Error::new(kind, "injected: before it changed anything")),
            Some(Fault::After) => {
                call.await?;
                Err(Error::new(ErrorKind::Timeout, "injected: the answer is lost"))
            }
            Some(Fault::Within) => {
                call.await?;
                Err(Error::new(ErrorKind::Unreachable, "injected: the connection is lost"))
            }
            Some(Fault::DeathBefore) => self.die(),
            Some(Fault::DeathWithin | Fault::DeathAfter) => {
                // The daemon finishes what it was asked.
                let _ = call.await;
                self.die()
            }
        }
    }

    async fn read_only<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        self.alive()?;
        let answer = call.await;
        self.alive()?;
        answer
    }
}

#[async_trait]
impl Observe for Faulty {
    fn capabilities(&self) -> &Capabilities {
        self.inner.capabilities()
    }

    async fn describe(&self) -> Result<String> {
        self.read_only(self.inner.describe()).await
    }

    async fn get(&self, name: &InstanceName) -> Result<Instance> {
        self.read_only(self.inner.get(name)).await
    }

    async fn list(&self) -> Result<Vec<Instance>> {
        self.read_only(self.inner.list()).await
    }

    async fn list_snapshots(&self, name: &InstanceName) -> Result<Vec<Snapshot>> {
        self.read_only(self.inner.list_snapshots(name)).await
    }

    async fn observe(&self, scope: &Scope) -> Result<Vec<LiveInstance>> {
        self.read_only(self.inner.observe(scope)).await
    }

    async fn mounts(&self, name: &InstanceName) -> Result<BTreeSet<GuestPath>> {
        self.read_only(self.inner.mounts(name)).await
    }

    async fn volumes(&self, environment: &EnvironmentName) -> Result<BTreeMap<VolumeKey, Option<String>>> {
        self.read_only(self.inner.volumes(environment)).await
    }

    async fn host_mounts(&self) -> Result<BTreeMap<InstanceName, Vec<HostMount>>> {
        self.read_only(self.inner.host_mounts()).await
    }

    async fn taken_ports(&self, ports: &BTreeSet<(u16, Protocol)>) -> Result<BTreeMap<(u16, Protocol), String>> {
        self.read_only(self.inner.taken_ports(ports)).await
    }

    async fn find_image(&self, image: &str) -> Result<()> {
        self.read_only(self.inner.find_image(image)).await
    }
}

#[async_trait]
impl ReadFiles for Faulty {
    async fn inspect(&self, name: &InstanceName, query: &Query) -> Result<Inspection> {
        self.read_only(self.inner.inspect(name, query)).await
    }

    async fn read(&self, name: &InstanceName, path: &GuestPath, max_bytes: u64) -> Result<(Vec<u8>, bool)> {
        self.read_only(self.inner.read(name, path, max_bytes)).await
    }

    async fn list_files(&self, name: &InstanceName, path: &GuestPath, recursive: bool) -> Result<Vec<FileEntry>> {
        self.read_only(self.inner.list_files(name, path, recursive)).await
    }
}

#[async_trait]
impl ReadPolicy for Faulty {
    async fn get_policy(&self, name: &InstanceName) -> Result<Option<LivePolicy>> {
        self.read_only(self.inner.get_policy(name)).await
    }

    async fn look_inside(&self, name: &InstanceName) -> Result<LookInside> {
        self.read_only(self.inner.look_inside(name)).await
    }
}

#[async_trait]
impl Backend for Faulty {
    async fn create(&self, opts: &CreateOpts) -> Result<()> {
        self.change(self.inner.create(opts)).await
    }

    async fn clone_from(&self, source: &InstanceName, label: Option<&str>, opts: &CreateOpts) -> Result<()> {
        self.change(Backend::clone_from(&*self.inner, source, label, opts))
            .await
    }

    async fn configure(&self, name: &InstanceName, changes: &Changes) -> Result<()> {
        self.change(self.inner.configure(name, changes)).await
    }

    async fn relabel(&self, name: &InstanceName, seen: &Labels, labels: &Labels) -> Result<()> {
        self.change(self.inner.relabel(name, seen, labels)).await
    }

    async fn attach(&self, name: &InstanceName, changes: &Attach) -> Result<()> {
        self.change(self.inner.attach(name, changes)).await
    }

    async fn delete_volume(&self, key: &VolumeKey) -> Result<()> {
        self.change(self.inner.delete_volume(key)).await
    }

    async fn start(&self, name: &InstanceName) -> Result<()> {
        self.change(self.inner.start(name)).await
    }

    async fn stop(&self, name: &InstanceName, how: Stop) -> Result<()> {
        self.change(self.inner.stop(name, how)).await
    }

    async fn delete(&self, name: &InstanceName) -> Result<()> {
        self.change(self.inner.delete(name)).await
    }

    async fn create_snapshot(&self, name: &InstanceName, label: &str) -> Result<()> {
        self.change(self.inner.create_snapshot(name, label)).await
    }

    async fn delete_snapshot(&self, name: &InstanceName, label: &str) -> Result<()> {
        self.change(self.inner.delete_snapshot(name, label)).await
    }

    async fn restore_snapshot(&self, name: &InstanceName, label: &str) -> Result<()> {
        self.change(self.inner.restore_snapshot(name, label)).await
    }

    async fn settle(&self, scope: &Scope) -> Result<()> {
        self.read_only(self.inner.settle(scope)).await
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
}

#[async_trait]
impl Exec for Faulty {
    async fn run(&self, name: &InstanceName, opts: &ExecOpts, streams: Streams<'_>) -> Result<i32> {
        self.change(self.inner.run(name, opts, streams)).await
    }

    async fn output(&self, name: &InstanceName, opts: &ExecOpts) -> Result<Output> {
        self.change(self.inner.output(name, opts)).await
    }

    async fn console(&self, name: &InstanceName, opts: &ConsoleOpts, terminal: Terminal<'_>) -> Result<i32> {
        self.change(self.inner.console(name, opts, terminal)).await
    }

    async fn ready(&self, name: &InstanceName, timeout: Duration) -> Result<()> {
        self.read_only(self.inner.ready(name, timeout)).await
    }
}

#[async_trait]
impl Files for Faulty {
    async fn change_files(&self, name: &InstanceName, changes: &[FileChange]) -> Result<Vec<bool>> {
        let fault = self.next()?;
        let until = match fault {
            Some(Fault::Within | Fault::DeathWithin) => changes.len() / 2,
            _ => changes.len(),
        };
        self.strike(fault, self.inner.change_files(name, &changes[..until]))
            .await
    }

    async fn write_stream(
        &self,
        name: &InstanceName,
        path: &GuestPath,
        content: &mut (dyn AsyncRead + Send + Unpin),
        mode: Mode,
        owner: Option<Owner>,
    ) -> Result<()> {
        self.change(self.inner.write_stream(name, path, content, mode, owner))
            .await
    }

    async fn write(
        &self,
        name: &InstanceName,
        path: &GuestPath,
        content: Content,
        mode: Mode,
        owner: Option<Owner>,
    ) -> Result<()> {
        self.change(self.inner.write(name, path, content, mode, owner)).await
    }

    async fn delete_file(&self, name: &InstanceName, path: &GuestPath) -> Result<()> {
        self.change(self.inner.delete_file(name, path)).await
    }
}

#[async_trait]
impl ReadNotes for Faulty {
    async fn note(&self, environment: &EnvironmentName, key: NoteKey) -> Result<Option<Note>> {
        self.read_only(self.inner.note(environment, key)).await
    }

    async fn notes(&self, key: NoteKey) -> Result<BTreeMap<EnvironmentName, Note>> {
        self.read_only(self.inner.notes(key)).await
    }
}

#[async_trait]
impl KeepNotes for Faulty {
    async fn create_note(&self, environment: &EnvironmentName, key: NoteKey, note: &Note) -> Result<()> {
        self.change(self.inner.create_note(environment, key, note)).await
    }

    async fn replace_note(&self, environment: &EnvironmentName, key: NoteKey, old: &Note, new: &Note) -> Result<()> {
        self.change(self.inner.replace_note(environment, key, old, new)).await
    }

    async fn take_over_note(&self, environment: &EnvironmentName, key: NoteKey, old: &Note, new: &Note) -> Result<()> {
        self.change(self.inner.take_over_note(environment, key, old, new)).await
    }

    async fn delete_note(&self, environment: &EnvironmentName, key: NoteKey, old: &Note) -> Result<()> {
        self.change(self.inner.delete_note(environment, key, old)).await
    }

    async fn delete_notes(&self, environment: &EnvironmentName) -> Result<()> {
        self.change(self.inner.delete_notes(environment)).await
    }
}

#[async_trait]
impl NetworkPolicy for Faulty {
    async fn set_policy(&self, name: &InstanceName, policy: Option<&PinnedPolicy>) -> Result<()> {
        self.change(self.inner.set_policy(name, policy)).await
    }

    async fn tidy(&self, environment: &EnvironmentName) -> Result<()> {
        self.change(self.inner.tidy(environment)).await
    }

    async fn set_egress_mode(&self, name: &InstanceName, mode: EgressMode) -> Result<()> {
        self.change(self.inner.set_egress_mode(name, mode)).await
    }

    async fn allow_domain(&self, name: &InstanceName, domain: &str) -> Result<()> {
        self.change(self.inner.allow_domain(name, domain)).await
    }

    async fn deny_domain(&self, name: &InstanceName, domain: &str) -> Result<()> {
        self.change(self.inner.deny_domain(name, domain)).await
    }
}

mod tests {
    use sbx_apply::backend::memory::Memory;

    use super::*;

    /// Two starts and a look in between, on an instance made by hand; gives how each ended, and what ran then.
    async fn outcome(at: usize, fault: Fault) -> (Vec<Option<ErrorKind>>, bool) {
        let memory = Memory::new();
        memory.make_foreign("one").expect("makes");
        let name = InstanceName::observed("one");
        let faulty = Faulty::new(Arc::new(memory.clone()), at, fault);
        let kind = |result: Result<()>| result.err().map(|error| error.kind());
        let kinds = vec![
            kind(faulty.stop(&name, Stop::Force).await),
            kind(faulty.get(&name).await.map(drop)),
            kind(faulty.create_snapshot(&name, "after").await),
        ];
        assert_eq!(faulty.has_struck(), faulty.changes() >= at);
        let machine = memory.machine("one").expect("is there");
        (kinds, machine.status == sbx_apply::model::Status::Running)
    }

    #[tokio::test]
    async fn a_fault_before_changes_nothing_and_passes() {
        let busy = Fault::Before(ErrorKind::Busy);
        assert_eq!(outcome(1, busy).await, (vec![Some(ErrorKind::Busy), None, None], true));
        assert_eq!(outcome(2, busy).await, (vec![None, None, Some(ErrorKind::Busy)], false));
        assert_eq!(outcome(3, busy).await, (vec![None, None, None], false));
    }

    #[tokio::test]
    async fn a_fault_after_has_taken_effect() {
        let lost = (vec![Some(ErrorKind::Timeout), None, None], false);
        assert_eq!(outcome(1, Fault::After).await, lost);
    }

    #[tokio::test]
    async fn the_dead_do_nothing_any_more() {
        let all = vec![Some(ErrorKind::Unreachable); 3];
        assert_eq!(outcome(1, Fault::DeathBefore).await, (all.clone(), true));
        assert_eq!(outcome(1, Fault::DeathAfter).await, (all, false));
    }

    #[tokio::test]
    async fn what_ends_within_leaves_half_a_batch() {
        for fault in [Fault::Within, Fault::DeathWithin] {
            leaves_half_a_batch(fault).await;
        }
    }

    async fn leaves_half_a_batch(fault: Fault) {
        let memory = Memory::new();
        memory.make_foreign("one").expect("makes");
        let name = InstanceName::observed("one");
        let files = ["/a", "/b", "/c"].map(|path| FileChange::Directory {
            path: GuestPath::new(path).expect("a path"),
            mode: Mode::DIRECTORY,
            owner: Owner::ROOT,
        });
        let faulty = Faulty::new(Arc::new(memory.clone()), 1, fault);
        assert!(faulty.change_files(&name, &files).await.is_err());
        assert_eq!(faulty.get(&name).await.is_ok(), fault == Fault::Within);
        let machine = memory.machine("one").expect("is there");
        assert_eq!(
            ["/a", "/b", "/c"].map(|path| machine.found(path).is_some()),
            [true, false, false]
        );
    }

    #[tokio::test]
    async fn counting_changes_nothing_else() {
        let memory = Memory::new();
        memory.make_foreign("one").expect("makes");
        let name = InstanceName::observed("one");
        let faulty = Faulty::counting(Arc::new(memory));
        faulty.get(&name).await.expect("is there");
        faulty.start(&name).await.expect("starts");
        assert_eq!((faulty.changes(), faulty.has_struck()), (1, false));
    }
}
