//! The closed words in which a plan explains itself.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is done about an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It is made.
    Create,
    /// It is changed where it is.
    Update,
    /// It is deleted and made again.
    Replace,
    /// It goes.
    Delete,
    /// It is started.
    Start,
    /// It is stopped.
    Stop,
    /// It is run.
    Run,
    /// It is taken.
    Snapshot,
    /// It is put back.
    Restore,
    /// Nothing; shown because there is something to know.
    None,
}

impl Action {
    /// The symbol that stands before it in a plan.
    #[must_use]
    pub fn symbol(self) -> &'static str {
        match self {
            Self::Create | Self::Snapshot => "+",
            Self::Update | Self::Restore => "~",
            Self::Replace => "-/+",
            Self::Delete => "-",
            Self::Start | Self::Run => "▶",
            Self::Stop => "■",
            Self::None => "·",
        }
    }

    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Replace => "replace",
            Self::Delete => "delete",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Run => "run",
            Self::Snapshot => "snapshot",
            Self::Restore => "restore",
            Self::None => "none",
        }
    }
}

/// What a change does to whoever is using the sandbox. Ordered: the worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Impact {
    /// Nothing that runs is disturbed.
    Live,
    /// What runs in it ends.
    Restart,
    /// What is on its disk goes.
    DataLoss,
}

impl fmt::Display for Impact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Live => "live",
            Self::Restart => "restart",
            Self::DataLoss => "data loss",
        })
    }
}

/// Which side moved since the last apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// The spec.
    Pending,
    /// The live system.
    Drift,
    /// Both.
    Conflict,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pending => "pending",
            Self::Drift => "drift",
            Self::Conflict => "conflict",
        })
    }
}

/// Why something is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// Declared, and never made.
    New,
    /// The spec says something else than it did.
    SpecChanged,
    /// The live system is not what was last applied.
    LiveChanged,
    /// Both changed.
    BothChanged,
    /// It was made, and is gone.
    Missing,
    /// It was declared, and is no more.
    LeftSpec,
    /// The image is another one.
    ImageChanged,
    /// It is cloned from something else.
    SourceChanged,
    /// The backend knows it, and no disk of it.
    DiskGone,
    /// What it was made from has changed since: a snapshot's sandbox, a clone's source.
    Stale,
    /// Names that it opens lead to other addresses than before.
    AddressesMoved,
    /// Its first apply did not finish.
    Unfinished,
    /// A set-up step that has not run.
    NeverRun,
    /// A step before it runs.
    StepBefore,
    /// The sandbox is made anew.
    Recreated,
    /// No spec names it any more, and `--prune` was given.
    Pruned,
    /// The environment is destroyed.
    Destroyed,
    /// It has outlived its ttl.
    Expired,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::New => "new",
            Self::SpecChanged => "the spec changed",
            Self::LiveChanged => "the live system changed",
            Self::BothChanged => "the spec and the live system changed",
            Self::Missing => "it is gone",
            Self::LeftSpec => "it left the spec",
            Self::ImageChanged => "another image",
            Self::SourceChanged => "another clone source",
            Self::DiskGone => "its disk is gone",
            Self::Stale => "stale",
            Self::AddressesMoved => "addresses moved",
            Self::Unfinished => "its first apply did not finish",
            Self::NeverRun => "never run",
            Self::StepBefore => "a step before it runs",
            Self::Recreated => "the sandbox is made anew",
            Self::Pruned => "not in the spec, and --prune was given",
            Self::Destroyed => "the environment is destroyed",
            Self::Expired => "it has outlived its ttl",
        })
    }
}

impl From<Origin> for Reason {
    fn from(origin: Origin) -> Self {
        match origin {
            Origin::Pending => Self::SpecChanged,
            Origin::Drift => Self::LiveChanged,
            Origin::Conflict => Self::BothChanged,
        }
    }
}
