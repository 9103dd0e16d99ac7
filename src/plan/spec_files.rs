//! Whether a sandbox may have written the very spec that is planned from.
//!
//! What is mounted in a sandbox to be written to is covered, as far as it is the spec's own; but that cover falls off
//! when this machine saves the file by a renaming, and root inside can take it off on some backends. So what was applied
//! is recorded, and whatever else stands there now needs somebody's yes: unless the cover provably was on all the time, for
//! then only this machine can have written.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::Serialize;

use super::match_up::Matched;
use crate::model::{Capabilities, Desired, EnvironmentName, Live, SandboxName, SpecEntry, SpecFile, SpecRecord};

/// A file of the spec that is not as it was applied, in a place that sandboxes can write to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct SpecChange {
    /// What messages call it.
    pub file: String,
    /// What is the matter with it.
    pub change: SpecChangeKind,
    /// The sandboxes that could have done it; one of another environment as `NAME of ENVIRONMENT`.
    pub sandboxes: Vec<String>,
}

/// How a file of the spec is not as it was applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SpecChangeKind {
    /// Its contents are others.
    Changed,
    /// A link to it leads elsewhere than it did.
    Moved,
    /// No spec that was applied had it.
    New,
}

impl std::fmt::Display for SpecChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let how = match self.change {
            SpecChangeKind::Changed => "has changed since it was last applied",
            SpecChangeKind::Moved => "is another file than when it was last applied: a link leads elsewhere",
            SpecChangeKind::New => "was never applied from there",
        };
        let who = match &*self.sandboxes {
            [] => "a sandbox".to_owned(),
            [one] => one.clone(),
            [one, other] => format!("{one} or {other}"),
            [one, others @ ..] => format!("{one} or one of {} others", others.len()),
        };
        write!(f, "{} {how}, and {who} could have done that", self.file)
    }
}

/// The files of the spec that sandboxes may have written since they were applied.
pub(super) fn changed(desired: &Desired, live: &Live, capabilities: &Capabilities) -> Vec<SpecChange> {
    let reaching: Vec<(&EnvironmentName, &SpecRecord)> = live.spec_records.iter().collect();
    let changes = desired.files.iter().filter_map(|file| {
        let reaching: Vec<_> = reaching
            .iter()
            .filter(|(_, record)| !record.within_reach(file).is_empty())
            .collect();
        let entries = || live.spec_records.values().flat_map(|record| &record.files);
        if reaching.is_empty() || is_trusted(file, &reaching, entries(), capabilities) {
            return None;
        }
        let places: BTreeSet<String> = reaching
            .iter()
            .flat_map(|(_, record)| record.within_reach(file))
            .collect();
        let same = entries().any(|entry| entry.places.iter().eq(reached(&places, file)));
        let shared = entries().any(|entry| entry.places.iter().any(|place| places.contains(place)));
        let writers = reaching.iter().flat_map(|(environment, record)| {
            let own = **environment == desired.environment;
            record.writers(file).into_iter().map(move |name| match own {
                true => format!("`{name}`"),
                false => format!("`{name}` of `{environment}`"),
            })
        });
        Some(SpecChange {
            file: file.name.clone(),
            change: match (same, shared) {
                (true, _) => SpecChangeKind::Changed,
                (false, true) => SpecChangeKind::Moved,
                (false, false) => SpecChangeKind::New,
            },
            sandboxes: writers.collect(),
        })
    });
    changes.collect()
}

/// Those of a file's places that are among these.
fn reached<'a>(places: &'a BTreeSet<String>, file: &'a SpecFile) -> impl Iterator<Item = &'a String> {
    file.places
        .iter()
        .filter_map(|place| places.get(&*place.to_string_lossy()))
}

/// Whether somebody has applied just this, or nobody inside can have written it since somebody applied it.
fn is_trusted<'a>(
    file: &SpecFile,
    reaching: &[&(&EnvironmentName, &SpecRecord)],
    mut entries: impl Iterator<Item = &'a SpecEntry>,
    capabilities: &Capabilities,
) -> bool {
    let places: BTreeSet<String> = reaching
        .iter()
        .flat_map(|(_, record)| record.within_reach(file))
        .collect();
    let here = |entry: &&SpecEntry| entry.places.iter().eq(reached(&places, file));
    let covered = |record: &SpecRecord| {
        let same = |entry: &SpecEntry| entry.identity.is_some() && entry.identity == file.identity;
        record.files.iter().filter(here).any(same)
    };
    entries.any(|entry| here(&entry) && entry.sha256 == file.digest)
        || (capabilities.guards_folders && reaching.iter().all(|(_, record)| covered(record)))
}

/// What there is to record of the spec's own files, and of what sandboxes can write to: none where that is nothing. Folders
/// that hold nothing of this spec count, too: they may hold another one.
///
/// Before anything is done, `now` is none: then what the spec is about to mount counts as mounted, and nothing as covered.
/// Afterwards `live` is as it was seen then, and `now` the files as they were read after that.
#[must_use]
pub fn spec_record(
    desired: &Desired,
    selected: &BTreeSet<SandboxName>,
    live: &Live,
    now: Option<&[SpecFile]>,
    capabilities: &Capabilities,
) -> Option<SpecRecord> {
    let mut writable = writable(desired, live);
    let about_to = desired.sandboxes.values();
    let about_to = about_to.filter(|sandbox| now.is_none() && selected.contains(&sandbox.name));
    for sandbox in about_to {
        for mount in sandbox.mounts.values().filter(|mount| !mount.readonly) {
            let source = mount.source.to_string_lossy().into_owned();
            writable.entry(source).or_default().insert(sandbox.name.to_string());
        }
    }
    let mut record = SpecRecord {
        writable,
        files: BTreeSet::new(),
    };
    let others = live.spec_records.iter();
    let others: Vec<&SpecRecord> = others
        .filter(|(environment, _)| **environment != desired.environment)
        .map(|(_, record)| record)
        .collect();
    for file in &desired.files {
        let within = others.iter().flat_map(|record| record.within_reach(file));
        let within: BTreeSet<String> = within.chain(record.within_reach(file)).collect();
        let places: Vec<String> = reached(&within, file).cloned().collect();
        if places.is_empty() {
            continue;
        }
        // While the cover is on, it is what was applied: so nobody inside has written between that and the cover.
        let unmoved = now.is_some_and(|now| now.iter().any(|now| now.real() == file.real() && same(now, file)));
        let covered = capabilities.guards_folders && unmoved && is_covered(desired, live, file);
        record.files.insert(SpecEntry {
            places,
            sha256: file.digest.clone(),
            identity: file.identity.clone().filter(|_| covered),
        });
    }
    (!record.files.is_empty() || !record.writable.is_empty()).then_some(record)
}

/// Whether two readings of a file found the same in the same.
fn same(one: &SpecFile, other: &SpecFile) -> bool {
    (&one.digest, &one.identity) == (&other.digest, &other.identity)
}

/// What the environment's sandboxes have mounted to write to, with their names.
fn writable(desired: &Desired, live: &Live) -> BTreeMap<String, BTreeSet<String>> {
    let mut writable: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, instance) in &Matched::of(desired, live).owned {
        for mount in instance.workspace.mounts.values().filter(|mount| !mount.readonly) {
            for source in paths(&mount.source) {
                writable.entry(source.to_owned()).or_default().insert(name.to_string());
            }
        }
    }
    writable
}

/// Whether no sandbox can write to the very file.
fn is_covered(desired: &Desired, live: &Live, file: &SpecFile) -> bool {
    let owned = Matched::of(desired, live).owned;
    let mut mounts = owned.values().flat_map(|instance| instance.workspace.mounts.values());
    mounts.all(|mount| {
        let mut below = paths(&mount.source).filter_map(|source| file.real().strip_prefix(source).ok());
        below.all(|below| mount.readonly || mount.guarded.contains(&*below.to_string_lossy()))
    })
}

/// What a live source may be the path of: it can have words behind it that say what is odd.
pub(super) fn paths(source: &str) -> impl Iterator<Item = &str> {
    let ends = [" with ", ", which "]
        .into_iter()
        .filter_map(|words| source.find(words));
    ends.chain([source.len()]).map(|end| &source[..end])
}
