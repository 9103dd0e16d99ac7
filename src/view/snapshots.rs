//! Snapshots of a sandbox: a table, or a document.

use serde::Serialize;

use super::clean;
use super::human::age;
use super::json::FORMAT_VERSION;
use super::table::table;
use crate::model::{Bytes, Desired, InstanceName, SandboxName};

/// What there is of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Snapshots {
    /// The version of this form: `1`.
    pub format_version: &'static str,
    /// The environment.
    pub environment: String,
    /// The backend's name.
    pub backend: String,
    /// The sandbox, by its name in the spec.
    pub sandbox: String,
    /// Its instance.
    pub instance: String,
    /// One entry for each, oldest first.
    pub snapshots: Vec<Row>,
}

/// One snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Its name.
    pub label: String,
    /// Bytes that are its own; null where the backend cannot tell.
    pub size: Option<u64>,
    /// When it was taken, in seconds since 1970-01-01T00:00:00Z; null where that is not known.
    pub created_at: Option<u64>,
    /// Whether this tool took it.
    pub ours: bool,
    /// Whether the spec declares it.
    pub declared: bool,
    /// The sandboxes that were cloned from it.
    pub needed_by: Vec<String>,
}

impl Snapshots {
    /// Of a sandbox.
    #[must_use]
    pub fn new(desired: &Desired, sandbox: &SandboxName, instance: &InstanceName, snapshots: Vec<Row>) -> Self {
        Self {
            format_version: FORMAT_VERSION,
            environment: desired.environment.to_string(),
            backend: desired.backend.name.clone(),
            sandbox: sandbox.to_string(),
            instance: instance.to_string(),
            snapshots,
        }
    }
}

/// A table for people. `now` is in seconds since 1970-01-01T00:00:00Z.
#[must_use]
pub fn human(shown: &Snapshots, now: u64) -> String {
    if shown.snapshots.is_empty() {
        return format!("{} has no snapshots.", shown.sandbox);
    }
    let nothing = || "-".to_owned();
    let rows = shown.snapshots.iter().map(|row| {
        let mut notes = Vec::new();
        if !row.ours {
            notes.push("not ours".to_owned());
        }
        if row.declared {
            notes.push("declared".to_owned());
        }
        if !row.needed_by.is_empty() {
            notes.push(format!("cloned to {}", row.needed_by.join(", ")));
        }
        vec![
            clean(&row.label).into_owned(),
            row.size.map_or_else(nothing, rounded),
            row.created_at
                .map_or_else(nothing, |created| age(now.saturating_sub(created))),
            match notes.is_empty() {
                true => nothing(),
                false => notes.join(", "),
            },
        ]
    });
    table(&["SNAPSHOT", "SIZE", "AGE", "NOTES"], &rows.collect::<Vec<_>>())
}

/// A size in the largest unit that it has at least one of.
fn rounded(bytes: u64) -> String {
    let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match units.iter().find(|(_, shift)| bytes >> shift > 0) {
        Some((unit, shift)) => format!("{}{unit}", bytes >> shift),
        None => Bytes(bytes).to_string(),
    }
}

/// The document for programs.
#[must_use]
pub fn json(shown: &Snapshots) -> String {
    super::json::pretty(shown)
}
