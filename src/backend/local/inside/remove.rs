//! Removing folders, however deep, without following links.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, chmodat, openat, renameat, statat, unlinkat};
use rustix::io::Errno;

/// Folders that lie deeper than this are moved up before they are emptied: each level keeps a descriptor open.
const DEPTH: usize = 64;

/// Removes what stands at a path of ours; nothing there is no error.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    remove_at(CWD, path)
}

/// The same in a folder.
pub(super) fn remove_at(folder: BorrowedFd<'_>, name: impl rustix::path::Arg + Copy) -> io::Result<()> {
    loop {
        match unlinkat(folder, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::ISDIR) => {}
            // Some file systems say this of folders.
            Err(Errno::PERM) if is_folder(folder, name) => {}
            Err(error) => return Err(error.into()),
        }
        match enter(folder, name) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
            top => {
                let top = top?;
                let mut moved = 0;
                // Emptying moves deep folders up into this one, so it is done when a round has moved none.
                while empty(&top, &top, 0, &mut moved)? {}
            }
        }
        match unlinkat(folder, name, AtFlags::REMOVEDIR) {
            // Somebody has put something in since.
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => {}
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

fn is_folder(folder: BorrowedFd<'_>, name: impl rustix::path::Arg) -> bool {
    statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::Directory)
}

/// Opens a folder that is no link; one that its owner has closed to itself is opened first.
fn enter(folder: BorrowedFd<'_>, name: impl rustix::path::Arg + Copy) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(folder, name, flags, Mode::empty()) {
        Err(Errno::ACCESS) if is_folder(folder, name) => {
            chmodat(folder, name, Mode::RWXU, AtFlags::empty())?;
            openat(folder, name, flags, Mode::empty())
        }
        answer => answer,
    }
}

/// Empties a folder. Says whether anything was moved up into `top`.
fn empty(folder: &OwnedFd, top: &OwnedFd, depth: usize, moved: &mut u64) -> io::Result<bool> {
    let mut any = false;
    let names: Vec<_> = Dir::read_from(folder)?
        .map(|entry| entry.map(|entry| entry.file_name().to_owned()))
        .filter(|name| !name.as_ref().is_ok_and(|name| matches!(name.to_bytes(), b"." | b"..")))
        .collect::<Result<_, _>>()?;
    for name in &names {
        let name = name.as_c_str();
        match unlinkat(folder, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => continue,
            Err(Errno::ISDIR) => {}
            Err(Errno::PERM) if is_folder(folder.as_fd(), name) => {}
            Err(error) => return Err(error.into()),
        }
        if depth >= DEPTH {
            *moved += 1;
            renameat(folder, name, top, format!(".sbx-moved-{moved}"))?;
            any = true;
            continue;
        }
        let below = match enter(folder.as_fd(), name) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
            below => below?,
        };
        any |= empty(&below, top, depth + 1, moved)?;
        drop(below);
        match unlinkat(folder, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(any)
}
