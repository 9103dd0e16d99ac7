//! Changing files below a root.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::fs::{Dir, FileType, Mode, OFlags, mkdirat, openat, renameat, symlinkat};
use rustix::io::Errno;

use super::channel::Channel;
use super::failure::{Failure, Result, Trying as _};
use super::place::{Place, Root, set};
use super::remove::remove_at;
use crate::backend::local::wire::Kind;
use crate::model::GuestPath;

/// Names that were tried and taken, before it is given up.
const ATTEMPTS: u32 = 1000;

/// Makes a file under a passing name, as `make` does, and puts it in place of whatever stands there.
fn replace(
    place: &Place<'_>,
    path: &str,
    make: impl Fn(&str) -> rustix::io::Result<File>,
    fill: impl FnOnce(&File, &str) -> Result<bool>,
) -> Result<()> {
    let mut attempt = 0;
    let (file, passing) = loop {
        let passing = format!(".sbx-{}-{attempt}", std::process::id());
        match make(&passing) {
            Err(Errno::EXIST) if attempt < ATTEMPTS => attempt += 1,
            answer => break (answer.trying(path)?, passing),
        }
    };
    let done = fill(&file, &passing).and_then(|wanted| match wanted {
        true => put(place, path, &passing),
        false => Err(Failure::new(Kind::Invalid, format!("{path} was not written"))),
    });
    if done.is_err() {
        let _ = remove_at(place.folder.as_fd(), passing.as_str());
    }
    done
}

fn put(place: &Place<'_>, path: &str, passing: &str) -> Result<()> {
    loop {
        match renameat(&place.folder, passing, &place.folder, place.name) {
            // No rename puts a file in place of a folder.
            Err(Errno::ISDIR | Errno::NOTEMPTY | Errno::EXIST) => {
                remove_at(place.folder.as_fd(), place.name).trying(path)?;
            }
            answer => return answer.trying(path),
        }
    }
}

/// The bytes of a file, as the tool sends them.
struct Blocks<'a> {
    channel: &'a mut Channel,
    /// Whether the file is wanted: known once all bytes have come.
    wanted: Option<bool>,
}

impl Blocks<'_> {
    fn next(&mut self) -> Result<Option<Vec<u8>>> {
        let gone = || Failure::new(Kind::Failed, "the tool is gone");
        if self.wanted.is_some() {
            return Ok(None);
        }
        let block = self.channel.bytes().trying("the tool is gone")?.ok_or_else(gone)?;
        if !block.is_empty() {
            return Ok(Some(block));
        }
        let word = self.channel.bytes().trying("the tool is gone")?.ok_or_else(gone)?;
        self.wanted = Some(word == [1]);
        Ok(None)
    }
}

/// A regular file. Whatever goes wrong, all of its bytes are taken from the socket.
pub(super) fn write(
    root: &Root,
    path: &str,
    mode: u32,
    owner: Option<(u32, u32)>,
    channel: &mut Channel,
) -> Result<bool> {
    let mut blocks = Blocks { channel, wanted: None };
    let result = write_blocks(root, path, mode, owner, &mut blocks);
    while blocks.next()?.is_some() {}
    result
}

fn write_blocks(
    root: &Root,
    path: &str,
    mode: u32,
    owner: Option<(u32, u32)>,
    blocks: &mut Blocks<'_>,
) -> Result<bool> {
    let place = root.made_parent(path, owner)?;
    let there = place.look().trying(path)?.is_some();
    let make = |name: &str| {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(&place.folder, name, flags, Mode::from_raw_mode(0o600)).map(File::from)
    };
    replace(&place, path, make, |mut file, _| {
        while let Some(block) = blocks.next()? {
            file.write_all(&block).trying(path)?;
        }
        set(file.as_fd(), mode, owner).trying(path)?;
        Ok(blocks.wanted == Some(true))
    })?;
    Ok(there)
}

/// A folder.
pub(super) fn directory(root: &Root, path: &str, mode: u32, owner: (u32, u32)) -> Result<bool> {
    let place = root.made_parent(path, Some(owner))?;
    let found = place.look().trying(path)?;
    let is_folder = found
        .as_ref()
        .is_some_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::Directory);
    if !is_folder {
        remove_at(place.folder.as_fd(), place.name).trying(path)?;
        mkdirat(&place.folder, place.name, Mode::from_raw_mode(0o700)).trying(path)?;
    }
    place.set(mode, Some(owner), true).trying(path)?;
    Ok(found.is_some())
}

/// A symbolic link.
pub(super) fn symlink(root: &Root, path: &str, target: &str, owner: (u32, u32)) -> Result<bool> {
    if target.is_empty() {
        return Err(super::invalid(format!("{path}: a link needs a target")));
    }
    let place = root.made_parent(path, Some(owner))?;
    let there = place.look().trying(path)?.is_some();
    let make = |name: &str| {
        symlinkat(target, &place.folder, name)?;
        // There is nothing to fill.
        openat(&place.folder, ".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map(File::from)
    };
    replace(&place, path, make, |_, passing| {
        let made = Place {
            folder: rustix::io::dup(&place.folder).trying(path)?,
            name: passing,
        };
        made.own(owner).trying(path)?;
        Ok(true)
    })?;
    Ok(there)
}

/// Another mode and owner for the regular file that is there.
pub(super) fn attributes(root: &Root, path: &str, mode: u32, owner: (u32, u32)) -> Result<bool> {
    let place = root.parent(path).trying(path)?;
    match place.look().trying(path)? {
        None => Err(Failure::new(Kind::NotFound, format!("{path}: no such file"))),
        Some(found) if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile => {
            Err(super::invalid(format!("{path}: not a regular file")))
        }
        Some(_) => place.set(mode, Some(owner), false).trying(path).map(|()| true),
    }
}

/// Nothing. Says whether there was something.
pub(super) fn remove(root: &Root, path: &str) -> Result<bool> {
    let first = path
        .char_indices()
        .find(|(_, character)| *character == GuestPath::UNSAYABLE);
    if let Some((at, _)) = first {
        let end = path[at..].find('/').map_or(path.len(), |length| at + length);
        let Some(place) = there(root, &path[..end])? else {
            return Ok(false);
        };
        let parts: Vec<&str> = path[end..].split('/').filter(|part| !part.is_empty()).collect();
        return remove_told(place.folder.as_fd(), place.name, &parts).trying(path);
    }
    let Some(place) = there(root, path)? else {
        return Ok(false);
    };
    let there = place.look().trying(path)?.is_some();
    remove_at(place.folder.as_fd(), place.name).trying(path)?;
    Ok(there)
}

/// The place of a path; none where nothing could hold it.
fn there<'a>(root: &Root, path: &'a str) -> Result<Option<Place<'a>>> {
    match root.parent(path) {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        place => place.trying(path).map(Some),
    }
}

/// The same of all that is told by these names, the first one in the folder and each of the rest in the one before; see
/// [`GuestPath::told`].
fn remove_told(folder: BorrowedFd<'_>, first: &str, rest: &[&str]) -> io::Result<bool> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = openat(folder, ".", flags, Mode::empty())?;
    let mut there = false;
    let found: Vec<_> = Dir::read_from(&opened)?.collect::<rustix::io::Result<_>>()?;
    for item in found {
        let name = item.file_name();
        if matches!(name.to_bytes(), b"." | b"..") || GuestPath::told(name.to_bytes()) != first {
            continue;
        }
        let Some((next, after)) = rest.split_first() else {
            remove_at(folder, name)?;
            there = true;
            continue;
        };
        match openat(folder, name, flags, Mode::empty()) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
            inner => there |= remove_told(inner?.as_fd(), next, after)?,
        }
    }
    Ok(there)
}
