//! What of this machine's folders a sandbox sees, and what it gets as its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, lchown, symlink,
};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;

use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};

use crate::backend::local::ids::Ids;
use crate::model::Hasher;

/// Folders up to this depth become root's inside where owners are not shifted, so that things can be put
/// there.
const OWN_DEPTH: usize = 3;
/// Files that are larger are not copied, in bytes.
const LARGEST: u64 = 32 << 20;
/// Threads that look through a folder.
const WORKERS: usize = 8;

/// How a folder of this machine comes into a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// It shows through, owners shifted: root inside may read and change all of it, but for what is hidden.
    Shifted,
    /// It shows through as it is: nobody's inside, so that the kernel itself keeps private files private, also
    /// those of tomorrow. The folders near its top are made anew, as root's.
    Plain,
    /// The same, and its files are copies, so that programs that change them in place can; but in one folder of it.
    PlainWithCopies(&'static str),
    /// A copy of what everybody may read. Nothing of it shows through.
    Copy,
}

impl How {
    /// How a folder, named below `/`, comes into a sandbox.
    pub(super) fn of(folder: &str, ids: Ids) -> Self {
        match folder {
            // Secrets are put there by hand, and stand in passing files while passwords are changed.
            "etc" => Self::Copy,
            "opt" => Self::Plain,
            _ if ids.is_root() => Self::Shifted,
            // What is large and replaced as a whole is no copy.
            "var/lib/dpkg" => Self::PlainWithCopies("info"),
            "var/lib/apt" => Self::PlainWithCopies("lists"),
            _ => Self::Plain,
        }
    }

    /// Whether what is below shows through.
    pub(super) fn shows(self) -> bool {
        self != Self::Copy
    }

    /// Whether a folder of such a depth, 0 for those right below, is made anew.
    fn anew(self, depth: usize) -> bool {
        match self {
            Self::Shifted => false,
            Self::Plain | Self::PlainWithCopies(_) => depth < OWN_DEPTH,
            Self::Copy => true,
        }
    }

    /// Whether what lies in a folder is copied.
    fn copies(self, folder: &Path) -> bool {
        match self {
            Self::Shifted | Self::Plain => false,
            Self::PlainWithCopies(but) => !folder.starts_with(but),
            Self::Copy => true,
        }
    }
}

/// Entries below a folder that are hidden, and those that are made anew.
#[derive(Debug, Default)]
pub(super) struct Hidden {
    /// Hidden, by relative path.
    hidden: Vec<PathBuf>,
    /// Folders of the sandbox's own, parents first.
    folders: Vec<PathBuf>,
    /// Files and links of the sandbox's own.
    copies: Vec<PathBuf>,
}

impl Hidden {
    /// Looks through a folder. Hidden is what not everybody may read, and what is neither file, folder nor link:
    /// a socket would reach a program of this machine.
    pub(super) fn in_folder(folder: &Path, how: How) -> io::Result<Self> {
        let walk = Walk {
            root: folder,
            device: fs::symlink_metadata(folder)?.dev(),
            how,
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
        hasher.part((self.copies.len() as u64).to_le_bytes());
        for path in &self.copies {
            hasher.part(path.as_os_str().as_encoded_bytes());
            if let Ok(found) = fs::symlink_metadata(source.join(path)) {
                let numbers = [
                    found.ino(),
                    found.size(),
                    found.ctime().cast_unsigned(),
                    found.ctime_nsec().cast_unsigned(),
                ];
                numbers.iter().for_each(|number| hasher.part(number.to_le_bytes()));
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
    how: How,
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
            let path = || folder.join(entry.file_name());
            if kind.is_symlink() {
                if self.how == How::Copy {
                    found.copies.push(path());
                }
                continue;
            }
            let Ok(metadata) = entry.metadata() else { continue };
            let mode = metadata.mode();
            if kind.is_dir() {
                if mode & 0o005 != 0o005 {
                    found.hide(path(), self.how);
                } else if metadata.dev() == self.device {
                    // What is mounted there is no part of the folder; the overlay does not show it either.
                    if self.how.anew(depth) {
                        found.folders.push(path());
                    }
                    below.push((path(), depth + 1));
                }
            } else if !kind.is_file() || mode & 0o004 == 0 {
                found.hide(path(), self.how);
            } else if self.how.copies(folder) && metadata.len() <= LARGEST {
                found.copies.push(path());
            }
        }
        Ok(below)
    }
}

impl Hidden {
    fn hide(&mut self, path: PathBuf, how: How) {
        if how.shows() {
            self.hidden.push(path);
        }
    }
}

/// Makes a layer that hides those entries, and holds those that are copied.
pub(super) fn make(hidden: &Hidden, source: &Path, mask: &Path, ids: Ids) -> io::Result<()> {
    let mut made = BTreeMap::new();
    for folder in &hidden.folders {
        parents(folder, source, mask, ids, &mut made)?;
    }
    for path in &hidden.copies {
        if let Some(parent) = path.parent() {
            parents(parent, source, mask, ids, &mut made)?;
        }
        if copy(&source.join(path), &mask.join(path), ids).is_err() {
            // It is gone, or private by now.
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

/// Copies a link, or a file that everybody may read.
fn copy(source: &Path, place: &Path, ids: Ids) -> io::Result<()> {
    let found = fs::symlink_metadata(source)?;
    if found.is_symlink() {
        symlink(fs::read_link(source)?, place)?;
        return own(place, &found, ids);
    }
    // What is looked at is what is read: a name can come to mean something else in between.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = File::options().read(true).custom_flags(flags).open(source)?;
    let found = file.metadata()?;
    if !found.is_file() || found.mode() & 0o004 == 0 {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let mut copy = File::options().write(true).create_new(true).mode(0o600).open(place)?;
    io::copy(&mut file.take(LARGEST), &mut copy)?;
    own(place, &found, ids)?;
    fs::set_permissions(place, fs::Permissions::from_mode(found.mode() & 0o7777))
}

/// Gives a path to whom it belongs in the source, as far as there is anybody but root inside.
fn own(place: &Path, found: &fs::Metadata, ids: Ids) -> io::Result<()> {
    let (uid, gid) = ids.outside(found.uid(), found.gid());
    match ids.is_root() {
        true => lchown(place, Some(uid), Some(gid)),
        false => Ok(()),
    }
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
    own(&place, &metadata, ids)?;
    fs::set_permissions(&place, fs::Permissions::from_mode(metadata.mode() & 0o7777))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with a public and a private file, a private folder, a link, a pipe, and a file deep down.
    fn source() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        fs::create_dir_all(path("a/b/c/d/e")).expect("makes");
        fs::create_dir(path("closed")).expect("makes");
        for (file, mode) in [
            ("a/open", 0o644),
            ("a/private", 0o640),
            ("closed/open", 0o644),
            ("a/b/c/d/e/deep", 0o600),
        ] {
            fs::write(path(file), file).expect("writes");
            fs::set_permissions(path(file), fs::Permissions::from_mode(mode)).expect("sets");
        }
        fs::set_permissions(path("closed"), fs::Permissions::from_mode(0o750)).expect("sets");
        symlink("open", path("a/link")).expect("links");
        mknodat(CWD, path("a/pipe"), FileType::Fifo, Mode::from_raw_mode(0o666), 0).expect("makes");
        folder
    }

    fn names(paths: &[PathBuf]) -> Vec<&str> {
        paths.iter().filter_map(|path| path.to_str()).collect()
    }

    #[test]
    fn what_not_everybody_may_read_is_hidden_however_deep() {
        let source = source();
        for (how, folders) in [
            (How::Shifted, &[][..]),
            (How::Plain, &["a", "a/b", "a/b/c"]),
            (How::PlainWithCopies("a/b"), &["a", "a/b", "a/b/c"]),
        ] {
            let found = Hidden::in_folder(source.path(), how).expect("looks");
            assert_eq!(
                names(&found.hidden),
                ["a/b/c/d/e/deep", "a/pipe", "a/private", "closed"],
                "{how:?}"
            );
            assert_eq!(names(&found.folders), folders, "{how:?}");
        }
    }

    #[test]
    fn a_copy_has_what_everybody_may_read_and_nothing_else() {
        let (source, mask) = (source(), tempfile::tempdir().expect("a folder"));
        let uid = rustix::process::geteuid().as_raw();
        let ids = Ids::Single { uid, gid: uid };
        let found = Hidden::in_folder(source.path(), How::Copy).expect("looks");
        assert_eq!(names(&found.copies), ["a/link", "a/open"]);
        // What has become private, or something else, since it was found is not copied.
        make(&found, source.path(), mask.path(), ids).expect("makes");
        assert_eq!(fs::read_to_string(mask.path().join("a/link")).expect("reads"), "a/open");
        assert!(!mask.path().join("a/private").exists() && !mask.path().join("closed").exists());
        fs::remove_dir_all(mask.path().join("a")).expect("removes");
        let open = source.path().join("a/open");
        fs::set_permissions(&open, fs::Permissions::from_mode(0o600)).expect("sets");
        make(&found, source.path(), mask.path(), ids).expect("makes");
        assert!(!mask.path().join("a/open").exists());
    }

    #[test]
    fn a_fingerprint_moves_with_what_matters() {
        let source = source();
        let print = |how| {
            let mut hasher = Hasher::new();
            let found = Hidden::in_folder(source.path(), how).expect("looks");
            found.hash(source.path(), &mut hasher);
            hasher.finish()
        };
        let before = [print(How::Shifted), print(How::Copy)];
        assert_eq!(before, [print(How::Shifted), print(How::Copy)]);
        fs::write(source.path().join("a/open"), "other").expect("writes");
        let after = [print(How::Shifted), print(How::Copy)];
        assert_eq!(before[0], after[0], "what shows through needs no new mask");
        assert_ne!(before[1], after[1]);
        let open = source.path().join("a/open");
        fs::set_permissions(&open, fs::Permissions::from_mode(0o600)).expect("sets");
        assert_ne!(after[0], print(How::Shifted));
    }
}
