//! What a spec was read from, by digests: so that later it can be told whether any of it has moved.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::source::Sources;
use crate::model::{Digest, Entry, Hasher};

/// A file or a folder that a spec was read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceDigest {
    /// Where it is: a file of the spec as messages name it, a source by its real path.
    pub path: String,
    /// SHA-256 of its text or its bytes, or of all that is copied of a folder.
    pub digest: Digest,
}

/// A source as it was read.
#[derive(Debug, Clone)]
pub(super) enum Read {
    /// A file.
    File(PathBuf, Digest),
    /// A folder: all that was not excluded.
    Folder(PathBuf, BTreeMap<String, Entry>),
}

impl Sources {
    /// Everything that the spec was read from, ordered by path: its own files, those that it includes, and the
    /// files and folders that it names as sources. A folder that is read with other exclusions stands there again.
    #[must_use]
    pub fn digests(&self) -> Vec<SourceDigest> {
        let texts = self.names().filter_map(|name| {
            Some(SourceDigest {
                path: name.to_owned(),
                digest: Digest::of(self.get(name)?.as_bytes()),
            })
        });
        let read = self.read.iter().map(|read| match read {
            Read::File(path, digest) => SourceDigest {
                path: path.to_string_lossy().into_owned(),
                digest: digest.clone(),
            },
            Read::Folder(path, entries) => SourceDigest {
                path: path.to_string_lossy().into_owned(),
                digest: of_folder(entries),
            },
        });
        let mut inputs: Vec<SourceDigest> = texts.chain(read).collect();
        inputs.sort_by(|one, other| (&one.path, &one.digest).cmp(&(&other.path, &other.digest)));
        inputs
    }
}

fn of_folder(entries: &BTreeMap<String, Entry>) -> Digest {
    let mut hasher = Hasher::new();
    for (path, entry) in entries {
        hasher.part(path);
        match entry {
            Entry::File { content, mode } => {
                hasher.part("file");
                hasher.part(mode.to_string());
                hasher.part(content.digest.as_str());
            }
            Entry::Directory => hasher.part("folder"),
            Entry::Symlink(target) => {
                hasher.part("link");
                hasher.part(target);
            }
        }
    }
    hasher.finish()
}
