//! What of this machine's folders a sandbox does not see.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::backend::local::ids::Ids;
use crate::model::Hasher;

/// Folders up to this depth become root's inside where owners cannot be shifted, so that things can be put
/// there.
const OWN_DEPTH: usize = 3;
/// Folders whose files are copied there: settings, and what package managers know. Not what is large and replaced
/// as a whole.
const COPIED: [(&str, &str); 3] = [
    ("/etc", "alternatives"),
    ("/var/lib/dpkg", "info"),
    ("/var/lib/apt", "lists"),
];
/// No larger ones, in bytes.
const LARGEST: u64 = 32 << 20;
/// Threads that look through a folder.
const WORKERS: usize = 8;

/// Entries below a folder that are hidden, and folders that are made anew.
#[derive(Debug, Clone, Default)]
pub(super) struct Hidden {
    /// Hidden, by relative path.
    hidden: Vec<PathBuf>,
    /// Folders that a sandbox without shifted owners gets as its own, parents first.
    folders: Vec<PathBuf>,
    /// Files that such a sandbox gets as its own, so that programs that change them in place can.
    copies: Vec<PathBuf>,
}

impl Hidden {
    /// Looks through a folder. Hidden is what not everybody may read, and what is neither file, folder nor link:
    /// a socket would reach a program of this machine.
    pub(super) fn in_folder(folder: &Path, ids: Ids) -> io::Result<Self> {
        let walk = Walk {
            root: folder,
            device: fs::symlink_metadata(folder)?.dev(),
            own: !ids.is_root(),
            copied: COPIED
                .iter()
                .find(|(copied, _)| folder == Path::new(copied))
                .map(|(_, but)| *but),
            work: Mutex::new((vec![(PathBuf::new(), 0)], 0)),
            more: Condvar::new(),
        };
        let workers = thread::scope(|scope| {
            let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(|| walk.work())).collect();
            let ended = workers.into_iter().map(|worker| worker.join());
            ended
                .map(|found| found.unwrap_or_else(|_| Err(io::Error::other("a thread failed"))))
                .collect::<io::Result<Vec<Self>>>()
        })?;
        let mut all = Self::default();
        for found in workers {
            all.hidden.extend(found.hidden);
            all.folders.extend(found.folders);
            all.copies.extend(found.copies);
        }
        all.hidden.sort();
        // Parents sort before what they hold.
        all.folders.sort();
        all.copies.sort();
        Ok(all)
    }

    /// Adds to a fingerprint all that a layer made of it would depend on.
    pub(super) fn hash(&self, source: &Path, hasher: &mut Hasher) {
        hasher.part((self.hidden.len() as u64).to_le_bytes());
        for path in &self.hidden {
            hasher.part(path.as_os_str().as_encoded_bytes());
        }
        for path in &self.copies {
            hasher.part(path.as_os_str().as_encoded_bytes());
            if let Ok(found) = fs::symlink_metadata(source.join(path)) {
                let numbers = [
                    found.ino(),
                    found.size(),
                    found.mtime().cast_unsigned(),
                    found.mtime_nsec().cast_unsigned(),
                ];
                numbers.iter().for_each(|number| hasher.part(number.to_le_bytes()));
                hasher.part(found.mode().to_le_bytes());
            }
        }
        let parents = self
            .hidden
            .iter()
            .chain(&self.copies)
            .flat_map(|path| path.ancestors().skip(1));
        let folders: BTreeSet<&Path> = self.folders.iter().map(PathBuf::as_path).chain(parents).collect();
        for path in folders {
            hasher.part(path.as_os_str().as_encoded_bytes());
            if let Ok(found) = fs::symlink_metadata(source.join(path)) {
                let numbers = [found.mode(), found.uid(), found.gid()];
                numbers.iter().for_each(|number| hasher.part(number.to_le_bytes()));
            }
        }
    }
}

/// A folder that several look through at once: mostly they wait for the disk.
struct Walk<'a> {
    root: &'a Path,
    device: u64,
    own: bool,
    /// Whether files are copied where they would be nobody's, and in which folder of it not.
    copied: Option<&'static str>,
    /// Folders to look into, each with its depth, and how many are being looked into.
    work: Mutex<(Vec<(PathBuf, usize)>, usize)>,
    more: Condvar,
}

impl Walk<'_> {
    fn work(&self) -> io::Result<Hidden> {
        let mut found = Hidden::default();
        let mut trouble = None;
        loop {
            let (folder, depth) = {
                let mut work = self.work.lock().unwrap_or_else(PoisonError::into_inner);
                loop {
                    if let Some(next) = work.0.pop() {
                        work.1 += 1;
                        break next;
                    }
                    if work.1 == 0 {
                        self.more.notify_all();
                        return trouble.map_or(Ok(found), Err);
                    }
                    work = self.more.wait(work).unwrap_or_else(PoisonError::into_inner);
                }
            };
            let below = self.look(&folder, depth, &mut found);
            let mut work = self.work.lock().unwrap_or_else(PoisonError::into_inner);
            work.1 -= 1;
            match below {
                Ok(below) => work.0.extend(below),
                Err(error) => trouble = Some(error),
            }
            self.more.notify_all();
        }
    }

    /// Looks into one folder, and gives those in it that are to be looked into.
    fn look(&self, folder: &Path, depth: usize, found: &mut Hidden) -> io::Result<Vec<(PathBuf, usize)>> {
        let entries = match fs::read_dir(self.root.join(folder)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut below = Vec::new();
        for entry in entries {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_symlink() {
                continue;
            }
            let Ok(metadata) = entry.metadata() else { continue };
            let mode = metadata.mode();
            let path = || folder.join(entry.file_name());
            if kind.is_dir() {
                if mode & 0o005 != 0o005 {
                    found.hidden.push(path());
                } else if metadata.dev() == self.device {
                    // What is mounted there is no part of the folder; the overlay does not show it either.
                    if self.own && depth < OWN_DEPTH {
                        found.folders.push(path());
                    }
                    below.push((path(), depth + 1));
                }
            } else if !kind.is_file() || mode & 0o004 == 0 {
                found.hidden.push(path());
            } else if self.own && self.copied.is_some_and(|but| !folder.starts_with(but)) && metadata.len() <= LARGEST {
                found.copies.push(path());
            }
        }
        Ok(below)
    }
}

/// Makes a layer that hides those entries.
pub(super) fn make(hidden: &Hidden, source: &Path, mask: &Path, ids: Ids) -> io::Result<()> {
    let mut made = BTreeMap::new();
    for folder in &hidden.folders {
        parents(folder, source, mask, ids, &mut made)?;
    }
    for path in &hidden.copies {
        if let Some(parent) = path.parent() {
            parents(parent, source, mask, ids, &mut made)?;
        }
        // Anew, for it may have been made private meanwhile; what cannot be read shows through.
        let real = source.join(path);
        let open = fs::symlink_metadata(&real).is_ok_and(|found| found.is_file() && found.mode() & 0o004 != 0);
        if open && fs::copy(&real, mask.join(path)).is_err() {
            let _ = fs::remove_file(mask.join(path));
        }
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
