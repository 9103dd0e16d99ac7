//! Paths of the machine that lead into containers, followed as the machine's root follows them.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use super::Dialect;
use super::tree::POOLS;

/// Where a path leads.
#[derive(Debug)]
pub(super) enum Place {
    Inside(PathBuf),
    /// Out of the container, by this link.
    Outside(String),
}

/// What Incus calls a pool.
pub(super) fn pool_of_incus(pool: &str, legacy: bool) -> &str {
    if legacy && pool == POOLS[0] { "default" } else { pool }
}

/// The container that a path of the machine leads into, and the rest of it.
pub(super) fn in_container(dialect: Dialect, legacy: bool, path: &str) -> Option<(String, String)> {
    POOLS.iter().find_map(|pool| {
        let prefix = match dialect {
            Dialect::V26 => format!("/mnt/.truenas_containers/{pool}/containers/"),
            _ => {
                let pool = pool_of_incus(pool, legacy);
                format!("/var/lib/incus/storage-pools/{pool}/containers/")
            }
        };
        let (name, rest) = path.strip_prefix(&prefix)?.split_once('/')?;
        let rest = match dialect {
            Dialect::V26 => rest,
            _ => rest.strip_prefix("rootfs/")?,
        };
        Some((name.to_owned(), rest.to_owned()))
    })
}

/// Follows a path below a root as somebody does who knows nothing of that root: links are followed, wherever they
/// lead. What would leave the root is told and not followed: it is a folder of the machine that runs the tests.
pub(super) fn walk(root: &Path, below: &str) -> Place {
    let mut left: Vec<String> = below.split('/').rev().map(str::to_owned).collect();
    let mut at: Vec<String> = Vec::new();
    let mut links = 0;
    let mut last_link = String::new();
    while let Some(part) = left.pop() {
        match part.as_str() {
            "" | "." => continue,
            ".." => {
                if at.pop().is_none() {
                    return Place::Outside(last_link);
                }
                continue;
            }
            _ => {}
        }
        let here = root.join(at.join("/")).join(&part);
        let Ok(target) = fs::read_link(&here) else {
            at.push(part);
            continue;
        };
        links += 1;
        last_link = format!("/{}", [at.as_slice(), &[part]].concat().join("/"));
        if target.is_absolute() || links > 40 {
            return Place::Outside(last_link);
        }
        left.extend(target.to_string_lossy().split('/').rev().map(str::to_owned));
    }
    Place::Inside(root.join(at.join("/")))
}

/// A path without `.` and `..`.
pub(super) fn normal(path: &Path) -> String {
    let mut parts: Vec<String> = Vec::new();
    for part in path.to_string_lossy().split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part.to_owned()),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Writes a file, and makes the folders that it needs.
pub(super) fn write(
    place: &Path,
    bytes: &[u8],
    append: bool,
    mode: Option<u32>,
    owner: (Option<u32>, Option<u32>),
) -> io::Result<()> {
    if let Some(parent) = place.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut options = fs::OpenOptions::new();
    options.create(true).write(true).append(append).truncate(!append);
    let mut file = options.open(place)?;
    file.write_all(bytes)?;
    if let Some(mode) = mode {
        file.set_permissions(fs::Permissions::from_mode(mode))?;
    }
    chown(place, owner.0, owner.1)
}
