//! Removing whatever stands at a path.

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use super::mounts::refuse_mounted;
use super::packet::{Attributes, Kind};
use super::session::{Failure, Session};
use crate::model::GuestPath;

/// Removals in flight.
const WINDOW: usize = 32;

/// Removes what an LSTAT has just told of: a folder with all that it holds, anything else itself. A folder with something
/// mounted in it is refused, and left as it is.
pub(super) async fn remove(session: &Session, path: &[u8], found: Attributes) -> Result<(), Failure> {
    if found.kind() != Kind::Directory {
        return gone(session.remove(path).await);
    }
    refuse_mounted(session, path).await?;
    // Folders from the top down; each is emptied of everything but folders when it is met, and they go from the
    // bottom up in the end. No recursion: the guest decides how deep they are.
    let mut folders = vec![path.to_vec()];
    let mut next = 0;
    while let Some(folder) = folders.get(next).cloned() {
        next += 1;
        let entries = match session.list(&folder, usize::MAX).await {
            Err(failure) if failure.is_missing() => continue,
            entries => entries?,
        };
        let (inner, rest): (Vec<_>, Vec<_>) = entries
            .into_iter()
            .partition(|(_, attributes)| attributes.kind() == Kind::Directory);
        folders.extend(inner.into_iter().map(|(name, _)| join(&folder, &name)));
        let rest: Vec<_> = rest.into_iter().map(|(name, _)| join(&folder, &name)).collect();
        let removals: Vec<_> = rest
            .iter()
            .map(|path| async move { gone(session.remove(path).await) })
            .collect();
        stream::iter(removals)
            .buffer_unordered(WINDOW)
            .try_collect::<()>()
            .await?;
    }
    for folder in folders.iter().rev() {
        gone(session.remove_folder(folder).await)?;
    }
    Ok(())
}

/// Removes whatever is told by a path; see [`GuestPath::told`]. Says whether there was something.
pub(super) async fn remove_told(session: &Session, path: &GuestPath) -> Result<bool, Failure> {
    let mut found = vec![Vec::new()];
    let parts: Vec<&str> = path.as_str().split('/').skip(1).collect();
    for (index, part) in parts.iter().enumerate() {
        let is_last = index + 1 == parts.len();
        if !part.contains(GuestPath::UNSAYABLE) {
            for folder in &mut found {
                *folder = join(folder, part.as_bytes());
            }
            continue;
        }
        let mut next = Vec::new();
        for folder in found {
            let entries = match session.list(&folder, usize::MAX).await {
                Err(failure) if failure.is_missing() => continue,
                entries => entries?,
            };
            let told = entries.into_iter().filter(|(name, attributes)| {
                // Links on the way are not followed: what they lead to was told by another path.
                GuestPath::told(name) == *part && (is_last || attributes.kind() == Kind::Directory)
            });
            next.extend(told.map(|(name, _)| join(&folder, &name)));
        }
        found = next;
    }
    let mut there = false;
    for real in found {
        if let Some(attributes) = session.lstat(&real).await? {
            remove(session, &real, attributes).await?;
            there = true;
        }
    }
    Ok(there)
}

/// Takes "there is nothing" for done.
fn gone(answer: Result<(), Failure>) -> Result<(), Failure> {
    match answer {
        Err(failure) if failure.is_missing() => Ok(()),
        answer => answer,
    }
}

/// The path of a name in a folder. Bytes: names inside a guest need not be text.
pub(super) fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    [folder, b"/", name].concat()
}
