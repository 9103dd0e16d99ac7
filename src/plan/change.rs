//! What differs, and what is done about it.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;

use super::{Action, Impact, Origin, Plan, Reason};
use crate::model::{Field, InstanceName, Kind, SandboxName};

/// One object of one sandbox that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The sandbox, by its name in the spec.
    pub sandbox: SandboxName,
    /// Its instance.
    pub instance: InstanceName,
    /// What kind of object.
    pub kind: Kind,
    /// Which one of that kind; empty for the sandbox itself and its power.
    pub name: String,
    /// What is done.
    pub action: Action,
    /// What that does to its users.
    pub impact: Impact,
    /// Why.
    pub reason: Reason,
    /// Each field that differs.
    pub fields: Vec<FieldChange>,
    /// Both texts of a file whose contents differ, where they are small and not secret.
    pub text: Option<TextChange>,
}

/// A field before and after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldChange {
    /// Which.
    pub field: Field,
    /// Its live value.
    pub before: Option<String>,
    /// The value it gets.
    pub after: Option<String>,
    /// Which side moved.
    pub origin: Origin,
}

/// The contents of a file, before and after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextChange {
    /// What is there.
    pub before: Arc<[u8]>,
    /// What the spec wants.
    pub after: Arc<[u8]>,
}

impl Change {
    /// Whether a field of it has this origin, a conflict being both.
    #[must_use]
    pub fn has(&self, origin: Origin) -> bool {
        self.fields
            .iter()
            .any(|field| field.origin == origin || field.origin == Origin::Conflict)
    }

    /// Whether something is done.
    #[must_use]
    pub fn counts(&self) -> bool {
        self.action != Action::None
    }
}

/// How many changes there are of each sort.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Summary {
    /// Objects made.
    pub create: usize,
    /// Objects changed where they are.
    pub update: usize,
    /// Sandboxes made anew.
    pub replace: usize,
    /// Objects deleted.
    pub delete: usize,
    /// Sandboxes started.
    pub start: usize,
    /// Sandboxes stopped.
    pub stop: usize,
    /// Set-up steps run.
    pub run: usize,
    /// Snapshots taken.
    pub snapshot: usize,
    /// Changes with a field that drifted, conflicts included.
    pub drift: usize,
    /// Of those, changes with a field that the spec changed as well.
    pub conflict: usize,
    /// Changes with a field that the spec changed, conflicts included.
    pub pending: usize,
    /// Changes that lose a disk's contents.
    pub data_loss: usize,
}

impl Summary {
    /// Counts changes.
    #[must_use]
    pub fn of<'a>(changes: impl IntoIterator<Item = &'a Change>) -> Self {
        let mut summary = Self::default();
        for change in changes.into_iter().filter(|change| change.counts()) {
            match change.action {
                Action::Create => summary.create += 1,
                Action::Update | Action::Restore => summary.update += 1,
                Action::Replace => summary.replace += 1,
                Action::Delete => summary.delete += 1,
                Action::Start => summary.start += 1,
                Action::Stop => summary.stop += 1,
                Action::Run => summary.run += 1,
                Action::Snapshot => summary.snapshot += 1,
                Action::None => {}
            }
            summary.drift += usize::from(change.has(Origin::Drift));
            summary.conflict += usize::from(change.has(Origin::Drift) && change.has(Origin::Pending));
            summary.pending += usize::from(change.has(Origin::Pending));
            summary.data_loss += usize::from(change.impact == Impact::DataLoss);
        }
        summary
    }
}

/// How many differences there are of each origin: fields of what is changed where it is, and whole objects of all
/// else. What has no fields is pending: it is the spec, or `--prune`, that says so.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Origins {
    /// The live system changed.
    pub drift: usize,
    /// Both changed.
    pub conflict: usize,
    /// The spec changed.
    pub pending: usize,
}

impl Origins {
    /// Counts the differences of a plan.
    #[must_use]
    pub fn of(plan: &Plan) -> Self {
        let mut origins = Self::default();
        for change in plan.changes.iter().filter(|change| change.counts()) {
            if change.action == Action::Update {
                change.fields.iter().for_each(|field| origins.count(field.origin));
                continue;
            }
            origins.count(match (change.has(Origin::Drift), change.has(Origin::Pending)) {
                (true, true) => Origin::Conflict,
                (true, false) => Origin::Drift,
                (false, _) => Origin::Pending,
            });
        }
        origins
    }

    fn count(&mut self, origin: Origin) {
        match origin {
            Origin::Drift => self.drift += 1,
            Origin::Conflict => self.conflict += 1,
            Origin::Pending => self.pending += 1,
        }
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> usize {
        self.drift + self.conflict + self.pending
    }
}
