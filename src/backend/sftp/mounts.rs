//! What is mounted in a running sandbox, as its own kernel tells.
//!
//! The devices of an instance say where something should be mounted; what is mounted can be elsewhere, where a link leads, or
//! be somebody's doing inside. Behind any of it may lie a folder of the host, so nothing that holds a mount is removed.
//! In a sandbox that is stopped nothing is mounted, and there is no such file.

use std::collections::VecDeque;

use super::packet::{FOR_READING, Kind};
use super::session::{Failure, Session};
use crate::backend::{Error, ErrorKind};

/// The mounts of pid 1 (Linux, `proc_pid_mountinfo(5)`). Their paths are those that it sees.
const MOUNTS: &[u8] = b"/proc/1/mountinfo";
/// More bytes are nothing that any sandbox has.
const MOST: usize = 16 << 20;
/// How many links may lie on the way to a path (Linux, `path_resolution(7)`).
const LINKS: usize = 40;

/// Refuses a folder where something is mounted, or below which something is.
pub(super) async fn refuse_mounted(session: &Session, folder: &[u8]) -> Result<(), Failure> {
    let below = mounts_below(session, folder).await?;
    let Some(mount) = below.first() else { return Ok(()) };
    let (folder, mount) = (String::from_utf8_lossy(folder), String::from_utf8_lossy(mount));
    Err(Failure::Session(
        Error::new(
            ErrorKind::Failed,
            format!("something is mounted at `{mount}`, which may be the host's, so `{folder}` is not removed"),
        )
        .with_hint("detach or unmount it; or, in a tree, `exclude` it"),
    ))
}

/// The mounts at a folder or below it, each by its path through that folder.
pub(super) async fn mounts_below(session: &Session, folder: &[u8]) -> Result<Vec<Vec<u8>>, Failure> {
    let mounts = mounts(session).await?;
    if mounts.is_empty() {
        return Ok(Vec::new());
    }
    let real = real_path(session, folder).await?;
    let below = mounts.iter().filter_map(|mount| {
        let rest = mount.strip_prefix(real.as_slice())?;
        (rest.is_empty() || rest.starts_with(b"/")).then(|| [folder, rest].concat())
    });
    Ok(below.collect())
}

async fn mounts(session: &Session) -> Result<Vec<Vec<u8>>, Failure> {
    match session.lstat(MOUNTS).await? {
        Some(found) if found.kind() == Kind::File => {}
        // It does not run.
        _ => return Ok(Vec::new()),
    }
    let handle = session.open(MOUNTS, FOR_READING).await?;
    let mut text = Vec::new();
    let result = loop {
        match session.read(&handle, text.len() as u64).await {
            Ok(block) if block.is_empty() || text.len() > MOST => break Ok(()),
            Ok(block) => text.extend(block),
            Err(failure) => break Err(failure),
        }
    };
    let closed = session.close(&handle).await;
    result.and(closed)?;
    Ok(parse(&text))
}

/// The fifth field of each line.
fn parse(text: &[u8]) -> Vec<Vec<u8>> {
    let lines = text.split(|byte| *byte == b'\n');
    lines
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4))
        .map(plain)
        .collect()
}

/// A field with `\040` and the like as the bytes that they stand for.
fn plain(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if *first == b'\\' => {
                bytes.push(byte);
                rest = &after[3..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    bytes
}

/// Where a path leads: links on the way are followed, the last part is not.
async fn real_path(session: &Session, path: &[u8]) -> Result<Vec<u8>, Failure> {
    let parts = |path: &[u8]| -> Vec<Vec<u8>> { path.split(|byte| *byte == b'/').map(<[u8]>::to_vec).collect() };
    let mut left = VecDeque::from(parts(path));
    let (mut real, mut links) = (Vec::new(), 0);
    while let Some(part) = left.pop_front() {
        match part.as_slice() {
            b"" | b"." => continue,
            b".." => {
                let end = real.iter().rposition(|byte| *byte == b'/').unwrap_or_default();
                real.truncate(end);
                continue;
            }
            _ => {}
        }
        let next = [&real[..], b"/", &part].concat();
        let is_link = !left.is_empty()
            && links < LINKS
            && session
                .lstat(&next)
                .await?
                .is_some_and(|found| found.kind() == Kind::Symlink);
        if !is_link {
            real = next;
            continue;
        }
        links += 1;
        let target = session.read_link(&next).await?;
        if target.starts_with(b"/") {
            real.clear();
        }
        for part in parts(&target).into_iter().rev() {
            left.push_front(part);
        }
    }
    Ok(real)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_as_the_kernel_writes_them() {
        let text = b"103 71 0:43 /rootfs / rw shared:2 - btrfs /dev/loop4 rw\n\
            74 103 254:0 /host /srv/with\\040space rw - ext4 /dev/vda rw\n\
            75 103 254:0 /host /srv/back\\134slash\\9 rw - ext4 /dev/vda rw\n";
        let paths: [&[u8]; 3] = [b"/", b"/srv/with space", b"/srv/back\\slash\\9"];
        assert_eq!(parse(text), paths);
    }
}
