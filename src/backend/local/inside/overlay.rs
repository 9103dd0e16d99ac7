//! Putting a disk together: one overlay for each of its parts.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use super::failure::{Failure, Result, Trying as _};
use super::sys;
use crate::backend::local::wire::{Kind, Lower, Part, Tree};

/// Mounts a disk in this process's mount namespace and makes its root the current folder: root inside could not go
/// there, for the folders above are closed to it. `users` is the namespace whose owners shifted folders get;
/// none where this process is in it, and cannot shift.
pub(super) fn assemble(tree: &Tree, users: Option<&OwnedFd>) -> Result<()> {
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        None::<&str>,
    )
    .trying("cannot make mounts private")?;
    for (index, part) in tree.parts.iter().enumerate() {
        let at = tree.at.join(&part.at);
        let made = overlay(tree, index, part, users).map_err(|error| {
            Failure::new(
                error.kind,
                format!("cannot put /{} together: {}", part.at, error.message),
            )
        })?;
        // No link can stand in the way: it would have to be in an image's own top folders.
        if fs::symlink_metadata(&at).is_ok_and(|found| found.is_symlink()) {
            return Err(Failure::new(Kind::Invalid, format!("/{} is a link", part.at)));
        }
        attach(&made, &at).trying(format_args!("cannot mount /{}", part.at))?;
        if part.upper.is_some()
            && rustix::fs::statvfs(&at).is_ok_and(|found| found.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
        {
            // The kernel says nothing when it cannot use the upper folder.
            return Err(Failure::new(Kind::Failed, format!("/{} cannot be written to", part.at)));
        }
    }
    nix::unistd::chdir(&tree.at).trying("cannot enter the root folder")
}

fn overlay(tree: &Tree, index: usize, part: &Part, users: Option<&OwnedFd>) -> Result<OwnedFd> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).trying("no overlays here")?;
    let set = |key: &str, value: &Path| {
        fsconfig_set_string(context.as_fd(), key, value.as_os_str().as_bytes())
            .trying(format_args!("{key} {}", value.display()))
    };
    set("source", Path::new("sbx-apply"))?;
    if users.is_none() {
        fsconfig_set_flag(context.as_fd(), "userxattr").trying("userxattr")?;
    }
    for (number, lower) in part.lowers.iter().enumerate() {
        set("lowerdir+", &reach(tree, index, number, lower, users)?)?;
    }
    if let Some((upper, work)) = &part.upper {
        set("upperdir", upper)?;
        set("workdir", work)?;
    }
    fsconfig_create(context.as_fd()).trying("the kernel refuses the overlay")?;
    // Devices of an image are none of the sandbox's.
    let attributes = MountAttrFlags::MOUNT_ATTR_NODEV;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes).trying("cannot make a mount of it")
}

/// The path of a lower folder, by way of a mount that shifts its owners where it has to be.
fn reach(tree: &Tree, part: usize, number: usize, lower: &Lower, users: Option<&OwnedFd>) -> Result<PathBuf> {
    let Some(users) = users.filter(|_| lower.shifted) else {
        return Ok(lower.path.clone());
    };
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    let detached = open_tree(CWD, &lower.path, flags).trying(format_args!("cannot reach {}", lower.path.display()))?;
    sys::shift_owners(detached.as_fd(), users.as_fd())
        .trying(format_args!("cannot shift the owners of {}", lower.path.display()))?;
    let at = tree.at.with_file_name("low").join(format!("{part}-{number}"));
    match fs::create_dir(&at) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(Failure::of("cannot make a folder", error));
        }
        _ => {}
    }
    attach(&detached, &at).trying("cannot attach it")?;
    Ok(at)
}

fn attach(mount: &OwnedFd, at: &Path) -> rustix::io::Result<()> {
    move_mount(
        mount.as_fd(),
        sys::EMPTY,
        CWD,
        at,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
}
