//! The files that a spec was read from, and what was last applied of them: so that it can be told when a sandbox may have
//! written its own walls.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Digest, Note};

/// A file that a spec was read from: the spec itself, or something that it includes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecFile {
    /// What messages call it.
    pub name: String,
    /// The real places of the links that were followed to it, in their order, and at last its own.
    pub places: Vec<PathBuf>,
    /// SHA-256 of the bytes that were read.
    pub digest: Digest,
    /// Which file it was that was read, so that another one in its place is told from it: its inode's number and birth.
    /// None where that cannot be told, or where it has more names than this one.
    pub identity: Option<String>,
}

impl SpecFile {
    /// Its own real path.
    #[must_use]
    pub fn real(&self) -> &Path {
        self.places.last().map_or(Path::new(""), PathBuf::as_path)
    }
}

/// What sandboxes of an environment could write to when it was last applied, and what of its spec's own files sandboxes, of
/// others too, could. Kept as a note.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpecRecord {
    /// Real paths of folders and files that sandboxes have mounted to write to, each with those sandboxes.
    pub writable: BTreeMap<String, BTreeSet<String>>,
    /// The spec's files that lie in them, or in what sandboxes of other environments can write to.
    pub files: BTreeSet<SpecEntry>,
}

/// A file of the spec as it was applied.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpecEntry {
    /// Those of [`SpecFile::places`] that sandboxes can write to.
    pub places: Vec<String>,
    /// [`SpecFile::digest`].
    pub sha256: Digest,
    /// [`SpecFile::identity`], where no sandbox could write to that very file since: then whatever is in it now, this machine
    /// has written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
}

impl SpecRecord {
    /// The record that a note holds; none where it holds anything else.
    #[must_use]
    pub fn of_note(note: &Note) -> Option<Self> {
        serde_json::from_str(note.as_str()).ok()
    }

    /// The note that holds it; none where it is too large for one.
    #[must_use]
    pub fn to_note(&self) -> Option<Note> {
        serde_json::to_string(self).ok().and_then(Note::new)
    }

    /// Those of a file's places that sandboxes can write to.
    #[must_use]
    pub fn within_reach(&self, file: &SpecFile) -> Vec<String> {
        let folders: Vec<&Path> = self.writable.keys().map(Path::new).collect();
        let reached = |place: &&PathBuf| folders.iter().any(|folder| place.starts_with(folder));
        let places = file.places.iter().filter(reached);
        places.map(|place| place.to_string_lossy().into_owned()).collect()
    }

    /// The sandboxes that can write to one of a file's places.
    #[must_use]
    pub fn writers(&self, file: &SpecFile) -> BTreeSet<&str> {
        let reached = |folder: &str| file.places.iter().any(|place| place.starts_with(folder));
        let folders = self.writable.iter().filter(|(folder, _)| reached(folder));
        folders.flat_map(|(_, of)| of).map(String::as_str).collect()
    }
}
