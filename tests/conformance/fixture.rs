//! What a check is given: a backend, and what it needs to know to use it.

use std::any::Any;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt as _;
use sbx_apply::backend::memory::Memory;
use sbx_apply::backend::{
    Account, Backend, CreateOpts, Error, ErrorKind, ExecOpts, FileChange, Output, Result, Sandboxes, Stop,
};
use sbx_apply::model::{
    Capability, Content, EnvironmentName, Found, GuestPath, Inspection, InstanceName, LiveInstance, Mode, Owner, Query,
    Status,
};

use super::table;
use crate::support::{daemon, namespaces};
use crate::truenas::shared as simulated;
use crate::truenas::sim::{Dialect, Sim};

/// The unprivileged account's ids.
pub(crate) const USER: Owner = Owner { uid: 1000, gid: 1000 };

/// A backend to check.
#[derive(Debug)]
pub(crate) struct Fixture {
    /// The backend.
    pub(crate) backend: Arc<dyn Sandboxes>,
    /// An image with a shell and the account [`Fixture::account`].
    pub(crate) image: &'static str,
    /// Whether commands really run. Where they do not, some checks say that they cannot be made.
    pub(crate) real_exec: bool,
    /// Its column in the table of outcomes; none where it is none of the product's.
    column: Option<&'static str>,
    /// What the check asked for and the backend lacks.
    lacks: Mutex<BTreeSet<Capability>>,
    /// Why nothing of the check was tried, in a word.
    untried: Mutex<Option<&'static str>>,
    /// What the names of this check's instances start with; also the name of its environment.
    prefix: String,
    /// What the backend needs for as long as it is used.
    _held: Option<Arc<dyn Any + Send + Sync>>,
}

/// Simulated, and always there.
pub(crate) async fn memory() -> Option<Fixture> {
    let memory = Memory::new().with_image("busybox", &[("/home/user/.profile", "")]);
    Some(Fixture::new(Arc::new(memory), "busybox", false))
}

/// The real daemon, where the tests may use one.
pub(crate) async fn incus() -> Option<Fixture> {
    let daemon = daemon::find()?;
    let backend = daemon::open(&daemon).await?;
    Some(Fixture::new(backend, "busybox", true).in_column("incus"))
}

/// Sandboxes of this machine, where it can make them.
pub(crate) async fn local() -> Option<Fixture> {
    let (backend, image) = namespaces::open()?;
    Some(Fixture::new(backend, image, true).in_column("local"))
}

/// A simulated TrueNAS 25.04, whose containers are real, where there is a daemon for them.
pub(crate) async fn truenas_25_04() -> Option<Fixture> {
    truenas(Dialect::V25_04).await
}

/// The same of 25.10.
pub(crate) async fn truenas_25_10() -> Option<Fixture> {
    truenas(Dialect::V25_10).await
}

/// The same of 26.
pub(crate) async fn truenas_26() -> Option<Fixture> {
    truenas(Dialect::V26).await
}

async fn truenas(dialect: Dialect) -> Option<Fixture> {
    if !Sim::has_containers().await {
        return None;
    }
    let (sim, backend) = simulated::open(dialect).await;
    let column = match dialect {
        Dialect::V25_04 => "truenas 25.04",
        Dialect::V25_10 => "truenas 25.10",
        Dialect::V26 => "truenas 26",
    };
    let mut fixture = Fixture::new(backend, simulated::IMAGE, true).in_column(column);
    fixture._held = Some(sim);
    Some(fixture)
}

/// Makes one check, and deletes its instances afterwards, whether it held or not.
pub(crate) async fn run(fixture: Option<Fixture>, check: impl AsyncFnOnce(&Fixture)) {
    made(fixture, None, check).await;
}

/// The same for a check of the suite, by its room and its name: how it ended stands in the table.
pub(super) async fn run_listed(
    fixture: Option<Fixture>,
    listed: (&'static str, &'static str),
    check: impl AsyncFnOnce(&Fixture),
) {
    made(fixture, Some(listed), check).await;
}

async fn made(
    fixture: Option<Fixture>,
    listed: Option<(&'static str, &'static str)>,
    check: impl AsyncFnOnce(&Fixture),
) {
    let Some(fixture) = fixture else { return };
    let outcome = AssertUnwindSafe(check(&fixture)).catch_unwind().await;
    let recorded = match (fixture.column, listed) {
        (Some(column), Some((room, name))) => table::record(column, room, name, &fixture.outcome(outcome.is_ok())),
        _ => Ok(()),
    };
    fixture.clean().await;
    if let Err(panic) = outcome {
        resume_unwind(panic);
    }
    recorded.expect("the table is true");
}

impl Fixture {
    fn new(backend: Arc<dyn Sandboxes>, image: &'static str, real_exec: bool) -> Self {
        static CHECKS: AtomicUsize = AtomicUsize::new(0);
        let prefix = format!("c{}-{}", std::process::id(), CHECKS.fetch_add(1, Ordering::Relaxed));
        Self {
            backend,
            image,
            real_exec,
            column: None,
            lacks: Mutex::default(),
            untried: Mutex::default(),
            prefix,
            _held: None,
        }
    }

    fn in_column(mut self, column: &'static str) -> Self {
        self.column = Some(column);
        self
    }

    /// Whether the backend can. What it lacks is told with the outcome.
    pub(crate) fn able(&self, capability: Capability) -> bool {
        let able = self.can(capability);
        if !able {
            self.lacks.lock().expect("no panic").insert(capability);
        }
        able
    }

    /// The same where the check is whole without it.
    pub(crate) fn can(&self, capability: Capability) -> bool {
        self.backend.capabilities().can(capability)
    }

    /// Says that nothing of the check can be tried here, and why.
    pub(crate) fn unsupported(&self, why: &str) {
        *self.untried.lock().expect("no panic") = Some("unsupported");
        daemon::skipped(why);
    }

    /// Says that the check is for backends that lack what this one has.
    pub(crate) fn not_applicable(&self, why: &str) {
        *self.untried.lock().expect("no panic") = Some("not applicable");
        daemon::skipped(why);
    }

    /// How the check ended, in a word, and without what.
    fn outcome(&self, held: bool) -> String {
        let lacks = self.lacks.lock().expect("no panic");
        let lacks: Vec<&str> = lacks.iter().map(|capability| capability.as_str()).collect();
        match (held, *self.untried.lock().expect("no panic")) {
            (false, _) => "fail".to_owned(),
            (true, Some(word)) => word.to_owned(),
            (true, None) if lacks.is_empty() => "pass".to_owned(),
            (true, None) => format!("pass without {}", lacks.join(", ")),
        }
    }

    /// The name of one of the check's instances.
    pub(crate) fn name(&self, name: &str) -> InstanceName {
        InstanceName::observed(format!("{}-{name}", self.prefix))
    }

    /// The check's own environment.
    pub(crate) fn environment(&self) -> EnvironmentName {
        EnvironmentName::new(self.prefix.clone()).expect("a prefix is a name")
    }

    /// One more environment, whose name begins with the other's.
    pub(crate) fn other_environment(&self) -> EnvironmentName {
        EnvironmentName::new(format!("{}-x", self.prefix)).expect("a prefix is a name")
    }

    /// Somebody who may own files: the unprivileged account, where the backend can give anything to others than root.
    pub(crate) fn user(&self) -> Owner {
        match self.can(Capability::Owners) {
            true => USER,
            false => Owner::ROOT,
        }
    }

    /// The unprivileged account of the image.
    pub(crate) fn account(&self) -> Account {
        Account {
            owner: USER,
            home: "/home/user".to_owned(),
            name: "user".to_owned(),
        }
    }

    /// A bare instance from the image, with nothing declared.
    pub(crate) fn opts(&self, name: &str) -> CreateOpts {
        CreateOpts {
            name: self.name(name).to_string(),
            image: Some(self.image.to_owned()),
            bare: true,
            ..CreateOpts::default()
        }
    }

    /// Makes a stopped instance.
    pub(crate) async fn stopped(&self, name: &str) -> InstanceName {
        self.backend.create(&self.opts(name)).await.expect("creates");
        self.name(name)
    }

    /// Makes an instance that takes files: a stopped one, where the backend reaches those.
    pub(crate) async fn with_files(&self, name: &str) -> InstanceName {
        match self.can(Capability::FilesWhenStopped) {
            true => self.stopped(name).await,
            false => self.running(name).await,
        }
    }

    /// Does something with the files of an instance that may be stopped. Where the backend reaches running ones only, it
    /// runs meanwhile.
    async fn reaching<T>(&self, name: &InstanceName, what: impl Future<Output = T>) -> T {
        let reaches = self.can(Capability::FilesWhenStopped)
            || self.backend.get(name).await.expect("is there").status == Status::Running;
        if reaches {
            return what.await;
        }
        self.backend.start(name).await.expect("starts");
        self.ready(name).await;
        let done = what.await;
        self.backend.stop(name, Stop::Force).await.expect("stops");
        done
    }

    /// Makes a running instance that takes commands.
    pub(crate) async fn running(&self, name: &str) -> InstanceName {
        let name = self.stopped(name).await;
        self.backend.start(&name).await.expect("starts");
        self.ready(&name).await;
        name
    }

    /// Clones. On an `Arc`, the method would be that of `Clone`.
    pub(crate) async fn clone_from(&self, source: &InstanceName, label: Option<&str>, opts: &CreateOpts) -> Result<()> {
        Backend::clone_from(&*self.backend, source, label, opts).await
    }

    /// Waits until an instance takes commands.
    pub(crate) async fn ready(&self, name: &InstanceName) {
        let ready = self.backend.ready(name, Duration::from_secs(60)).await;
        ready.expect("takes commands");
    }

    /// One instance as an observation tells it, found by its name.
    pub(crate) async fn observed(&self, name: &InstanceName) -> LiveInstance {
        let scope = sbx_apply::backend::Scope {
            environment: Some(self.environment()),
            names: [name.clone()].into(),
        };
        let all = self.backend.observe(&scope).await.expect("observes");
        all.into_iter().find(|live| live.name == *name).expect("is observed")
    }

    /// Changes files.
    pub(crate) async fn change(&self, name: &InstanceName, changes: &[FileChange]) -> Vec<bool> {
        let changed = self.reaching(name, self.backend.change_files(name, changes)).await;
        changed.expect("changes files")
    }

    /// What stands at one path, its content along.
    pub(crate) async fn found(&self, name: &InstanceName, at: &str) -> Option<Found> {
        self.look(name, &[at]).await.0.remove(&path(at))
    }

    /// What stands at some paths.
    pub(crate) async fn look(&self, name: &InstanceName, paths: &[&str]) -> Inspection {
        let query = Query {
            paths: paths.iter().copied().map(path).collect(),
            ..Query::default()
        };
        let found = self.reaching(name, self.backend.inspect(name, &query)).await;
        found.expect("inspects")
    }

    /// A file's text.
    pub(crate) async fn text(&self, name: &InstanceName, at: &str) -> String {
        let at_path = path(at);
        let read = self.reaching(name, self.backend.read(name, &at_path, 1 << 20)).await;
        let (bytes, truncated) = read.expect("reads");
        assert!(!truncated, "{at} is long");
        String::from_utf8(bytes).expect("text")
    }

    /// What a shell says to a script, run by root.
    pub(crate) async fn shell(&self, name: &InstanceName, script: &str) -> Output {
        self.backend.output(name, &shell(script)).await.expect("runs")
    }

    async fn clean(&self) {
        let prefix = format!("{}-", self.prefix);
        let all = self.backend.list().await.expect("lists what is to be deleted");
        for instance in all
            .iter()
            .filter(|instance| instance.name.as_str().starts_with(&prefix))
        {
            self.backend.delete(&instance.name).await.expect("cleans up");
        }
        for environment in [self.environment(), self.other_environment()] {
            self.backend
                .delete_notes(&environment)
                .await
                .expect("deletes its notes");
        }
        self.backend.close().await.expect("closes");
    }
}

/// A path.
pub(crate) fn path(text: &str) -> GuestPath {
    GuestPath::new(text).expect("a path")
}

/// A mode.
pub(crate) fn mode(bits: u32) -> Mode {
    Mode::of_bits(bits)
}

/// A file of root's, 0644.
pub(crate) fn file(at: &str, content: impl AsRef<[u8]>) -> FileChange {
    file_as(at, content, 0o644, Owner::ROOT)
}

/// A file.
pub(crate) fn file_as(at: &str, content: impl AsRef<[u8]>, bits: u32, owner: Owner) -> FileChange {
    FileChange::Write {
        path: path(at),
        content: Content::inline(content.as_ref()),
        mode: mode(bits),
        owner: Some(owner),
    }
}

/// A folder.
pub(crate) fn folder(at: &str, bits: u32, owner: Owner) -> FileChange {
    FileChange::Directory {
        path: path(at),
        mode: mode(bits),
        owner,
    }
}

/// A symbolic link of root's.
pub(crate) fn link(at: &str, target: &str) -> FileChange {
    FileChange::Symlink {
        path: path(at),
        target: target.to_owned(),
        owner: Owner::ROOT,
    }
}

/// Nothing.
pub(crate) fn nothing(at: &str) -> FileChange {
    FileChange::Remove { path: path(at) }
}

/// A script for `/bin/sh -ec`, run by root.
pub(crate) fn shell(script: &str) -> ExecOpts {
    ExecOpts {
        command: vec!["/bin/sh".to_owned(), "-ec".to_owned(), script.to_owned()],
        account: Account::root(),
        env: [].into(),
        timeout: Some(Duration::from_secs(60)),
    }
}

/// Asserts that a call failed, and how.
#[track_caller]
pub(crate) fn fails<T>(result: Result<T>, kind: ErrorKind) -> Error {
    match result {
        Ok(_) => panic!("expected {kind:?}, and it worked"),
        Err(error) => {
            assert_eq!(error.kind(), kind, "{error}");
            error
        }
    }
}
