//! Unpacking archives that anybody may have made: as root inside, below one folder, within bounds.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek as _};
use std::os::fd::AsFd as _;
use std::path::{Component, Path};

use flate2::read::MultiGzDecoder;
use lzma_rust2::XzReader;
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, Timespec, Timestamps, fstatvfs, linkat, mkdirat, mknodat, openat,
    symlinkat, utimensat,
};
use rustix::process::{Resource, Rlimit, setrlimit};
use tar::{Archive, Entry, EntryType};

use super::failure::{Failure, Result, Trying as _};
use super::place::{Place, Root, set};
use super::remove::remove_at;
use super::{users, zstd};
use crate::backend::local::ids::{COUNT, Ids};
use crate::backend::local::wire::{Kind, Unpack};

/// What stands for a removed file, and for a folder of which nothing below shows (OCI image specification,
/// `layer.md`).
const REMOVED: &str = ".wh.";
const OPAQUE: &str = ".wh..wh..opq";

/// The most memory that unpacking takes, in bytes.
const MOST_MEMORY: u64 = 1 << 30;

/// Unpacks archives one over the other.
pub(super) fn unpack(ids: Ids, unpack: &Unpack) -> Result<()> {
    rustix::process::umask(Mode::empty());
    // Both are reached before the folders above are closed to this process.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let to = Root(openat(CWD, &unpack.to, flags, Mode::empty()).trying("cannot open the image's folder")?);
    let open = |path| File::open(path).trying("cannot open the archive");
    let archives = unpack.archives.iter().map(open).collect::<Result<Vec<_>>>()?;
    users::enter(&users::make(ids)?)?;
    bound_memory().trying("cannot bound this process's memory")?;
    let mut left = Left {
        bytes: unpack.most_bytes.min(room(&to).trying("cannot look at the disk")?),
        entries: unpack.most_entries,
    };
    for archive in &archives {
        if unpack.layers {
            each(archive, &mut left.clone(), |entry, path| whiteout(&to, path, entry))?;
        }
        each(archive, &mut left, |entry, path| {
            one(&to, path, entry, unpack.layers, ids)
        })?;
    }
    Ok(())
}

/// An archive can ask for any amount: by names without end, or by a dictionary of a compression's.
fn bound_memory() -> rustix::io::Result<()> {
    let most = Some(MOST_MEMORY);
    let limit = Rlimit {
        current: most,
        maximum: most,
    };
    setrlimit(Resource::As, limit)
}

/// How many bytes an image may take of a disk: a tenth of what is free is left to others.
fn room(to: &Root) -> rustix::io::Result<u64> {
    let disk = fstatvfs(&to.0)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize) / 10 * 9)
}

/// How much may still come.
#[derive(Debug, Clone)]
struct Left {
    bytes: u64,
    entries: u64,
}

fn each(
    archive: &File,
    left: &mut Left,
    mut visit: impl FnMut(&mut Entry<'_, &mut dyn Read>, &str) -> Result<()>,
) -> Result<()> {
    let mut file = archive;
    file.rewind().trying("cannot read the archive")?;
    let mut stream = decompress(archive)?.take(left.bytes.saturating_add(1));
    let mut archive = Archive::new(&mut stream as &mut dyn Read);
    for entry in archive.entries().trying("this is no archive")? {
        // What the library says of a header repeats what stands there, and that may be anything.
        let mut entry = entry.map_err(|error| damaged(&error))?;
        left.entries = left
            .entries
            .checked_sub(1)
            .ok_or_else(|| refused("it holds too many files"))?;
        // Holes count: they are no bytes of the archive.
        left.bytes = left
            .bytes
            .checked_sub(entry.size())
            .ok_or_else(|| refused("it holds too many bytes"))?;
        if entry.header().entry_type() == EntryType::XGlobalHeader {
            // Remarks on the archive as a whole, such as git's.
            continue;
        }
        let path = normal(&entry.path_bytes())?;
        if !path.is_empty() {
            visit(&mut entry, &path)?;
        }
    }
    Ok(())
}

fn damaged(error: &io::Error) -> Failure {
    let why = match error.kind() {
        io::ErrorKind::UnexpectedEof => ": it ends too early".to_owned(),
        // Texts of its own.
        io::ErrorKind::Other => String::new(),
        _ => format!(": {error}"),
    };
    super::invalid(format!("it is no archive, or damaged, or too large{why}"))
}

fn refused(why: &str) -> Failure {
    super::invalid(format!("the archive is refused: {why}"))
}

/// The bytes of an archive, by how its first ones say that it is compressed.
fn decompress(file: &File) -> Result<Box<dyn Read + '_>> {
    let mut file = file;
    let mut magic = [0; 6];
    let length = file.read(&mut magic).trying("cannot read the archive")?;
    file.rewind().trying("cannot read the archive")?;
    let reader = BufReader::with_capacity(256 << 10, file);
    Ok(match &magic[..length] {
        [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(reader)),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => Box::new(XzReader::new(reader, true)),
        magic if zstd::is_meant(magic) => Box::new(zstd::Frames::new(reader)),
        _ => Box::new(reader),
    })
}

/// A path as `/a/b`; empty for the root itself.
fn normal(bytes: &[u8]) -> Result<String> {
    let text = std::str::from_utf8(bytes).map_err(|_| refused("a name in it is no UTF-8"))?;
    let mut path = String::new();
    for part in Path::new(text).components() {
        match part {
            Component::CurDir => {}
            Component::Normal(part) => {
                path.push('/');
                path.push_str(&part.to_string_lossy());
            }
            Component::RootDir | Component::Prefix(_) => return Err(refused(&format!("{text:?} is an absolute path"))),
            Component::ParentDir => return Err(refused(&format!("{text:?} leads out of it"))),
        }
    }
    Ok(path)
}

/// First, what a layer removes of those below it.
fn whiteout(to: &Root, path: &str, _: &Entry<'_, &mut dyn Read>) -> Result<()> {
    let (folder, name) = path.rsplit_once('/').unwrap_or_default();
    if name == OPAQUE {
        let Ok(opened) = to.open(folder, OFlags::RDONLY | OFlags::DIRECTORY) else {
            return Ok(());
        };
        for item in Dir::read_from(&opened).trying(folder)? {
            let item = item.trying(folder)?;
            if !matches!(item.file_name().to_bytes(), b"." | b"..") {
                remove_at(opened.as_fd(), item.file_name()).trying(path)?;
            }
        }
    } else if let Some(gone) = name.strip_prefix(REMOVED) {
        let gone = format!("{folder}/{gone}");
        if !gone.ends_with("/.") && !gone.ends_with("/..") {
            super::change::remove(to, &gone)?;
        }
    }
    Ok(())
}

fn one(to: &Root, path: &str, entry: &mut Entry<'_, &mut dyn Read>, layers: bool, ids: Ids) -> Result<()> {
    let name = path.rsplit_once('/').unwrap_or_default().1;
    if layers && name.starts_with(REMOVED) {
        return Ok(());
    }
    let header = entry.header();
    let number = |number: io::Result<u64>| u32::try_from(number.unwrap_or(0)).unwrap_or(u32::MAX);
    let owner = match (number(header.uid()), number(header.gid())) {
        // There is nobody else, so all of it is root's, as what is given away inside stays root's.
        _ if ids.is_single() => (0, 0),
        (uid, gid) if uid.max(gid) >= COUNT => {
            let last = COUNT - 1;
            let why = format!("{path} belongs to {uid}:{gid}, and the ids of a sandbox end at {last}");
            return Err(refused(&why));
        }
        owner => owner,
    };
    let mode = header.mode().unwrap_or(0o644) & 0o7777;
    let time = header
        .mtime()
        .ok()
        .and_then(|time| i64::try_from(time).ok())
        .unwrap_or(0);
    let kind = header.entry_type();
    let place = to.made_parent(path, Some((0, 0)))?;
    let found = place.look().trying(path)?;
    let is_folder = found.is_some_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::Directory);
    if found.is_some() && !(is_folder && kind == EntryType::Directory) {
        remove_at(place.folder.as_fd(), place.name).trying(path)?;
    }
    match kind {
        EntryType::Directory => {
            if !is_folder {
                mkdirat(&place.folder, place.name, Mode::RWXU).trying(path)?;
            }
            place.set(mode, Some(owner), true).trying(path)?;
        }
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = openat(&place.folder, place.name, flags, Mode::RWXU).trying(path)?;
            let mut file = File::from(file);
            io::copy(entry, &mut file).trying(path)?;
            set(file.as_fd(), mode, Some(owner)).trying(path)?;
        }
        EntryType::Symlink => {
            let target = link_of(entry, path)?;
            symlinkat(target.as_slice(), &place.folder, place.name).trying(path)?;
            place.own(owner).trying(path)?;
        }
        EntryType::Link => {
            let target = normal(&link_of(entry, path)?)?;
            let from = to
                .parent(&target)
                .trying(format_args!("{path} is a second name of {target}"))?;
            return linkat(&from.folder, from.name, &place.folder, place.name, AtFlags::empty())
                .trying(format_args!("{path} is a second name of {target}"));
        }
        EntryType::Fifo => {
            mknodat(&place.folder, place.name, FileType::Fifo, Mode::RUSR, 0).trying(path)?;
            place.set(mode, Some(owner), false).trying(path)?;
        }
        // Every image may have some below /dev, where sandboxes get their own.
        EntryType::Char | EntryType::Block if path.starts_with("/dev/") => return Ok(()),
        EntryType::Char | EntryType::Block => return Err(refused(&format!("{path} is a device"))),
        _ => return Err(refused(&format!("{path} is nothing that a file system holds"))),
    }
    touch(&place, time).trying(path)
}

fn link_of(entry: &Entry<'_, &mut dyn Read>, path: &str) -> Result<Vec<u8>> {
    let target = entry.link_name_bytes().map(|target| target.into_owned());
    let target = target.filter(|target| !target.is_empty() && !target.contains(&0));
    target.ok_or_else(|| Failure::new(Kind::Invalid, format!("{path} is a link to nothing")))
}

fn touch(place: &Place<'_>, seconds: i64) -> rustix::io::Result<()> {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: 0,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    utimensat(&place.folder, place.name, &times, AtFlags::SYMLINK_NOFOLLOW)
}
