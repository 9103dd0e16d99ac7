//! One step carried out: a short match on its work.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::output::{Lines, Tail};
use super::progress::Progress;
use super::{Interrupt, StepError, Stream, secrets};
use crate::backend::{Account, Changes, Error, ErrorKind, ExecOpts, FileChange, Sandboxes, Stop, Streams, may_change};
use crate::model::{
    Content, Desired, Destination, Field, GuestPath, InstanceName, Kind, Mask, Mode, Owner, PinnedPolicy, Query, Ready,
    Run, SandboxName, Script, Seconds, Shape, User,
};
use crate::plan::{self, Op, Step, pinned_fact};

/// How long a sandbox may take to shut down before it is ended.
const SHUTDOWN: Duration = Duration::from_secs(30);

/// How long a sandbox without a `ready` of its own may take until commands run in it.
const READY: Seconds = Seconds(60);

/// How long a sandbox that has been started may take until it has an address, and how often it is looked for.
const ADDRESS: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(100);

/// The most bytes that a file of accounts may have.
const ACCOUNTS: u64 = 4 << 20;

/// What carrying out a step needs.
#[derive(Clone, Copy)]
pub(super) struct Site<'a> {
    pub(super) backend: &'a dyn Sandboxes,
    pub(super) desired: Option<&'a Desired>,
    pub(super) progress: &'a Progress,
    pub(super) interrupt: &'a watch::Receiver<Interrupt>,
}

type NewFacts = Vec<(Field, Option<String>)>;

impl Site<'_> {
    /// Carries out one step and writes down what has to be written down at once.
    pub(super) async fn perform(
        &self,
        step: &Step,
        output: UnboundedSender<(Stream, String)>,
    ) -> Result<(), StepError> {
        let name = &step.instance;
        let mut more = NewFacts::new();
        match &step.op {
            Op::Delete => self.delete(name).await?,
            Op::Create(opts) => self.changing().await?.create(opts).await?,
            Op::Clone { source, snapshot, opts } => {
                self.changing()
                    .await?
                    .clone_from(source, snapshot.as_ref().map(|name| name.as_str()), opts)
                    .await?;
            }
            Op::Configure(changes) => self.configure(step, changes).await?,
            Op::Account(user) => self.account(name, user).await?,
            Op::Files {
                unseen,
                changes,
                secrets,
            } => {
                let mut changes = Cow::Borrowed(changes.as_slice());
                if !secrets.is_empty() {
                    changes.to_mut().extend(secrets::writes(self.desired, secrets)?);
                }
                more = self.files(step, unseen, &changes).await?;
            }
            Op::Attach(changes) => self.changing().await?.attach(name, changes).await?,
            Op::DeleteVolume(key) => self.changing().await?.delete_volume(key).await?,
            Op::Egress(policy) => self.changing().await?.set_policy(name, policy.as_ref()).await?,
            Op::Peers { policy, instances } => more = self.open_to(name, policy, instances).await?,
            Op::Start => self.changing().await?.start(name).await?,
            Op::Ready(ready) => self.ready(name, ready.as_ref()).await?,
            Op::Run(run) => self.run(step, run, output).await?,
            Op::Stop => self.changing().await?.stop(name, Stop::Clean(SHUTDOWN)).await?,
            Op::DeleteSnapshot(label) => self.changing().await?.delete_snapshot(name, label).await?,
            Op::Snapshot(label) => self.changing().await?.create_snapshot(name, label.as_str()).await?,
            Op::Record => self.record(step, true).await?,
        }
        self.progress.take_in(step, more);
        if matches!(step.op, Op::Run(_)) {
            // Once done it must not run again, whatever fails after it.
            self.record(step, false).await?;
        }
        Ok(())
    }

    /// After a failure or an interrupt: writes down what is true so far, so that nothing that we did looks like
    /// somebody else's doing. That this can fail too is no news: the backend may be what has failed.
    pub(super) async fn write_down(&self, sandbox: &SandboxName, instance: &InstanceName) {
        let labels = self.progress.labels_so_far(sandbox);
        if *self.interrupt.borrow() >= Interrupt::Lost || may_change().await.is_err() {
            return;
        }
        if !labels.is_empty() {
            let changes = Changes {
                labels: labels.clone(),
                ..Changes::default()
            };
            if self.backend.configure(instance, &changes).await.is_ok() {
                self.progress.wrote(sandbox, &labels);
            }
        }
    }

    /// Puts a policy in force with the addresses that other sandboxes have now, and says which.
    async fn open_to(
        &self,
        name: &InstanceName,
        policy: &PinnedPolicy,
        instances: &BTreeMap<SandboxName, InstanceName>,
    ) -> Result<NewFacts, StepError> {
        let mut policy = policy.clone();
        let mut facts = NewFacts::new();
        for (peer, instance) in instances {
            let address = self.address_of(instance).await?;
            let pinned = BTreeSet::from([IpAddr::V4(address)]);
            let key = Destination::Sandbox(peer.clone()).to_string();
            facts.push(pinned_fact(&key, &pinned));
            policy.addresses.insert(key, pinned);
        }
        self.changing().await?.set_policy(name, Some(&policy)).await?;
        Ok(facts)
    }

    /// The address of an instance that has just been started, once it has one.
    async fn address_of(&self, instance: &InstanceName) -> Result<Ipv4Addr, StepError> {
        let until = Instant::now() + ADDRESS;
        loop {
            if let Some(address) = self.backend.address_of(instance).await? {
                return Ok(address);
            }
            if Instant::now() >= until {
                let message = format!(
                    "`{instance}` has no IPv4 address that its host knows of, within {} s",
                    ADDRESS.as_secs()
                );
                return Err(Error::new(ErrorKind::Timeout, message)
                    .with_hint("does it ask for one by DHCP, on a network of the daemon's?")
                    .into());
            }
            sleep(PAUSE).await;
        }
    }

    /// What was started for rules to be put in, and could get none, does not stay up: everything would be open to it.
    pub(super) async fn shut_off(&self, start: &Step) {
        if *self.interrupt.borrow() >= Interrupt::Lost || may_change().await.is_err() {
            return;
        }
        match self.backend.stop(&start.instance, Stop::Force).await {
            Ok(()) => self.progress.undo(start),
            Err(error) => {
                tracing::warn!(sandbox = %start.sandbox, %error, "cannot stop it again: everything is open to it");
            }
        }
    }

    /// The backend for one change, once that may begin: a step can be many, and the process may have been stopped
    /// before any of them.
    async fn changing(&self) -> Result<&dyn Sandboxes, StepError> {
        may_change().await?;
        Ok(self.backend)
    }

    /// Somebody else having deleted it is as good.
    async fn delete(&self, name: &InstanceName) -> Result<(), StepError> {
        match self.changing().await?.delete(name).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            result => Ok(result?),
        }
    }

    async fn configure(&self, step: &Step, changes: &Changes) -> Result<(), StepError> {
        let labels = self.progress.labels(step, false);
        let mut changes = changes.clone();
        changes.labels.extend(labels.clone());
        self.changing().await?.configure(&step.instance, &changes).await?;
        self.progress.wrote(&step.sandbox, &labels);
        Ok(())
    }

    async fn record(&self, step: &Step, complete: bool) -> Result<(), StepError> {
        let labels = self.progress.labels(step, complete);
        if !labels.is_empty() {
            self.changing()
                .await?
                .configure(
                    &step.instance,
                    &Changes {
                        labels: labels.clone(),
                        ..Changes::default()
                    },
                )
                .await?;
            self.progress.wrote(&step.sandbox, &labels);
        }
        Ok(())
    }

    /// Gives, as facts, which files nobody had before us: those go when they leave the spec.
    async fn files(&self, step: &Step, unseen: &[GuestPath], changes: &[FileChange]) -> Result<NewFacts, StepError> {
        self.settle_trees(step, unseen).await?;
        let existed = self.changing().await?.change_files(&step.instance, changes).await?;
        let made = changes.iter().zip(existed).filter_map(|(change, existed)| {
            let FileChange::Write { path, .. } = change else {
                return None;
            };
            let content = Field::of(Kind::File, path.as_str(), "content");
            let ours = step.facts.iter().any(|(field, _)| *field == content);
            let before = self.progress.get(&step.sandbox, &content);
            let known = before.is_some_and(|value| value != plan::ABSENT);
            (ours && !existed && !known)
                .then(|| (Field::of(Kind::File, path.as_str(), "made"), Some("true".to_owned())))
        });
        Ok(made.collect())
    }

    /// Sees to the folders of trees in a sandbox that is new.
    async fn settle_trees(&self, step: &Step, trees: &[GuestPath]) -> Result<(), StepError> {
        let sandbox = self.desired.and_then(|desired| desired.sandboxes.get(&step.sandbox));
        let Some(sandbox) = sandbox.filter(|_| !trees.is_empty()) else {
            return Ok(());
        };
        let deleting = trees
            .iter()
            .filter(|path| sandbox.trees.get(path).is_some_and(|tree| tree.delete));
        let below: BTreeSet<GuestPath> = deleting.cloned().collect();
        // Its profiles may have attached something to it.
        let mounted = match below.is_empty() {
            true => BTreeSet::new(),
            false => self.backend.mounts(&step.instance).await?,
        };
        let query = Query {
            opaque: trees.iter().cloned().collect(),
            below,
            closed: mounted.clone(),
            ..Query::default()
        };
        let found = self.backend.inspect(&step.instance, &query).await?;
        let changes: Vec<_> = trees
            .iter()
            .flat_map(|tree| plan::settle_tree(sandbox, tree, &found, &mounted))
            .collect();
        if !changes.is_empty() {
            self.changing().await?.change_files(&step.instance, &changes).await?;
        }
        Ok(())
    }

    async fn account(&self, name: &InstanceName, user: &User) -> Result<(), StepError> {
        let paths = ["/etc/passwd", "/etc/group", "/etc/shadow"].map(|path| GuestPath::trusted(path.to_owned()));
        let query = Query {
            paths: paths.iter().cloned().collect(),
            ..Default::default()
        };
        let found = self.backend.inspect(name, &query).await?;
        let mut contents = Vec::new();
        for path in &paths {
            contents.push(match found.get(path).map(|found| &found.shape) {
                None => Vec::new(),
                Some(Shape::File {
                    content: Some(bytes), ..
                }) => bytes.to_vec(),
                // Larger than what comes along; far larger is no file of accounts.
                Some(Shape::File { .. }) => match self.backend.read(name, path, ACCOUNTS).await? {
                    (bytes, false) => bytes,
                    (_, true) => return Err(StepError::Accounts(path.clone())),
                },
                Some(_) => return Err(StepError::Accounts(path.clone())),
            });
        }
        let Some(texts) = plan::ensure_account(user, &contents[0], &contents[1], &contents[2])? else {
            return Ok(());
        };
        let mut changes = Vec::new();
        for ((path, text), before) in paths.iter().zip(texts).zip(&contents) {
            if text.as_bytes() == before.as_slice() {
                continue;
            }
            let (mode, owner) = match found.get(path) {
                Some(found) => (found.mode, found.owner),
                None if path.as_str().ends_with("shadow") => (Mode::SECRET, Owner::ROOT),
                None => (Mode::FILE, Owner::ROOT),
            };
            let content = Content::inline(text.into_bytes());
            changes.push(FileChange::Write {
                path: path.clone(),
                content,
                mode,
                owner: Some(owner),
            });
        }
        // The name stands last, so that an account is whole or not there.
        let passwd_first = changes.first().is_some_and(|change| change.path() == &paths[0]);
        changes.rotate_left(usize::from(passwd_first));
        let home = user.home();
        if self.backend.inspect(name, &one(&home)).await?.get(&home).is_none() {
            changes.insert(
                0,
                FileChange::Directory {
                    path: home,
                    mode: Mode::DIRECTORY,
                    owner: user.owner(),
                },
            );
        }
        self.changing().await?.change_files(name, &changes).await?;
        Ok(())
    }

    async fn ready(&self, name: &InstanceName, ready: Option<&Ready>) -> Result<(), StepError> {
        let limit = ready.map_or(READY, |ready| ready.timeout);
        let end = Instant::now() + Duration::from_secs(limit.0);
        self.backend.ready(name, Duration::from_secs(limit.0)).await?;
        let Some(command) = ready.and_then(|ready| ready.command.as_deref()) else {
            return Ok(());
        };
        // The guest has no event for this: the command is the only way to ask.
        let mut pause = Duration::from_millis(50);
        loop {
            let opts = ExecOpts {
                command: shell(command),
                account: Account::root(),
                env: Default::default(),
                timeout: Some(
                    end.saturating_duration_since(Instant::now())
                        .max(Duration::from_secs(1)),
                ),
            };
            let output = self.changing().await?.output(name, &opts).await?;
            if output.code == 0 {
                return Ok(());
            }
            if Instant::now() + pause >= end {
                let tail = Tail::default();
                tail.push(&self.mask().over(&output.stdout));
                tail.push(&self.mask().over(&output.stderr));
                let (command, code) = (command.to_owned(), output.code);
                return Err(StepError::NotReady {
                    command,
                    code,
                    seconds: limit.0,
                    tail: tail.text(),
                });
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }

    async fn run(&self, step: &Step, run: &Run, output: UnboundedSender<(Stream, String)>) -> Result<(), StepError> {
        let name = &step.instance;
        let account = self.account_of(step, run).await?;
        let script = match &run.script {
            Script::Command(_) => None,
            Script::File { content, .. } => {
                // One name for all of them: what a killed run has left is written over, and goes.
                let path = GuestPath::trusted("/tmp/.sbx-apply-script".to_owned());
                let mode = Mode::of_bits(0o500);
                self.changing()
                    .await?
                    .write(name, &path, content.clone(), mode, Some(account.owner))
                    .await?;
                Some(path)
            }
        };
        let command = match (&run.script, &script) {
            (Script::Command(text), _) => shell(text),
            (Script::File { .. }, path) => path.iter().map(|path| path.as_str().to_owned()).collect(),
        };
        let opts = ExecOpts {
            command,
            account,
            env: Default::default(),
            timeout: Some(Duration::from_secs(run.timeout.0)),
        };
        let (tail, mask) = (Tail::default(), self.mask());
        let streams = Streams {
            stdin: None,
            stdout: Some(Box::new(Lines::new(
                Stream::Stdout,
                output.clone(),
                tail.clone(),
                mask.clone(),
            ))),
            stderr: Some(Box::new(Lines::new(Stream::Stderr, output, tail.clone(), mask))),
            until: None,
        };
        let code = self.changing().await?.run(name, &opts, streams).await;
        if let Some(path) = script {
            self.changing()
                .await?
                .change_files(name, &[FileChange::Remove { path }])
                .await?;
        }
        match code? {
            0 => Ok(()),
            code => Err(StepError::Run {
                name: run.name.to_string(),
                code,
                tail: tail.text(),
            }),
        }
    }

    /// What no output may show.
    fn mask(&self) -> Mask {
        let mask = self.desired.map(|desired| desired.secrets.mask());
        mask.unwrap_or_default()
    }

    /// As whom a step runs: root, the sandbox's user, or somebody whom the guest knows.
    async fn account_of(&self, step: &Step, run: &Run) -> Result<Account, StepError> {
        let Some(login) = run.user.as_deref().filter(|name| *name != "root") else {
            return Ok(Account::root());
        };
        let declared = self
            .desired
            .and_then(|desired| desired.sandboxes.get(&step.sandbox)?.user.as_ref());
        if let Some(user) = declared.filter(|user| user.name == login) {
            return Ok(Account {
                owner: user.owner(),
                home: user.home().to_string(),
                name: user.name.clone(),
            });
        }
        let path = GuestPath::trusted("/etc/passwd".to_owned());
        let (passwd, _) = self.backend.read(&step.instance, &path, ACCOUNTS).await?;
        let account = plan::look_up(&passwd, login).ok_or_else(|| StepError::NoUser(login.to_owned()))?;
        Ok(Account {
            owner: account.owner,
            home: account.home,
            name: account.name,
        })
    }
}

fn shell(text: &str) -> Vec<String> {
    vec!["/bin/sh".to_owned(), "-ec".to_owned(), text.to_owned()]
}

fn one(path: &GuestPath) -> Query {
    Query {
        paths: [path.clone()].into(),
        ..Default::default()
    }
}
