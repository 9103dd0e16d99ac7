//! What of this machine is attached to sandboxes: folders and files that are looked at again, ports that have to be free.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Uid, chownat, fstat, mkdirat, openat2};
use rustix::io::Errno;

use super::{Error, ErrorKind, Result};
use crate::model::Protocol;

/// What is the matter with a port that only root may open.
pub(in crate::backend) const ROOTS: &str = "is root's to open; those from 1024 on are everybody's";

/// Opens what stands at a real path, to be attached: a folder or a regular file. Links that were put there since the path
/// was found, in its place or in that of a folder above it, are refused, and so are devices, sockets and pipes.
///
/// # Errors
/// [`ErrorKind::Invalid`] for all of these, and where nothing stands there.
pub(in crate::backend) fn open_source(path: &Path) -> Result<OwnedFd> {
    let refuse = |why: String| Error::new(ErrorKind::Invalid, format!("cannot mount {}: {why}", path.display()));
    if !path.is_absolute() {
        return Err(refuse("it is no absolute path".to_owned()));
    }
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let strictly = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let opened = openat2(CWD, path, flags, Mode::empty(), strictly);
    let opened = opened.map_err(|error| match error {
        Errno::LOOP => refuse("it has become a link, or lies behind one".to_owned()),
        error => refuse(io::Error::from(error).to_string()),
    })?;
    let found = fstat(&opened).map_err(|error| refuse(io::Error::from(error).to_string()))?;
    match FileType::from_raw_mode(found.st_mode) {
        FileType::Directory | FileType::RegularFile => Ok(opened),
        FileType::Symlink => Err(refuse("it has become a link".to_owned())),
        _ => Err(refuse("it is a device, a socket or a pipe".to_owned())),
    }
}

/// The real path of something that may not be there yet: as far as there is something, links are resolved.
pub(in crate::backend) fn real(path: &Path) -> PathBuf {
    let mut parts = path.ancestors();
    let there = parts.find_map(|above| Some((above, above.canonicalize().ok()?)));
    match there {
        Some((above, real)) => {
            path.strip_prefix(above)
                .map_or(real.clone(), |rest| match rest.as_os_str().is_empty() {
                    true => real,
                    false => real.join(rest),
                })
        }
        None => path.to_owned(),
    }
}

/// The folder beside the state folder in which Incus finds copies of what is guarded in mounts.
pub(in crate::backend) fn guards_beside(state: &Path) -> PathBuf {
    let mut name = state.as_os_str().to_owned();
    name.push(".guarded");
    name.into()
}

/// Makes the folders of a path below a source, where there is nothing, so that something can be mounted there: 0755, and of
/// whoever the folder above belongs to. Links are not followed.
///
/// # Errors
/// [`ErrorKind::Invalid`] where a link or something else stands on the way.
pub(in crate::backend) fn make_below(source: &Path, below: &str) -> Result<()> {
    let mut folder = open_source(source)?;
    let refuse = |errno: Errno| {
        let why = io::Error::from(errno);
        Error::new(
            ErrorKind::Invalid,
            format!("cannot mount anything at {below} in {}: {why}", source.display()),
        )
    };
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    for part in below.split('/') {
        let open = || {
            openat2(
                &folder,
                part,
                flags,
                Mode::empty(),
                ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
            )
        };
        folder = match open() {
            Err(Errno::NOENT) => {
                let above = fstat(&folder).map_err(refuse)?;
                mkdirat(&folder, part, Mode::from_raw_mode(0o755)).map_err(refuse)?;
                let made = open().map_err(refuse)?;
                let (user, group) = (Uid::from_raw(above.st_uid), Gid::from_raw(above.st_gid));
                chownat(&made, "", Some(user), Some(group), AtFlags::EMPTY_PATH).map_err(refuse)?;
                made
            }
            opened => opened.map_err(refuse)?,
        };
    }
    Ok(())
}

/// Whether this process opens a port itself, and not a daemon with rights of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::backend) enum Opens {
    Itself,
    ByDaemon,
}

/// Which of these ports cannot be opened here, at 127.0.0.1 or ::1, each with what is the matter with it.
pub(in crate::backend) fn taken(ports: &BTreeSet<(u16, Protocol)>, opens: Opens) -> BTreeMap<(u16, Protocol), String> {
    let mut taken = BTreeMap::new();
    for (port, protocol) in ports {
        let addresses = [
            SocketAddr::from((Ipv4Addr::LOCALHOST, *port)),
            SocketAddr::from((Ipv6Addr::LOCALHOST, *port)),
        ];
        let why = addresses.into_iter().find_map(|address| {
            let tried = match protocol {
                Protocol::Tcp => TcpListener::bind(address).map(drop),
                Protocol::Udp => UdpSocket::bind(address).map(drop),
            };
            match tried.err()?.kind() {
                io::ErrorKind::AddrInUse => Some(format!("is taken: somebody listens on {address} ({protocol})")),
                io::ErrorKind::PermissionDenied if opens == Opens::Itself => Some(ROOTS.to_owned()),
                _ => None,
            }
        });
        taken.extend(why.map(|why| ((*port, *protocol), why)));
    }
    taken
}

/// Whether this machine has ::1.
pub(in crate::backend) fn has_ipv6() -> bool {
    UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_special_files_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().canonicalize().expect("real");
        std::fs::create_dir(root.join("real")).expect("makes");
        std::fs::write(root.join("real/file"), "x").expect("writes");
        std::os::unix::fs::symlink(root.join("real"), root.join("link")).expect("links");
        let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).expect("listens");
        for good in ["real", "real/file"] {
            open_source(&root.join(good)).expect(good);
        }
        for (bad, why) in [
            ("link", "link"),
            ("link/file", "link"),
            ("socket", "socket"),
            ("none", "No such file"),
        ] {
            let error = open_source(&root.join(bad)).expect_err(bad);
            assert_eq!(error.kind(), ErrorKind::Invalid, "{bad}");
            assert!(error.to_string().contains(why), "{bad}: {error}");
        }
        assert!(open_source(Path::new("/dev/null")).is_err());
        assert!(open_source(Path::new("relative")).is_err());
    }

    #[test]
    fn a_port_that_somebody_has_is_named() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("listens");
        let port = listener.local_addr().expect("has one").port();
        let ports = BTreeSet::from([(port, Protocol::Tcp)]);
        assert!(taken(&ports, Opens::ByDaemon)[&(port, Protocol::Tcp)].contains(&format!("127.0.0.1:{port}")));
        drop(listener);
        assert!(taken(&ports, Opens::Itself).is_empty());
    }
}
