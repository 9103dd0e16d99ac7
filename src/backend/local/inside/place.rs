//! From a path to a place below a sandbox's root: links on the way are followed, inside and never out.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, ResolveFlags, Stat, Uid, chownat, fchmod, mkdirat, openat2, statat};
use rustix::io::Errno;

use super::failure::{Failure, Result, Trying as _};
use crate::backend::local::wire::Kind;

/// A root folder, however the sandbox's own processes change what is below it.
#[derive(Debug)]
pub(super) struct Root(pub(super) OwnedFd);

/// A folder, and a name in it.
pub(super) struct Place<'a> {
    pub(super) folder: OwnedFd,
    pub(super) name: &'a str,
}

impl Root {
    /// Opens what a path means. Links are followed, as if the root folder were the machine's.
    pub(super) fn open(&self, path: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        loop {
            let path = path.trim_start_matches('/');
            let path = if path.is_empty() { "." } else { path };
            match openat2(&self.0, path, flags | OFlags::CLOEXEC, Mode::empty(), inside) {
                // Something was renamed on the way (openat2(2)).
                Err(Errno::AGAIN | Errno::INTR) => {}
                answer => return answer,
            }
        }
    }

    /// The folder that holds a path, where it is there.
    pub(super) fn parent<'a>(&self, path: &'a str) -> rustix::io::Result<Place<'a>> {
        let (folder, name) = path.rsplit_once('/').ok_or(Errno::INVAL)?;
        let folder = self.open(folder, OFlags::PATH | OFlags::DIRECTORY)?;
        Ok(Place { folder, name })
    }

    /// The same, made where it is missing: 0755, of that owner.
    pub(super) fn made_parent<'a>(&self, path: &'a str, owner: Option<(u32, u32)>) -> Result<Place<'a>> {
        match self.parent(path) {
            Err(Errno::NOENT) => {}
            answer => return answer.trying(path),
        }
        let (folder, _) = path.rsplit_once('/').unwrap_or_default();
        for (end, _) in folder.match_indices('/').skip(1).chain([(folder.len(), "")]) {
            let one = &folder[..end];
            match self.open(one, OFlags::PATH | OFlags::DIRECTORY) {
                Err(Errno::NOENT) => {}
                answer => {
                    answer.trying(one)?;
                    continue;
                }
            }
            let place = self.parent(one).trying(one)?;
            match mkdirat(&place.folder, place.name, Mode::from_raw_mode(0o755)) {
                Err(Errno::EXIST) => {
                    let why = "a link on the way leads to nothing";
                    return Err(Failure::new(Kind::Failed, format!("{one}: {why}")));
                }
                answer => answer.trying(one)?,
            }
            place.set(0o755, owner, true).trying(one)?;
        }
        self.parent(path).trying(path)
    }
}

impl Place<'_> {
    /// What stands there; a link itself.
    pub(super) fn look(&self) -> rustix::io::Result<Option<Stat>> {
        match statat(&self.folder, self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Gives what was just made, or found to be no link, this owner and mode. Never follows a link that was put
    /// there meanwhile.
    pub(super) fn set(&self, mode: u32, owner: Option<(u32, u32)>, folder: bool) -> io::Result<()> {
        let mut flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        if folder {
            flags |= OFlags::DIRECTORY;
        }
        let opened = rustix::fs::openat(&self.folder, self.name, flags, Mode::empty())?;
        set(opened.as_fd(), mode, owner)
    }

    /// Gives a link an owner.
    pub(super) fn own(&self, (uid, gid): (u32, u32)) -> rustix::io::Result<()> {
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        chownat(&self.folder, self.name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
    }
}

/// Gives an open file an owner, and then a mode: a change of owner takes bits away.
pub(super) fn set(file: std::os::fd::BorrowedFd<'_>, mode: u32, owner: Option<(u32, u32)>) -> io::Result<()> {
    if let Some((uid, gid)) = owner {
        rustix::fs::fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    }
    Ok(fchmod(file, Mode::from_raw_mode(mode))?)
}
