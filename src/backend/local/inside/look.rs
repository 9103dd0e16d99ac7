//! Looking at files below a root. Nothing but regular files is opened, and links are told, not followed, but for
//! those on the way and those that a reader names.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, fstat, openat, readlinkat, statat};
use rustix::io::Errno;

use super::failure::{Failure, Result, Trying as _};
use super::place::{Place, Root};
use crate::backend::local::wire::{Entry, EntryShape};
use crate::model::{GuestPath, Hasher, Inspection};

/// How much may lie below a folder that is listed, and how deep. A guest can make any number of files.
const MOST: usize = 100_000;
const DEEPEST: usize = 256;

/// What stands at some paths and below some folders, and the contents that come along, one after the other.
pub(super) fn inspect(
    root: &Root,
    paths: &[String],
    opaque: &[String],
    below: &[String],
    bound: u64,
) -> Result<(Vec<Entry>, Vec<u8>)> {
    let mut found = Vec::new();
    let mut contents = Vec::new();
    for folder in below {
        let Some(place) = parent(root, folder)? else { continue };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(&place.folder, place.name, flags, Mode::empty()) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
            opened => {
                let opened = opened.trying(folder)?;
                walk(&opened, folder, Names::Told, true, 0, &mut found)?;
            }
        }
    }
    let single = paths
        .iter()
        .map(|path| (path, true))
        .chain(opaque.iter().map(|path| (path, false)));
    for (path, keep) in single {
        let Some(place) = parent(root, path)? else { continue };
        let Some(stat) = place.look().trying(path)? else {
            continue;
        };
        let mut entry = entry(&place.folder, place.name, path.clone(), &stat).trying(path)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && size(&stat) <= bound {
            hash(&place, &mut entry, keep, bound, &mut contents)?;
        }
        found.push(entry);
    }
    Ok((found, contents))
}

/// The folder of a path; none where there is nothing that could hold it.
fn parent<'a>(root: &Root, path: &'a str) -> Result<Option<Place<'a>>> {
    match root.parent(path) {
        Ok(place) => Ok(Some(place)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(error) => Err(Failure::of(path, error)),
    }
}

/// Reads a regular file: its digest, and its bytes where they are few and wanted.
fn hash(place: &Place<'_>, entry: &mut Entry, keep: bool, bound: u64, contents: &mut Vec<u8>) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = match openat(&place.folder, place.name, flags, Mode::empty()) {
        // It has become something else since.
        Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => return Ok(()),
        opened => opened.trying(&entry.path)?,
    };
    if FileType::from_raw_mode(fstat(&opened).trying(&entry.path)?.st_mode) != FileType::RegularFile {
        return Ok(());
    }
    let mut file = File::from(opened).take(bound.saturating_add(1));
    let mut hasher = Hasher::new();
    let mut total = 0_u64;
    let mut kept = keep.then(Vec::new);
    let mut block = vec![0; 256 << 10];
    loop {
        let length = file.read(&mut block).trying(&entry.path)?;
        if length == 0 {
            break;
        }
        let bytes = &block[..length];
        hasher.update(bytes);
        total += length as u64;
        if total > Inspection::KEPT {
            kept = None;
        } else if let Some(kept) = &mut kept {
            kept.extend_from_slice(bytes);
        }
    }
    entry.size = total;
    if total > bound {
        // It grows while it is read.
        return Ok(());
    }
    let content = kept.map(|kept| {
        // Writing to a vector cannot fail.
        let _ = contents.write_all(&kept);
        total
    });
    entry.shape = EntryShape::File {
        digest: Some(hasher.finish()),
        content,
    };
    Ok(())
}

/// The first bytes of a regular file, and whether there are more. A link to one is followed, inside.
pub(super) fn read(root: &Root, path: &str, most: u64) -> Result<(Vec<u8>, bool)> {
    let opened = match root.open(path, OFlags::RDONLY | OFlags::NONBLOCK) {
        Err(Errno::NXIO) => return Err(not_regular(path)),
        opened => opened.trying(path)?,
    };
    let stat = fstat(&opened).trying(path)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(not_regular(path));
    }
    let mut bytes = Vec::new();
    File::from(opened)
        .take(most.saturating_add(1))
        .read_to_end(&mut bytes)
        .trying(path)?;
    let truncated = bytes.len() as u64 > most;
    bytes.truncate(usize::try_from(most).unwrap_or(usize::MAX));
    Ok((bytes, truncated))
}

fn not_regular(path: &str) -> Failure {
    super::invalid(format!("{path}: not a regular file"))
}

/// What lies in a folder, or anywhere below it.
pub(super) fn list(root: &Root, path: &str, recursive: bool) -> Result<Vec<Entry>> {
    let folder = root.open(path, OFlags::RDONLY | OFlags::DIRECTORY).trying(path)?;
    let mut found = Vec::new();
    walk(&folder, path, Names::All, recursive, 0, &mut found)?;
    Ok(found)
}

/// How names are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Names {
    /// As a path of ours can say them; see [`GuestPath::told`].
    Told,
    /// As they are.
    All,
}

fn walk(
    folder: &OwnedFd,
    path: &str,
    names: Names,
    recursive: bool,
    depth: usize,
    found: &mut Vec<Entry>,
) -> Result<()> {
    if depth > DEEPEST {
        return Err(super::invalid(format!(
            "{path}: more than {DEEPEST} folders in each other"
        )));
    }
    for item in Dir::read_from(folder).trying(path)? {
        let item = item.trying(path)?;
        let name = item.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let text = match names {
            Names::Told => GuestPath::told(name.to_bytes()),
            Names::All => name.to_string_lossy().into_owned(),
        };
        let stat = match statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => continue,
            stat => stat.trying(path)?,
        };
        if found.len() >= MOST {
            return Err(super::invalid(format!("{path}: more than {MOST} entries")));
        }
        let own = format!("{}/{text}", path.trim_end_matches('/'));
        match entry(folder, name, own.clone(), &stat) {
            Err(Errno::NOENT | Errno::INVAL) => continue,
            entry => found.push(entry.trying(&own)?),
        }
        if recursive && FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            match openat(folder, name, flags, Mode::empty()) {
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                below => walk(&below.trying(&own)?, &own, names, true, depth + 1, found)?,
            }
        }
    }
    Ok(())
}

fn size(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or_default()
}

/// What stands there, its content aside.
fn entry(folder: &OwnedFd, name: impl rustix::path::Arg, path: String, stat: &Stat) -> rustix::io::Result<Entry> {
    let shape = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => EntryShape::File {
            digest: None,
            content: None,
        },
        FileType::Directory => EntryShape::Directory,
        FileType::Symlink => {
            let target = readlinkat(folder.as_fd(), name, Vec::new())?;
            EntryShape::Symlink(String::from_utf8_lossy(target.to_bytes()).into_owned())
        }
        _ => EntryShape::Special,
    };
    let size = match shape {
        EntryShape::File { .. } | EntryShape::Symlink(_) => size(stat),
        _ => 0,
    };
    Ok(Entry {
        path,
        shape,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        size,
    })
}
