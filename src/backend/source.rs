//! Opening the files of this machine whose bytes a change puts into a sandbox.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, open, openat2};
use rustix::io::Errno;

use super::{Error, ErrorKind, Result};

/// Opens the regular file that stood at a real path when the spec was read. Links that were put there since, in
/// its place or in that of a folder above it, are refused: they could lead to any file of this machine. Never
/// waits for a pipe's other end.
pub(super) async fn source(path: &Path) -> Result<tokio::fs::File> {
    let failed = |source: io::Error| {
        let message = format!("cannot read the source {}", path.display());
        Error::new(ErrorKind::Invalid, message).with_source(source)
    };
    let real = path.to_owned();
    let opened = tokio::task::spawn_blocking(move || regular(&real)).await;
    opened
        .unwrap_or_else(|error| Err(io::Error::other(error)))
        .map(tokio::fs::File::from_std)
        .map_err(failed)
}

/// The same, at once.
pub(super) fn regular(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let strictly = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let file = match openat2(CWD, path, flags, Mode::empty(), strictly) {
        // Before Linux 5.6, or where a sandbox around us forbids what it does not know.
        Err(Errno::NOSYS | Errno::PERM) => {
            let file = open(path, flags, Mode::empty())?;
            if path.canonicalize()? != path {
                return Err(Errno::LOOP.into());
            }
            file
        }
        opened => opened?,
    };
    let file = File::from(file);
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file")),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_anywhere_and_what_is_no_file_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().canonicalize().expect("real");
        fs::create_dir(root.join("real")).expect("makes");
        fs::write(root.join("real/file"), "text").expect("writes");
        symlink("real", root.join("linked")).expect("links");
        symlink("file", root.join("real/link")).expect("links");
        rustix::fs::mkfifoat(CWD, root.join("fifo"), Mode::RUSR).expect("makes");
        assert!(regular(&root.join("real/file")).is_ok());
        for refused in ["linked/file", "real/link", "fifo", "real", "none"] {
            assert!(regular(&root.join(refused)).is_err(), "{refused}");
        }
    }
}
