//! Folders and files of this machine, and volumes, in a sandbox's tree: put there before anything runs in it.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, mknodat, openat2, statat};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use super::failure::{Failure, Result, Trying as _};
use super::place::Root;
use super::sys;
use crate::backend::attachable::{make_below, open_source};
use crate::backend::local::ids::Ids;
use crate::backend::local::wire::{Bind, Kind};

/// Binds all of them below the current folder. `users` is the namespace whose owners shifted ones get.
pub(super) fn bind_all(binds: &[Bind], ids: Ids, users: Option<&OwnedFd>) -> Result<()> {
    if binds.is_empty() {
        return Ok(());
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(".", flags, Mode::empty()).trying("cannot open the root folder")?;
    let root = Root(root);
    // Root inside owns what is made for it; where this process is root inside, that goes without saying.
    let owner = ids.is_root().then(|| ids.outside(0, 0));
    for (index, bind) in binds.iter().enumerate() {
        let bound = place(&binds[..index], bind).and_then(|()| one(&root, bind, owner, users));
        bound.map_err(|error| Failure::new(error.kind, format!("cannot mount {}: {}", bind.at, error.message)))?;
    }
    Ok(())
}

/// Makes what one comes to lie over that lies in another, outside: nobody can own anything through a mount with other
/// owners who is none of them.
fn place(before: &[Bind], bind: &Bind) -> Result<()> {
    let outer = before.iter().rev().find_map(|outer| {
        let below = bind.at.strip_prefix(&outer.at)?.strip_prefix('/')?;
        Some((outer, below))
    });
    let Some((outer, below)) = outer.filter(|_| bind.source.is_dir()) else {
        return Ok(());
    };
    make_below(&outer.source, below).map_err(|error| Failure::new(Kind::Invalid, error.to_string()))
}

fn one(root: &Root, bind: &Bind, owner: Option<(u32, u32)>, users: Option<&OwnedFd>) -> Result<()> {
    let source = open_source(&bind.source).map_err(|error| Failure::new(Kind::Invalid, error.to_string()))?;
    let found = fstat(&source).trying("cannot look at it")?;
    let is_folder = FileType::from_raw_mode(found.st_mode) == FileType::Directory;
    // Without what is mounted below: that is nobody's to see.
    let mount = copy(&source)?;
    if let Some(users) = users.filter(|_| bind.shifted) {
        sys::shift_owners(mount.as_fd(), users.as_fd()).trying("its file system cannot map owners")?;
    }
    sys::close_to_devices(mount.as_fd()).trying("cannot close it to devices")?;
    if bind.readonly {
        sys::make_read_only(mount.as_fd()).trying("cannot make it read-only")?;
    }
    let target = target(root, &bind.at, is_folder, owner)?;
    attach(&mount, &target).trying("cannot attach it")?;
    for path in &bind.guarded {
        guard(root, &bind.at, path).map_err(|error| {
            Failure::new(
                error.kind,
                format!("cannot keep {path} from being written: {}", error.message),
            )
        })?;
    }
    Ok(())
}

fn copy(of: &OwnedFd) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    match open_tree(of, sys::EMPTY, flags) {
        Err(Errno::INVAL) => Err(Failure::new(
            Kind::Invalid,
            "something else of this machine is mounted below it, which only sandboxes of root can do without; mount a \
             folder that has nothing mounted below it",
        )),
        made => made.trying("cannot make a mount of it"),
    }
}

fn attach(mount: &OwnedFd, at: &OwnedFd) -> rustix::io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount.as_fd(), sys::EMPTY, at.as_fd(), sys::EMPTY, flags)
}

/// What a mount comes to lie over, made where it is missing.
fn target(root: &Root, at: &str, is_folder: bool, owner: Option<(u32, u32)>) -> Result<OwnedFd> {
    let place = root.made_parent(at, owner)?;
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    match statat(&place.folder, place.name, flags) {
        Ok(_) => {}
        Err(Errno::NOENT) if is_folder => {
            mkdirat(&place.folder, place.name, Mode::from_raw_mode(0o755)).trying("cannot make a folder for it")?;
            place.set(0o755, owner, true).trying("cannot make a folder for it")?;
        }
        Err(Errno::NOENT) => {
            let mode = Mode::from_raw_mode(0o644);
            mknodat(&place.folder, place.name, FileType::RegularFile, mode, 0).trying("cannot make a file for it")?;
            place.set(0o644, owner, false).trying("cannot make a file for it")?;
        }
        Err(error) => return Err(error).trying("cannot look at what is there"),
    }
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(&place.folder, place.name, flags, Mode::empty()).trying("cannot open it")?;
    let found = fstat(&opened).trying("cannot look at it")?;
    match (FileType::from_raw_mode(found.st_mode), is_folder) {
        (FileType::Directory, true) | (FileType::RegularFile, false) => Ok(opened),
        (FileType::Symlink, _) => Err(Failure::new(
            Kind::Failed,
            "a link stands there; mount it where that leads, or apply once without it and remove the link inside",
        )),
        (FileType::Directory, false) => Err(Failure::new(Kind::Failed, "it is a file, and a folder stands there")),
        _ => Err(Failure::new(
            Kind::Failed,
            "it is a folder, and something else stands there",
        )),
    }
}

/// Lays a file over itself, read-only, and each folder on the way to it over itself: what something is mounted on cannot be
/// put aside. Links are not followed.
fn guard(root: &Root, at: &str, path: &str) -> Result<()> {
    let ends = path.match_indices('/').map(|(end, _)| end).chain([path.len()]);
    for end in ends {
        let folder = root
            .open(at, OFlags::PATH | OFlags::DIRECTORY)
            .trying("cannot open the mount")?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let strictly = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let part = Path::new(&path[..end]);
        let found = openat2(&folder, part, flags, Mode::empty(), strictly).trying("it is not as it was")?;
        let over = copy(&found)?;
        if end == path.len() {
            sys::make_read_only(over.as_fd()).trying("cannot make it read-only")?;
        }
        attach(&over, &found).trying("cannot attach it")?;
    }
    Ok(())
}
