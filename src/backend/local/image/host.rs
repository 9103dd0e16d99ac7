//! The image `host`: this machine's own system folders, read-only below a sandbox's layers.
//!
//! Only folders that hold programs and their settings are in it, by a list. Over each lies a *mask*, made once
//! for as long as the machine stays as it is: it hides every file that not everybody may read, because to root
//! inside all of them belong, and holds what is the sandbox's own.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::Parts;
use super::mask::{self, Hidden, How};
use crate::backend::Result;
use crate::backend::local::Local;
use crate::backend::local::ids::Ids;
use crate::backend::local::state::{Lock, failed, folder_of, id, private, write};
use crate::backend::local::wire::{Lower, Part};
use crate::model::Hasher;

/// Where programs and their settings are. Nothing else of this machine is in the image.
const FOLDERS: [&str; 12] = [
    "usr",
    "etc",
    "opt",
    "bin",
    "sbin",
    "lib",
    "lib32",
    "lib64",
    "libx32",
    "libo32",
    "var/lib/dpkg",
    "var/lib/apt",
];
/// Empty folders of the root, with their modes.
const EMPTY: [(&str, u32); 20] = [
    ("dev", 0o755),
    ("home", 0o755),
    ("media", 0o755),
    ("mnt", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("run/lock", 0o1777),
    ("srv", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("var", 0o755),
    ("var/cache", 0o755),
    ("var/lib", 0o755),
    ("var/local", 0o755),
    ("var/log", 0o755),
    ("var/mail", 0o775),
    ("var/opt", 0o755),
    ("var/spool", 0o755),
    ("var/tmp", 0o1777),
];

/// The file, among the images, that says which mask holds.
const CURRENT: &str = "host.json";
/// For so long nothing is looked through again: about what one run of the tool takes, and as long as what is made
/// private on this machine may go unnoticed.
const HOLDS: Duration = Duration::from_secs(10);
/// Masks that have been of use within this time are kept.
const KEPT: Duration = Duration::from_secs(3600);

/// Which mask holds.
#[derive(Debug, Serialize, Deserialize)]
struct Current {
    /// When the folders were looked through.
    looked: SystemTime,
    /// The name of the mask.
    mask: String,
}

impl Local {
    pub(super) async fn host_parts(&self) -> Result<Parts> {
        let images = self.store.images();
        let host = Host::look().map_err(|source| failed("cannot look at this machine's system folders", source))?;
        if let Some(mask) = current(&images) {
            return Ok(host.parts(&images.join(mask), self.ids));
        }
        let _lock = Lock::take(&self.store.root().join("lock-host"), true, "the image `host`").await?;
        let mask = match current(&images) {
            Some(mask) => mask,
            None => {
                let (ids, images, host) = (self.ids, images.clone(), host.clone());
                let mask = blocking(move || host.make_current(ids, &images), "cannot make the image `host`").await?;
                self.remove_masks(&mask).await?;
                mask
            }
        };
        Ok(host.parts(&images.join(mask), self.ids))
    }

    /// Removes masks that are of no use any more: neither that one, nor a sandbox's, nor one that was chosen a
    /// moment ago.
    async fn remove_masks(&self, current: &str) -> Result<()> {
        let cannot = |source| failed("cannot read the images", source);
        let mut used = vec![current.to_owned()];
        for name in self.store.all()? {
            used.extend(fs::read_to_string(self.store.sandbox(&name)?.join(MASK)));
        }
        let mut any = false;
        for entry in fs::read_dir(self.store.images()).map_err(cannot)? {
            let entry = entry.map_err(cannot)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let idle = || entry.metadata().is_ok_and(|found| found.modified().is_ok_and(is_idle));
            // Whoever makes one has the lock, so a half is nobody's.
            let unused = name.starts_with(PREFIX) && !used.contains(&name) && idle();
            if unused || name.starts_with(HALF) {
                self.store.discard(&entry.path())?;
                any = true;
            }
        }
        match any {
            true => self.store.empty_trash(self.ids, &self.helpers).await,
            false => Ok(()),
        }
    }
}

/// The file, in a sandbox's folder, that names the mask with which it was started last.
pub(in crate::backend::local) const MASK: &str = "mask";
/// What names of masks begin with, and of those that are not whole yet.
const PREFIX: &str = "host-";
const HALF: &str = ".host-";

/// The mask of some parts, where their image has one.
pub(in crate::backend::local) fn mask_of(parts: &Parts) -> Option<&str> {
    let root = &parts.0.first()?.lowers.first()?.path;
    let name = root.parent()?.file_name()?.to_str()?;
    name.starts_with(PREFIX).then_some(name)
}

fn is_idle(used: SystemTime) -> bool {
    used.elapsed().is_ok_and(|age| age > KEPT)
}

/// The mask that holds, where that was found out a moment ago.
fn current(images: &Path) -> Option<String> {
    let current: Current = serde_json::from_slice(&fs::read(images.join(CURRENT)).ok()?).ok()?;
    // One of the future says that somebody has set the clock.
    let holds = current.looked.elapsed().is_ok_and(|age| age < HOLDS);
    let place = images.join(&current.mask);
    // It is of use, and not to be removed before whoever asks has begun to use it.
    (holds && touch(&place).is_ok()).then_some(current.mask)
}

/// Says that an image is of use now.
pub(super) fn touch(place: &Path) -> io::Result<()> {
    fs::File::open(place)?.set_modified(SystemTime::now())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static, cannot: &str) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)
        .and_then(|done| done)
        .map_err(|source| failed(cannot, source))
}

/// This machine's system folders.
#[derive(Debug, Clone)]
struct Host {
    /// Folders, as paths below `/`.
    folders: Vec<String>,
    /// Links in the root folder that lead into them: `bin` to `usr/bin`.
    links: BTreeMap<String, PathBuf>,
}

impl Host {
    fn look() -> io::Result<Self> {
        let mut folders = Vec::new();
        let mut links = BTreeMap::new();
        for folder in FOLDERS {
            let path = Path::new("/").join(folder);
            let Ok(metadata) = fs::symlink_metadata(&path) else {
                continue;
            };
            if metadata.is_symlink() {
                links.insert(folder.to_owned(), fs::read_link(&path)?);
            } else if metadata.is_dir() {
                folders.push(folder.to_owned());
            }
        }
        Ok(Self { folders, links })
    }

    fn parts(&self, place: &Path, ids: Ids) -> Parts {
        let mask = |folder: &str| Lower {
            path: place.join(folder_of(folder)),
            shifted: false,
        };
        let part = |at: &str, lowers| Part {
            at: at.to_owned(),
            lowers,
            upper: None,
        };
        let folders = self.folders.iter().map(|folder| {
            let how = How::of(folder, ids);
            let real = how.shows().then(|| Lower {
                path: Path::new("/").join(folder),
                shifted: how == How::Shifted,
            });
            part(folder, std::iter::once(mask(folder)).chain(real).collect())
        });
        Parts(std::iter::once(part("", vec![mask("")])).chain(folders).collect())
    }

    /// Looks through the folders, and makes a mask where there is none yet for what is found: mostly nothing has
    /// changed.
    fn make_current(&self, ids: Ids, images: &Path) -> io::Result<String> {
        let looked = SystemTime::now();
        let mut hasher = Hasher::new();
        hasher.part(env!("CARGO_PKG_VERSION"));
        for (name, target) in &self.links {
            hasher.part(name);
            hasher.part(target.as_os_str().as_encoded_bytes());
        }
        let mut all = Vec::new();
        for folder in &self.folders {
            let source = Path::new("/").join(folder);
            let hidden = Hidden::in_folder(&source, How::of(folder, ids))?;
            hasher.part(folder);
            hidden.hash(&source, &mut hasher);
            all.push((folder.as_str(), source, hidden));
        }
        let mask = format!("{PREFIX}{}", hasher.finish().short());
        let place = images.join(&mask);
        if touch(&place).is_err() {
            self.make(ids, images, &place, &all)?;
        }
        let current = Current { looked, mask };
        write(&images.join(CURRENT), &current)?;
        Ok(current.mask)
    }

    /// Makes the root folder and the masks: all of them or nothing.
    fn make(&self, ids: Ids, images: &Path, place: &Path, all: &[(&str, PathBuf, Hidden)]) -> io::Result<()> {
        let half = images.join(format!("{HALF}{}", id()?));
        private().create(&half)?;
        let folder = |path: &Path, mode: u32| folder(path, mode, ids);
        let root = half.join("root");
        folder(&root, 0o755)?;
        for (path, mode) in EMPTY {
            folder(&root.join(path), mode)?;
        }
        for path in &self.folders {
            if !root.join(path).exists() {
                folder(&root.join(path), 0o755)?;
            }
        }
        for (name, target) in &self.links {
            symlink(target, root.join(name))?;
        }
        for (path, target) in [("var/run", "/run"), ("var/lock", "/run/lock")] {
            symlink(target, root.join(path))?;
        }
        for (path, source, hidden) in all {
            let mask = half.join(folder_of(path));
            folder(&mask, 0o755)?;
            mask::make(hidden, source, &mask, ids)?;
        }
        file(&half.join("etc/fstab"), "", ids)?;
        fs::rename(&half, place)
    }
}

/// Makes a folder of root inside, or makes it so.
pub(in crate::backend::local) fn folder(path: &Path, mode: u32, ids: Ids) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o755).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    own(path, ids)
}

/// Makes a file of root inside, readable by everybody, in the place of whatever stands there.
pub(in crate::backend::local) fn file(path: &Path, text: &str, ids: Ids) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))?;
    own(path, ids)
}

/// Gives a path to root inside.
fn own(path: &Path, ids: Ids) -> io::Result<()> {
    let (uid, gid) = ids.outside(0, 0);
    match ids.is_root() {
        true => chown(path, Some(uid), Some(gid)),
        false => Ok(()),
    }
}
