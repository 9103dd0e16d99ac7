//! Changing files.

use std::collections::BTreeSet;

use futures_util::stream::{self, FuturesUnordered, StreamExt as _, TryStreamExt as _};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::packet::{Attributes, FOR_NEW, FOR_READING, Kind};
use super::remove::{remove, remove_told};
use super::schedule::{Reach, rounds};
use super::session::{BLOCK, Failure, Handle, Session};
use crate::backend::source::source;
use crate::backend::{Error, ErrorKind, FileChange, Result};
use crate::model::{Content, Data, Digest, GuestPath, Hasher, Mode, Owner};

/// Changes side by side.
const WINDOW: usize = 16;
/// Blocks of one file in flight.
const BLOCKS: usize = 16;
/// How the names begin under which things are prepared beside their paths.
const ASIDE: &str = ".sbx-apply-";

/// Makes changes in their order, those side by side that do not touch. Tells of each whether something stood at
/// its path before. After a failure nothing new is begun, but what was begun is finished.
pub(in crate::backend) async fn change(session: &Session, changes: &[FileChange]) -> Result<Vec<bool>> {
    let mut stood = vec![false; changes.len()];
    for round in rounds(changes.iter().map(|change| (change.path().as_str(), reach(change)))) {
        make_parents(session, round.iter().map(|index| &changes[*index])).await?;
        let begun: Vec<_> = round
            .into_iter()
            .map(|index| async move { (index, one(session, &changes[index]).await) })
            .collect();
        let done: Vec<_> = stream::iter(begun).buffer_unordered(WINDOW).collect().await;
        for (index, result) in done {
            stood[index] = result.map_err(|error| error.within(changes[index].path()))?;
        }
    }
    Ok(stood)
}

/// What a run that was killed has left beside a path may have to go, in a tree that is kept clean, while the same is
/// prepared there anew.
fn reach(change: &FileChange) -> Reach {
    let name = change.path().as_str().rsplit('/').next().unwrap_or_default();
    match change {
        FileChange::Symlink { .. } => Reach::Link,
        _ if name.starts_with(ASIDE) => Reach::Aside,
        _ => Reach::Path,
    }
}

async fn one(session: &Session, change: &FileChange) -> Result<bool> {
    match change {
        FileChange::Write {
            path,
            content,
            mode,
            owner,
        } => write(session, path, Source::of(content).await?, *mode, *owner).await,
        FileChange::Directory { path, mode, owner } => directory(session, path, *mode, *owner).await,
        FileChange::Symlink { path, target, .. } => symlink(session, path, target).await,
        FileChange::Attributes { path, mode, owner } => attributes(session, path, *mode, *owner).await,
        FileChange::Remove { path } if path.is_told() => remove_told(session, path)
            .await
            .map_err(|failure| failure.within("cannot remove it")),
        FileChange::Remove { path } => {
            let found = lstat(session, path).await?;
            if let Some(found) = found {
                remove(session, path.as_str().as_bytes(), found)
                    .await
                    .map_err(|failure| failure.within("cannot remove it"))?;
            }
            Ok(found.is_some())
        }
    }
}

async fn lstat(session: &Session, path: &GuestPath) -> Result<Option<Attributes>> {
    let found = session.lstat(path.as_str().as_bytes()).await;
    found.map_err(|failure| failure.within("cannot look at it"))
}

/// Makes missing parents, 0755 and with the owner of what needs them first. A parent that is a link to a folder
/// is one that exists.
async fn make_parents<'a>(session: &Session, changes: impl Iterator<Item = &'a FileChange>) -> Result<()> {
    let mut seen = BTreeSet::new();
    let mut needed = Vec::new();
    for change in changes {
        let owner = match change {
            FileChange::Write { owner, .. } => *owner,
            FileChange::Directory { owner, .. } | FileChange::Symlink { owner, .. } => Some(*owner),
            FileChange::Attributes { .. } | FileChange::Remove { .. } => continue,
        };
        if let Some(parent) = change.path().parent().filter(|parent| seen.insert(parent.clone())) {
            needed.push((parent, owner));
        }
    }
    let missing = needed.into_iter().map(|(parent, owner)| async move {
        Ok::<_, Error>((!is_folder(session, &parent).await?).then_some((parent, owner)))
    });
    let missing: Vec<_> = missing.collect();
    let missing: Vec<_> = stream::iter(missing).buffered(WINDOW).try_collect().await?;
    for (parent, owner) in missing.into_iter().flatten() {
        make_folders(session, parent, owner).await?;
    }
    Ok(())
}

/// Makes the missing parents of one path.
pub(super) async fn make_parent(session: &Session, path: &GuestPath, owner: Option<Owner>) -> Result<()> {
    match path.parent() {
        Some(parent) => make_folders(session, parent, owner).await,
        None => Ok(()),
    }
}

/// Whether a path leads to a folder. An error where it leads to anything else.
async fn is_folder(session: &Session, path: &GuestPath) -> Result<bool> {
    match session.stat(path.as_str().as_bytes()).await {
        Ok(None) => Ok(false),
        Ok(Some(found)) if found.kind() == Kind::Directory => Ok(true),
        Ok(Some(_)) => Err(Error::new(
            ErrorKind::Invalid,
            format!("`{path}` is there and is no folder"),
        )),
        Err(failure) => Err(failure.within(path)),
    }
}

async fn make_folders(session: &Session, path: GuestPath, owner: Option<Owner>) -> Result<()> {
    let mut missing = Vec::new();
    let mut next = Some(path);
    while let Some(path) = next {
        if is_folder(session, &path).await? {
            break;
        }
        next = path.parent();
        missing.push(path);
    }
    for path in missing.iter().rev() {
        new_folder(session, path, Mode::DIRECTORY, owner)
            .await
            .map_err(|failure| failure.within(format_args!("cannot make the folder `{path}`")))?;
    }
    Ok(())
}

async fn new_folder(session: &Session, path: &GuestPath, mode: Mode, owner: Option<Owner>) -> Result<(), Failure> {
    session.make_folder(path.as_str().as_bytes()).await?;
    adjust_folder(session, path, mode, owner).await
}

async fn adjust_folder(session: &Session, path: &GuestPath, mode: Mode, owner: Option<Owner>) -> Result<(), Failure> {
    // Opened as a file is: OpenSSH's server sets attributes by the handles of those only.
    let handle = session.open(path.as_str().as_bytes(), FOR_READING).await?;
    adjust(session, &handle, mode, owner).await
}

/// Sets mode and owner and closes.
async fn adjust(session: &Session, handle: &Handle, mode: Mode, owner: Option<Owner>) -> Result<(), Failure> {
    let owner = owner.map(|owner| (owner.uid, owner.gid));
    let result = session.set_attributes(handle, owner, mode.bits()).await;
    let closed = session.close(handle).await;
    result.and(closed)
}

async fn directory(session: &Session, path: &GuestPath, mode: Mode, owner: Owner) -> Result<bool> {
    let found = lstat(session, path).await?;
    let result = async {
        match found {
            Some(found) if found.kind() == Kind::Directory => {
                return adjust_folder(session, path, mode, Some(owner)).await;
            }
            Some(_) => session.remove(path.as_str().as_bytes()).await?,
            None => {}
        }
        new_folder(session, path, mode, Some(owner)).await
    };
    result
        .await
        .map_err(|failure| failure.within("cannot make the folder"))?;
    Ok(found.is_some())
}

async fn attributes(session: &Session, path: &GuestPath, mode: Mode, owner: Owner) -> Result<bool> {
    let found = lstat(session, path)
        .await?
        .ok_or_else(|| Error::not_found("there is no such file"))?;
    if found.kind() != Kind::File {
        return Err(Error::new(ErrorKind::Invalid, "it is no regular file"));
    }
    let result = async {
        let handle = session.open(path.as_str().as_bytes(), FOR_READING).await?;
        adjust(session, &handle, mode, Some(owner)).await
    };
    result
        .await
        .map_err(|failure| failure.within("cannot set its mode and owner"))?;
    Ok(true)
}

async fn symlink(session: &Session, path: &GuestPath, target: &str) -> Result<bool> {
    let found = lstat(session, path).await?;
    let temporary = temporary(path);
    let result = async {
        fresh(session, &temporary, || session.make_link(&temporary, target.as_bytes())).await?;
        put_in_place(session, &temporary, path, found).await
    };
    discard_unless(
        session,
        &temporary,
        result.await.map_err(|failure| failure.within("cannot make the link")),
    )
    .await?;
    Ok(found.is_some())
}

/// Where bytes come from.
pub(super) enum Source<'a> {
    /// Memory.
    Bytes(&'a [u8]),
    /// A stream, and what it must amount to, where that is known: how many bytes, and their digest.
    Stream(Box<dyn AsyncRead + Send + Unpin + 'a>, Option<(u64, &'a Digest)>),
}

impl<'a> Source<'a> {
    async fn of(content: &'a Content) -> Result<Self> {
        match &content.data {
            Data::Bytes(bytes) => Ok(Self::Bytes(bytes)),
            Data::Path(path) => {
                // One byte more than there should be, to notice growth, and no more: it may have become endless.
                let file = source(path).await?.take(content.size.saturating_add(1));
                Ok(Self::Stream(Box::new(file), Some((content.size, &content.digest))))
            }
        }
    }
}

/// Writes a file beside its path and puts it in place when it is whole.
pub(super) async fn write(
    session: &Session,
    path: &GuestPath,
    source: Source<'_>,
    mode: Mode,
    owner: Option<Owner>,
) -> Result<bool> {
    let temporary = temporary(path);
    let found = session.lstat(path.as_str().as_bytes());
    let new = fresh(session, &temporary, || session.open(&temporary, FOR_NEW));
    let (found, handle) = tokio::join!(found, new);
    let handle = handle.map_err(|failure| failure.within("cannot write beside it"))?;
    let result = async {
        let found = found.map_err(|failure| failure.within("cannot look at it"))?;
        let owner = owner.map(|owner| (owner.uid, owner.gid));
        // Before the first byte, so that nobody reads it whom the mode keeps out.
        let ready = session.set_attributes(&handle, owner, mode.bits()).await;
        let written = match ready {
            Ok(()) => fill(session, &handle, source).await,
            Err(failure) => Err(failure.within("cannot set its mode and owner")),
        };
        let closed = session.close(&handle).await;
        written?;
        closed.map_err(|failure| failure.within("cannot write it"))?;
        put_in_place(session, &temporary, path, found)
            .await
            .map_err(|failure| failure.within("cannot put it in place"))?;
        Ok(found.is_some())
    };
    let result = result.await;
    discard_unless(session, &temporary, result).await
}

async fn fill(session: &Session, handle: &Handle, source: Source<'_>) -> Result<()> {
    let unwritten = |failure: Failure| failure.within("cannot write it");
    let (mut stream, expected) = match source {
        Source::Bytes(bytes) => {
            let blocks = bytes.chunks(BLOCK).enumerate();
            let writes = blocks.map(|(index, block)| session.write(handle, (index * BLOCK) as u64, block));
            return stream::iter(writes.collect::<Vec<_>>())
                .buffer_unordered(BLOCKS)
                .try_collect()
                .await
                .map_err(unwritten);
        }
        Source::Stream(stream, expected) => (stream, expected),
    };
    let mut hasher = Hasher::new();
    let mut offset = 0;
    let mut pending = FuturesUnordered::new();
    loop {
        let mut block = Vec::with_capacity(BLOCK);
        let read = (&mut stream).take(BLOCK as u64).read_to_end(&mut block).await;
        let count =
            read.map_err(|error| Error::new(ErrorKind::Invalid, "cannot read its source").with_source(error))?;
        if count == 0 {
            break;
        }
        hasher.update(&block);
        pending.push(async move { session.write(handle, offset, &block).await });
        offset += count as u64;
        if pending.len() >= BLOCKS {
            pending.try_next().await.map_err(unwritten)?;
        }
    }
    pending.try_collect::<()>().await.map_err(unwritten)?;
    match expected {
        Some((size, digest)) if offset != size || *digest != hasher.finish() => {
            Err(Error::new(ErrorKind::Invalid, "its source changed while it was read").with_hint("plan again"))
        }
        _ => Ok(()),
    }
}

/// Puts what was made beside a path in its place. A folder that stands there has to go first; anything else is
/// replaced at once.
async fn put_in_place(
    session: &Session,
    temporary: &[u8],
    path: &GuestPath,
    found: Option<Attributes>,
) -> Result<(), Failure> {
    let path = path.as_str().as_bytes();
    if let Some(found) = found.filter(|found| found.kind() == Kind::Directory) {
        remove(session, path, found).await?;
    }
    session.rename_over(temporary, path).await
}

/// Leaves nothing beside the path when something went wrong.
async fn discard_unless<T>(session: &Session, temporary: &[u8], result: Result<T>) -> Result<T> {
    if result.is_err() {
        // What went wrong matters more than whether this works.
        let _ = session.remove(temporary).await;
    }
    result
}

/// Makes something at a temporary path by `make`, which fails when anything is there. What a run that was killed
/// left there, or somebody inside has planted, goes first; that costs requests only then.
async fn fresh<T, F>(session: &Session, temporary: &[u8], make: impl Fn() -> F) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Failure>>,
{
    let failure = match make().await {
        Err(failure @ Failure::Status { .. }) => failure,
        answer => return answer,
    };
    match session.lstat(temporary).await? {
        Some(leftover) => {
            remove(session, temporary, leftover).await?;
            make().await
        }
        None => Err(failure),
    }
}

/// A path beside another, to prepare there what then takes the other's place. Always the same beside the same
/// path, so that the next run clears away what one that was killed has left. Anybody inside can guess it; but
/// whoever may plant something there may replace the file itself.
fn temporary(path: &GuestPath) -> Vec<u8> {
    let digest = Digest::of(path.as_str().as_bytes());
    let folder = path.parent();
    let folder = folder.as_ref().map_or("", GuestPath::as_str);
    format!("{folder}/{ASIDE}{:.16}", digest.as_str()).into_bytes()
}
