//! What of this machine's folders a sandbox does not see.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::backend::local::ids::Ids;
use crate::model::Hasher;

/// Folders up to this depth become root's inside where owners cannot be shifted, so that things can be put
/// there.
const OWN_DEPTH: usize = 3;

/// Entries below a folder that are hidden, and folders that are made anew.
#[derive(Debug, Clone, Default)]
pub(super) struct Hidden {
    /// Hidden, by relative path.
    hidden: Vec<PathBuf>,
    /// Folders that a sandbox without shifted owners gets as its own, parents first.
    folders: Vec<PathBuf>,
}

impl Hidden {
    /// Looks through a folder. Hidden is what not everybody may read, and what is neither file, folder nor link:
    /// a socket would reach a program of this machine.
    pub(super) fn in_folder(folder: &Path, ids: Ids) -> io::Result<Self> {
        let mut found = Self::default();
        let device = fs::symlink_metadata(folder)?.dev();
        found.walk(folder, Path::new(""), device, 0, !ids.is_root())?;
        found.hidden.sort();
        Ok(found)
    }

    fn walk(&mut self, folder: &Path, relative: &Path, device: u64, depth: usize, own: bool) -> io::Result<()> {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_symlink() {
                continue;
            }
            let Ok(metadata) = entry.metadata() else { continue };
            let relative = relative.join(entry.file_name());
            let mode = metadata.mode();
            if kind.is_dir() {
                // What is mounted there is no part of the folder; the overlay does not show it either.
                if mode & 0o005 != 0o005 {
                    self.hidden.push(relative);
                } else if metadata.dev() == device {
                    if own && depth < OWN_DEPTH {
                        self.folders.push(relative.clone());
                    }
                    self.walk(&entry.path(), &relative, device, depth + 1, own)?;
                }
            } else if !kind.is_file() || mode & 0o004 == 0 {
                self.hidden.push(relative);
            }
        }
        Ok(())
    }

    /// Adds what is hidden to a fingerprint.
    pub(super) fn hash(&self, hasher: &mut Hasher) {
        for path in &self.hidden {
            hasher.part(path.as_os_str().as_encoded_bytes());
        }
    }
}

/// Makes a layer that hides those entries.
pub(super) fn make(hidden: &Hidden, source: &Path, mask: &Path, ids: Ids) -> io::Result<()> {
    let mut made = BTreeMap::new();
    for folder in &hidden.folders {
        parents(folder, source, mask, ids, &mut made)?;
    }
    for path in &hidden.hidden {
        if let Some(parent) = path.parent() {
            parents(parent, source, mask, ids, &mut made)?;
        }
        // A character device with the number 0 stands for nothing (Linux, `overlayfs.rst`).
        mknodat(CWD, mask.join(path), FileType::CharacterDevice, Mode::empty(), 0)?;
    }
    Ok(())
}

/// Makes a folder and those above it as they are in the source: in an overlay, the uppermost tells owner and
/// mode.
fn parents(path: &Path, source: &Path, mask: &Path, ids: Ids, made: &mut BTreeMap<PathBuf, ()>) -> io::Result<()> {
    if path.as_os_str().is_empty() || made.insert(path.to_owned(), ()).is_some() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        parents(parent, source, mask, ids, made)?;
    }
    let metadata = fs::symlink_metadata(source.join(path))?;
    let place = mask.join(path);
    fs::DirBuilder::new().mode(0o700).create(&place)?;
    if ids.is_root() {
        let (uid, gid) = ids.outside(metadata.uid(), metadata.gid());
        chown(&place, Some(uid), Some(gid))?;
    }
    fs::set_permissions(&place, fs::Permissions::from_mode(metadata.mode() & 0o7777))
}
