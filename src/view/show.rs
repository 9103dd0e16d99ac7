//! What there is: a table, or a document.

use schemars::JsonSchema;
use serde::Serialize;

use super::clean;
use super::clean::short;
use super::human::age;
use super::json::FORMAT_VERSION;
use super::table::table;
use crate::model::{VolumeKey, Workspace};

/// What there is of an environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Show {
    /// The version of this form: `1`.
    pub format_version: &'static str,
    /// The environment.
    pub environment: String,
    /// The backend's name.
    pub backend: String,
    /// One entry for each sandbox: those of the spec in its order, then those that are left over.
    pub sandboxes: Vec<Row>,
}

/// One sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Row {
    /// Its name in the spec.
    pub sandbox: String,
    /// Its instance; the one it would get where there is none.
    pub instance: String,
    /// `running`, `stopped`, `frozen`, `unknown`; `missing` where there is none, and `foreign` where its name is
    /// taken by an instance that is not ours.
    pub status: &'static str,
    /// Addresses of global scope.
    pub addresses: Vec<String>,
    /// What its disk was made from, as last applied; null where that is not known.
    pub source: Option<String>,
    /// Its outbound network policy in force: a shared one's name, or `sandbox/NAME` for its own; null where everything is
    /// open.
    pub egress: Option<String>,
    /// What is wrong with the way in which that is enforced; null where nothing is.
    pub egress_fault: Option<String>,
    /// Whether that is enforced inside the sandbox, which is best effort: its root can undo it.
    pub egress_best_effort: bool,
    /// Its snapshots, oldest first.
    pub snapshots: Vec<String>,
    /// What is attached to it as a spec declares it: `SOURCE at PATH`, `NAME at PATH (SIZE)`, `PORT at
    /// 127.0.0.1:PORT`; and its volumes that are not, `NAME (not attached)`.
    pub workspace: Attached,
    /// What of it is older than the spec has it: `source` when what it was cloned from has changed since, and
    /// `snapshot:NAME` for each such snapshot of its own.
    pub stale: Vec<String>,
    /// How long ago it was made, in seconds; null where that is not known.
    pub age: Option<u64>,
    /// How long it may live, as its label says; null where it may for ever.
    pub ttl: Option<String>,
    /// How many seconds are left of that; 0 or less once it has expired; null where it may live for ever, and where
    /// the label says nothing.
    pub expires_in: Option<i64>,
    /// Whether its first apply has finished.
    pub complete: bool,
    /// Whether the spec no longer names it.
    pub leftover: bool,
}

/// What is attached to a sandbox.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Attached {
    /// Mounts.
    pub mounts: Vec<String>,
    /// Volumes.
    pub volumes: Vec<String>,
    /// Ports.
    pub ports: Vec<String>,
}

impl Attached {
    /// Of an instance.
    #[must_use]
    pub fn of(found: &Workspace) -> Self {
        let mounts = found.mounts.iter().map(|(path, mount)| {
            let readonly = if mount.readonly { " (to read)" } else { "" };
            format!("{} at {path}{readonly}", mount.source)
        });
        let volumes = found.volumes.iter().map(|(name, path)| {
            let size = found.volume_sizes.get(name);
            let size = size.map(|size| format!(" ({size})")).unwrap_or_default();
            format!("{name} at {path}{size}")
        });
        let ports = found
            .ports
            .iter()
            .map(|(guest, host)| format!("{guest} at 127.0.0.1:{host}"));
        Self {
            mounts: mounts.collect(),
            volumes: volumes.collect(),
            ports: ports.collect(),
        }
    }

    /// Adds volumes that are there, and not attached.
    pub(crate) fn keep<'a>(&mut self, volumes: impl Iterator<Item = &'a VolumeKey>) {
        self.volumes
            .extend(volumes.map(|key| format!("{} (not attached)", key.name)));
    }

    fn all(&self) -> Vec<String> {
        [&self.mounts[..], &self.volumes, &self.ports].concat()
    }
}

/// A table for people.
#[must_use]
pub fn human(show: &Show) -> String {
    if show.sandboxes.is_empty() {
        return format!("The environment {} is empty.", show.environment);
    }
    let nothing = || "-".to_owned();
    let list = |items: &[String]| {
        if items.is_empty() {
            nothing()
        } else {
            clean(&items.join(", ")).into_owned()
        }
    };
    let expires = show.sandboxes.iter().any(|row| row.ttl.is_some());
    let fenced = show.sandboxes.iter().any(|row| row.egress.is_some());
    let attached = show.sandboxes.iter().any(|row| row.workspace != Attached::default());
    let rows = show.sandboxes.iter().map(|row| {
        let status = match (
            row.leftover,
            row.complete || matches!(row.status, "missing" | "foreign"),
        ) {
            (true, _) => format!("{} (left over)", row.status),
            (false, false) => format!("{} (unfinished)", row.status),
            (false, true) => row.status.to_owned(),
        };
        let mut cells = vec![
            row.sandbox.clone(),
            status,
            list(&row.addresses),
            row.source
                .as_deref()
                .map_or_else(nothing, |source| clean(source).into_owned()),
            list(&row.snapshots),
            list(&row.stale),
            row.age.map_or_else(nothing, age),
        ];
        cells.extend(fenced.then(|| egress(row)));
        cells.extend(attached.then(|| list(&row.workspace.all())));
        cells.extend(expires.then(|| end(row)));
        cells
    });
    let mut header = vec!["SANDBOX", "STATUS", "ADDRESSES", "SOURCE", "SNAPSHOTS", "STALE", "AGE"];
    header.extend(fenced.then_some("EGRESS"));
    header.extend(attached.then_some("ATTACHED"));
    header.extend(expires.then_some("EXPIRES"));
    table(&header, &rows.collect::<Vec<_>>())
}

/// What it may reach.
fn egress(row: &Row) -> String {
    match (&row.egress, &row.egress_fault) {
        (None, _) if row.status == "missing" => "-".to_owned(),
        (None, _) => "unrestricted".to_owned(),
        (Some(policy), Some(_)) => format!("{} (not enforced as it should be)", short(policy, 40)),
        (Some(policy), None) if row.egress_best_effort => format!("{} (inside, best effort)", short(policy, 40)),
        (Some(policy), None) => short(policy, 40).into_owned(),
    }
}

/// When it may be deleted.
fn end(row: &Row) -> String {
    match (&row.ttl, row.expires_in) {
        (None, _) => "-".to_owned(),
        (Some(_), Some(left)) => match u64::try_from(left) {
            Ok(left @ 1..) => format!("in {}", age(left)),
            _ => "expired".to_owned(),
        },
        (Some(ttl), None) => format!("never, by `{}`", short(ttl, 20)),
    }
}

/// The document for programs.
#[must_use]
pub fn json(show: &Show) -> String {
    super::json::pretty(show)
}

impl Show {
    /// Of this environment, nothing so far.
    #[must_use]
    pub fn new(environment: impl Into<String>, backend: impl Into<String>) -> Self {
        Self {
            format_version: FORMAT_VERSION,
            environment: environment.into(),
            backend: backend.into(),
            sandboxes: Vec::new(),
        }
    }
}
