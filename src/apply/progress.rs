//! What is true of each sandbox so far.

use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::model::{Facts, Field, Labels, Live, SandboxName};
use crate::plan::{Matched, Op, Plan, Step};

/// The record of one sandbox, as it stands on the backend and as it should stand there.
#[derive(Debug, Clone, Default)]
struct Record {
    facts: Facts,
    /// The label as it was last written.
    written: Option<String>,
    complete: bool,
    /// Whether there is no instance to keep it.
    gone: bool,
}

/// The records of all sandboxes of a plan.
#[derive(Debug)]
pub(super) struct Progress(Mutex<BTreeMap<SandboxName, Record>>);

impl Progress {
    /// The records as the backend has them.
    pub(super) fn of(plan: &Plan, live: &Live) -> Self {
        let matched = Matched::owned_by(&plan.environment, live);
        let records = matched.owned.iter().map(|(sandbox, instance)| {
            let record = Record {
                facts: instance.labels.applied(),
                written: instance.labels.get(Labels::APPLIED).map(str::to_owned),
                complete: instance.labels.is_true(Labels::COMPLETE),
                gone: false,
            };
            (sandbox.clone(), record)
        });
        Self(Mutex::new(records.collect()))
    }

    fn with<T>(&self, sandbox: &SandboxName, change: impl FnOnce(&mut Record) -> T) -> T {
        // A panic elsewhere leaves facts whole: they are only ever replaced.
        let mut records = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        change(records.entry(sandbox.clone()).or_insert_with(|| Record {
            gone: true,
            ..Record::default()
        }))
    }

    /// A field of the record.
    pub(super) fn get(&self, sandbox: &SandboxName, field: &Field) -> Option<String> {
        self.with(sandbox, |record| record.facts.get(field).map(str::to_owned))
    }

    /// Takes in what a step that is done has made true.
    pub(super) fn take_in(&self, step: &Step, more: Vec<(Field, Option<String>)>) {
        self.with(&step.sandbox, |record| {
            match &step.op {
                Op::Create(opts) | Op::Clone { opts, .. } => {
                    *record = Record {
                        facts: Facts::new(),
                        written: opts.labels.get(Labels::APPLIED).map(str::to_owned),
                        complete: false,
                        gone: false,
                    };
                }
                Op::Delete => {
                    *record = Record {
                        gone: true,
                        ..Record::default()
                    }
                }
                _ => {}
            }
            for (field, value) in step.facts.iter().cloned().chain(more) {
                match value {
                    Some(value) => record.facts.set(field, value),
                    None => drop(record.facts.unset(&field)),
                }
            }
        });
    }

    /// A step failed. The record names a snapshot before it is taken, and has to be told that it was not.
    pub(super) fn take_back(&self, step: &Step) {
        if matches!(step.op, Op::Snapshot(_)) {
            self.undo(step);
        }
    }

    /// What a step made true is so no more.
    pub(super) fn undo(&self, step: &Step) {
        self.with(&step.sandbox, |record| {
            for (field, _) in &step.facts {
                record.facts.unset(field);
            }
        });
    }

    /// The labels to write so that the backend's record says what is true once the step is done; empty where it
    /// does. The step's facts are counted in: they are written in the same call.
    pub(super) fn labels(&self, step: &Step, complete: bool) -> BTreeMap<String, Option<String>> {
        self.labels_with(&step.sandbox, &step.facts, complete)
    }

    /// The labels to write so that the backend's record says what is true now; empty where it does.
    pub(super) fn labels_so_far(&self, sandbox: &SandboxName) -> BTreeMap<String, Option<String>> {
        self.labels_with(sandbox, &[], false)
    }

    fn labels_with(
        &self,
        sandbox: &SandboxName,
        more: &[(Field, Option<String>)],
        complete: bool,
    ) -> BTreeMap<String, Option<String>> {
        self.with(sandbox, |record| {
            let mut changes = BTreeMap::new();
            if record.gone {
                return changes;
            }
            let mut facts = record.facts.clone();
            for (field, value) in more {
                match value {
                    Some(value) => facts.set(field.clone(), value.clone()),
                    None => drop(facts.unset(field)),
                }
            }
            let mut labels = Labels::default();
            labels.set_applied(&facts);
            let text = labels.0.remove(Labels::APPLIED);
            if text != record.written {
                changes.insert(Labels::APPLIED.to_owned(), text);
            }
            if complete && !record.complete {
                changes.insert(Labels::COMPLETE.to_owned(), Some("true".to_owned()));
            }
            changes
        })
    }

    /// Notes that these labels have been written.
    pub(super) fn wrote(&self, sandbox: &SandboxName, labels: &BTreeMap<String, Option<String>>) {
        self.with(sandbox, |record| {
            if let Some(text) = labels.get(Labels::APPLIED) {
                record.written.clone_from(text);
            }
            record.complete |= labels.contains_key(Labels::COMPLETE);
        });
    }
}
