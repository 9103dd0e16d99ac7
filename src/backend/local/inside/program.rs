//! This program's own file, where nobody inside can write to it.
//!
//! Somebody inside can have it run once more, by a script whose first line names `/proc/self/exe`, and keep what
//! `/proc/PID/exe` then leads to. Where the user whose sandbox it is owns the file, root inside owns it, too.

use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use nix::sched::{CloneFlags, unshare};
use rustix::fs::CWD;
use rustix::mount::{OpenTreeFlags, open_tree};

use super::failure::{Failure, Result, Trying as _};
use super::sys;
use crate::backend::local::wire::Kind;

/// The file, by a mount of its own that is read-only and that no path leads to.
pub(super) fn read_only() -> Result<OwnedFd> {
    let own = Path::new("/proc/self/exe");
    let path = fs::read_link(own).trying("cannot find this program's file")?;
    let running = rustix::fs::stat(own).trying("cannot look at this program's file")?;
    // Only root may make mounts; in namespaces of its own, everybody is.
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS).trying("cannot make namespaces")?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mount = open_tree(CWD, &path, flags).trying("cannot mount this program's file")?;
    sys::make_read_only(mount.as_fd()).trying("cannot protect this program's file")?;
    let found = rustix::fs::fstat(&mount).trying("cannot look at this program's file")?;
    match (found.st_dev, found.st_ino) == (running.st_dev, running.st_ino) {
        true => Ok(mount),
        false => Err(Failure::new(
            Kind::Failed,
            format!("this program's file is no longer {}", path.display()),
        )),
    }
}
