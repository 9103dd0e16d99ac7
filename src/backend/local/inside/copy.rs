//! Copying a layer with everything that overlays keep in it.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Seek as _, SeekFrom};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, SeekFrom as Seek, Stat, Timespec, Timestamps, Uid, chmodat,
    chownat, ioctl_ficlone, lgetxattr, linkat, llistxattr, lsetxattr, mkdirat, mknodat, openat, readlinkat, seek,
    statat, symlinkat, utimensat,
};
use rustix::io::Errno;

use super::failure::{Result, Trying as _};

/// Folders in each other, each with two descriptors.
const DEEPEST: usize = 400;

/// Copies what a folder holds into another that is there.
pub(super) fn copy(from: &Path, to: &Path) -> Result<()> {
    let open = |path: &Path| {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(CWD, path, flags, Mode::empty()).trying(format_args!("cannot open {}", path.display()))
    };
    rustix::process::umask(Mode::empty());
    let mut copier = Copier {
        links: BTreeMap::new(),
        to: open(to)?,
    };
    let to = open(to)?;
    copier
        .folder(&open(from)?, &to, "", 0)
        .trying(format_args!("cannot copy {}", from.display()))
}

struct Copier {
    /// Where files with several names were put first, by their inode.
    links: BTreeMap<(u64, u64), String>,
    to: OwnedFd,
}

impl Copier {
    fn folder(&mut self, from: &OwnedFd, to: &OwnedFd, path: &str, depth: usize) -> io::Result<()> {
        if depth > DEEPEST {
            return Err(io::Error::other("folders lie too deep in each other"));
        }
        for entry in Dir::read_from(from)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let stat = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
            self.one(from, to, name, &stat, path, depth)?;
        }
        Ok(())
    }

    fn one(
        &mut self,
        from: &OwnedFd,
        to: &OwnedFd,
        name: &CStr,
        stat: &Stat,
        path: &str,
        depth: usize,
    ) -> io::Result<()> {
        // Bytes that are no text appear in no map below: such a file is copied for each of its names.
        let own = name.to_str().ok().map(|name| format!("{path}{name}"));
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind != FileType::Directory && stat.st_nlink > 1 {
            let inode = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&inode) {
                return Ok(linkat(&self.to, first.as_str(), to, name, AtFlags::empty())?);
            }
            if let Some(own) = &own {
                self.links.insert(inode, own.clone());
            }
        }
        let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match kind {
            FileType::Directory => {
                match mkdirat(to, name, Mode::RWXU) {
                    // A new layer has a folder for each of its parts.
                    Err(Errno::EXIST) if depth == 0 => {}
                    made => made?,
                }
                let folder = flags | OFlags::RDONLY | OFlags::DIRECTORY;
                let from = openat(from, name, folder, Mode::empty())?;
                let below = openat(to, name, folder, Mode::empty())?;
                let path = own.map_or_else(|| "\0/".to_owned(), |own| format!("{own}/"));
                self.folder(&from, &below, &path, depth + 1)?;
            }
            FileType::RegularFile => {
                let source = File::from(openat(from, name, flags | OFlags::RDONLY, Mode::empty())?);
                let target = flags | OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
                let mut target = File::from(openat(to, name, target, Mode::RWXU)?);
                bytes(&source, &mut target)?;
            }
            FileType::Symlink => symlinkat(readlinkat(from, name, Vec::new())?, to, name)?,
            _ => mknodat(to, name, kind, Mode::from_raw_mode(stat.st_mode & 0o7777), stat.st_rdev)?,
        }
        attributes(from, to, name, stat)
    }
}

/// The bytes of a file: shared where the file system can, else copied, holes left out.
fn bytes(mut from: &File, to: &mut File) -> io::Result<()> {
    if ioctl_ficlone(&*to, from).is_ok() {
        return Ok(());
    }
    let length = from.metadata()?.len();
    to.set_len(length)?;
    let mut at = 0;
    while at < length {
        let start = match seek(from, Seek::Data(at)) {
            Err(Errno::NXIO) => break,
            start => start?,
        };
        let end = seek(from, Seek::Hole(start))?;
        from.seek(SeekFrom::Start(start))?;
        to.seek(SeekFrom::Start(start))?;
        io::copy(&mut io::Read::take(&mut from, end - start), to)?;
        at = end;
    }
    Ok(())
}

/// Owner, mode, times, and what overlays and programs keep beside.
fn attributes(from: &OwnedFd, to: &OwnedFd, name: &CStr, stat: &Stat) -> io::Result<()> {
    let nofollow = AtFlags::SYMLINK_NOFOLLOW;
    chownat(
        to,
        name,
        Some(Uid::from_raw(stat.st_uid)),
        Some(Gid::from_raw(stat.st_gid)),
        nofollow,
    )?;
    extended(from, to, name)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
        chmodat(to, name, Mode::from_raw_mode(stat.st_mode & 0o7777), AtFlags::empty())?;
    }
    let time = |seconds, nanoseconds: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanoseconds).unwrap_or_default(),
    };
    let times = Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    };
    Ok(utimensat(to, name, &times, nofollow)?)
}

fn extended(from: &OwnedFd, to: &OwnedFd, name: &CStr) -> io::Result<()> {
    use std::os::fd::AsRawFd as _;
    // No call takes a folder and a name here.
    let path = |folder: &OwnedFd| {
        let mut path = format!("/proc/self/fd/{}/", folder.as_fd().as_raw_fd()).into_bytes();
        path.extend_from_slice(name.to_bytes());
        path
    };
    let (from, to) = (path(from), path(to));
    let mut names = vec![0; 64 << 10];
    let length = match llistxattr(from.as_slice(), names.as_mut_slice()) {
        Err(Errno::OPNOTSUPP) => return Ok(()),
        length => length?,
    };
    for attribute in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; 64 << 10];
        let length = lgetxattr(from.as_slice(), attribute, value.as_mut_slice())?;
        let set = lsetxattr(
            to.as_slice(),
            attribute,
            &value[..length],
            rustix::fs::XattrFlags::empty(),
        );
        // What is the machine's own, such as labels of a security module, is given anew.
        if set.is_err()
            && [&b"trusted.overlay."[..], b"user."]
                .iter()
                .any(|own| attribute.starts_with(own))
        {
            set?;
        }
    }
    Ok(())
}
