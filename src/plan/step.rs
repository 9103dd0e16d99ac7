//! What apply carries out: each step is one short piece of work on one instance.

use std::collections::BTreeMap;
use std::fmt;

use crate::model::{
    Attach, Changes, CreateOpts, Field, FileChange, GuestPath, InstanceName, Mode, Owner, PinnedPolicy, Ready, Run,
    SandboxName, SnapshotName, User, VolumeKey,
};

/// A step's name in the plan: `base/create`, `task-1/run:install`. Unique, and the same for the same plan.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepId(pub(crate) String);

impl StepId {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StepId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The work itself, complete: nothing is left for apply to choose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Delete the instance.
    Delete,
    /// Make it from an image.
    Create(CreateOpts),
    /// Make it from another's disk.
    Clone {
        /// Whose.
        source: InstanceName,
        /// Which snapshot of it; none: its disk as it is.
        snapshot: Option<SnapshotName>,
        /// How.
        opts: CreateOpts,
    },
    /// Change settings.
    Configure(Changes),
    /// Make the user's account when there is none of that name.
    Account(User),
    /// Change files.
    Files {
        /// Trees of a sandbox that is new, so that nobody could see before what its image or its source left
        /// there: what [`super::settle_tree`] finds has to be done about them comes first.
        unseen: Vec<GuestPath>,
        /// The changes, in their order.
        changes: Vec<FileChange>,
        /// Secret files, written after all others.
        secrets: Vec<SecretFile>,
    },
    /// Attach mounts, volumes and ports, and take some away.
    Attach(Attach),
    /// Delete a volume with all that is in it.
    DeleteVolume(VolumeKey),
    /// Put an outbound network policy in force; none lifts the one that there is.
    Egress(Option<PinnedPolicy>),
    /// Open other sandboxes, which have just been started, by a policy that is in force but for them.
    Peers {
        /// The whole policy.
        policy: PinnedPolicy,
        /// Their instances.
        instances: BTreeMap<SandboxName, InstanceName>,
    },
    /// Start it.
    Start,
    /// Wait until it is ready: until commands run, and, when there is a command, until that succeeds.
    Ready(Option<Ready>),
    /// Run a set-up step.
    Run(Run),
    /// Stop it.
    Stop,
    /// Delete a snapshot.
    DeleteSnapshot(String),
    /// Take a snapshot.
    Snapshot(SnapshotName),
    /// Write down what has been applied. Changes nothing that anybody sees.
    Record,
}

impl Op {
    /// The word for it in ids and in JSON.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Delete => "delete",
            Self::Create(_) => "create",
            Self::Clone { .. } => "clone",
            Self::Configure(_) => "configure",
            Self::Account(_) => "account",
            Self::Files { .. } => "files",
            Self::Attach(_) => "attach",
            Self::DeleteVolume(_) => "delete-volume",
            Self::Egress(_) => "egress",
            Self::Peers { .. } => "open-sandboxes",
            Self::Start => "start",
            Self::Ready(_) => "ready",
            Self::Run(_) => "run",
            Self::Stop => "stop",
            Self::DeleteSnapshot(_) => "delete-snapshot",
            Self::Snapshot(_) => "snapshot",
            Self::Record => "record",
        }
    }
}

/// A file whose contents are in a variable of the caller's environment, and in no plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretFile {
    /// Where it goes.
    pub path: GuestPath,
    /// The variable.
    pub variable: String,
    /// Permission bits.
    pub mode: Mode,
    /// Owner.
    pub owner: Owner,
}

/// A step of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Its name.
    pub id: StepId,
    /// The sandbox, by its name in the spec.
    pub sandbox: SandboxName,
    /// Its instance.
    pub instance: InstanceName,
    /// The work.
    pub op: Op,
    /// A line for people: `clone from base@ready`.
    pub title: String,
    /// The steps that must have succeeded before.
    pub needs: Vec<StepId>,
    /// What is true of the sandbox once it is done: fields and their new values, none where a field is no more.
    pub facts: Vec<(Field, Option<String>)>,
}
