//! The image `host`: this machine's own system folders, read-only below a sandbox's layers.
//!
//! Only folders that hold programs and their settings are in it, by a list. Over each lies a *mask*, made once
//! for as long as the machine stays as it is: it hides every file that not everybody may read, because to root
//! inside all of them belong, and puts a few files of the sandbox's own in place.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Parts;
use super::mask::{self, Hidden};
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

/// Which mask holds, for as long as the machine looks the same.
#[derive(Debug, Serialize, Deserialize)]
struct Current {
    stamp: String,
    key: String,
}

impl Local {
    pub(super) async fn host_parts(&self) -> Result<Parts> {
        let (ids, images) = (self.ids, self.store.images());
        let host = blocking(move || Host::look(ids), "cannot look at this machine's system folders").await?;
        let place = match host.current(&images) {
            Some(place) => place,
            None => {
                let _lock = Lock::take(&self.store.names(), true, "the images").await?;
                let host = host.clone();
                let make = move || match host.current(&images) {
                    Some(place) => Ok(place),
                    None => host.make_current(ids, &images),
                };
                blocking(make, "cannot make the image `host`").await?
            }
        };
        Ok(host.parts(&place))
    }
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
    /// Changes whenever the folders have to be looked through again.
    stamp: String,
    /// Folders, as paths below `/`.
    folders: Vec<String>,
    /// Links in the root folder that lead into them: `bin` to `usr/bin`.
    links: BTreeMap<String, PathBuf>,
    /// What `/etc` hides, which is looked at each time: it is small, and secrets are put there by hand.
    etc: Hidden,
}

impl Host {
    fn look(ids: Ids) -> io::Result<Self> {
        let mut folders = Vec::new();
        let mut links = BTreeMap::new();
        let mut hasher = Hasher::new();
        hasher.part(env!("CARGO_PKG_VERSION"));
        for folder in FOLDERS {
            let path = Path::new("/").join(folder);
            let Ok(metadata) = fs::symlink_metadata(&path) else {
                continue;
            };
            hasher.part(folder);
            if metadata.is_symlink() {
                let target = fs::read_link(&path)?;
                hasher.part(target.as_os_str().as_encoded_bytes());
                links.insert(folder.to_owned(), target);
            } else if metadata.is_dir() {
                folders.push(folder.to_owned());
            }
        }
        // Programs come and go through these; what is put elsewhere by hand is found within a day.
        for path in [
            "/usr",
            "/usr/bin",
            "/usr/sbin",
            "/usr/lib",
            "/usr/local",
            "/usr/local/bin",
            "/usr/local/etc",
            "/usr/local/lib",
            "/usr/local/share",
            "/usr/share",
            "/opt",
            "/var/lib/dpkg/status",
            "/var/lib/rpm",
            "/lib/apk/db/installed",
            "/var/lib/pacman/local",
        ] {
            let Ok(metadata) = fs::metadata(path) else { continue };
            hasher.part(path);
            for number in [
                metadata.ino(),
                metadata.mtime().cast_unsigned(),
                metadata.mtime_nsec().cast_unsigned(),
                u64::from(metadata.mode()),
            ] {
                hasher.part(number.to_le_bytes());
            }
        }
        let today = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |now| now.as_secs() / 86_400);
        hasher.part(today.to_le_bytes());
        let etc = Hidden::in_folder(Path::new("/etc"), ids)?;
        etc.hash(Path::new("/etc"), &mut hasher);
        Ok(Self {
            stamp: hasher.finish().short().to_owned(),
            folders,
            links,
            etc,
        })
    }

    fn parts(&self, place: &Path) -> Parts {
        let root = Part {
            at: String::new(),
            lowers: vec![Lower {
                path: place.join("root"),
                shifted: false,
            }],
            upper: None,
        };
        let folders = self.folders.iter().map(|folder| Part {
            at: folder.clone(),
            lowers: vec![
                Lower {
                    path: place.join(folder_of(folder)),
                    shifted: false,
                },
                Lower {
                    path: Path::new("/").join(folder),
                    shifted: true,
                },
            ],
            upper: None,
        });
        Parts(std::iter::once(root).chain(folders).collect())
    }

    /// The mask that holds, where the machine looks as it did when that was found out.
    fn current(&self, images: &Path) -> Option<PathBuf> {
        let current: Current = serde_json::from_slice(&fs::read(images.join(CURRENT)).ok()?).ok()?;
        let place = images.join(format!("host-{}", current.key));
        (current.stamp == self.stamp && place.is_dir()).then_some(place)
    }

    /// Looks through the folders, and makes a mask where there is none yet for what is found: mostly nothing has
    /// changed.
    fn make_current(&self, ids: Ids, images: &Path) -> io::Result<PathBuf> {
        let mut hasher = Hasher::new();
        hasher.part(env!("CARGO_PKG_VERSION"));
        for (name, target) in &self.links {
            hasher.part(name);
            hasher.part(target.as_os_str().as_encoded_bytes());
        }
        let mut all = Vec::new();
        for folder in &self.folders {
            let source = Path::new("/").join(folder);
            let hidden = match folder.as_str() {
                "etc" => self.etc.clone(),
                _ => Hidden::in_folder(&source, ids)?,
            };
            hasher.part(folder);
            hidden.hash(&source, &mut hasher);
            all.push((folder.as_str(), source, hidden));
        }
        let key = hasher.finish().short().to_owned();
        let place = images.join(format!("host-{key}"));
        if !place.is_dir() {
            self.make(ids, images, &place, &all)?;
        }
        let current = Current {
            stamp: self.stamp.clone(),
            key,
        };
        write(&images.join(CURRENT), &current)?;
        Ok(place)
    }

    /// Makes the root folder and the masks: all of them or nothing.
    fn make(&self, ids: Ids, images: &Path, place: &Path, all: &[(&str, PathBuf, Hidden)]) -> io::Result<()> {
        let half = images.join(format!(".{}", id()?));
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
