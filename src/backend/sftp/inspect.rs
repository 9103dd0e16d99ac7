//! What stands at many paths, and in folders.

use std::collections::BTreeSet;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use super::mounts::mounts_below;
use super::packet::{Attributes, Kind};
use super::read::read_blocks;
use super::remove::join;
use super::session::{Failure, Session};
use crate::backend::{Error, ErrorKind, FileEntry, Result};
use crate::model::{Found, GuestPath, Hasher, Inspection, Mode, Owner, Query, Shape};

/// Paths looked at side by side.
const WINDOW: usize = 16;
/// How much may lie below a folder that is listed. A guest can make any number of files.
const MOST: usize = 100_000;

/// Answers a query. Nothing but regular files is opened.
pub(in crate::backend) async fn inspect(session: &Session, query: &Query) -> Result<Inspection> {
    let mut looks = Vec::new();
    for folder in &query.below {
        let root = session
            .lstat(folder.as_str().as_bytes())
            .await
            .map_err(|failure| failure.within(folder))?;
        if root.is_none_or(|root| root.kind() != Kind::Directory) {
            continue;
        }
        let bytes = folder.as_str().as_bytes();
        let mounts = mounts_below(session, bytes)
            .await
            .map_err(|failure| failure.within(folder))?;
        let mut closed: BTreeSet<Vec<u8>> = mounts.into_iter().collect();
        closed.extend(query.closed.iter().map(|path| path.as_str().as_bytes().to_vec()));
        if closed.contains(bytes) {
            continue;
        }
        let entries = walk(session, folder, true, &closed).await?;
        looks.extend(
            entries
                .into_iter()
                .filter_map(|(real, attributes)| Some((told(folder, &real)?, real, attributes)))
                .filter(|(path, ..)| !query.paths.contains(path) && !query.opaque.contains(path))
                .map(|(path, real, attributes)| look(session, path, real, Some(attributes), None, false)),
        );
    }
    let single = query.paths.union(&query.opaque);
    looks.extend(single.map(|path| {
        look(
            session,
            path.clone(),
            path.as_str().as_bytes().to_vec(),
            None,
            Some(query.bound),
            !query.opaque.contains(path),
        )
    }));
    let found: Vec<_> = stream::iter(looks).buffer_unordered(WINDOW).try_collect().await?;
    Ok(Inspection(found.into_iter().flatten().collect()))
}

/// The path of what was found below a folder, each of its names as a path can say it; none of what lies too deep.
fn told(folder: &GuestPath, real: &[u8]) -> Option<GuestPath> {
    let below = real.strip_prefix(folder.as_str().as_bytes())?;
    let names = below.split(|byte| *byte == b'/').map(GuestPath::told);
    let names: Vec<String> = names.collect();
    GuestPath::new(format!("{folder}{}", names.join("/"))).ok()
}

/// What stands at one path, which is `real` to the sandbox; none where there is nothing, or nothing any more. Files of up
/// to `bound` bytes are read, if any.
async fn look(
    session: &Session,
    path: GuestPath,
    real: Vec<u8>,
    known: Option<Attributes>,
    bound: Option<u64>,
    keep: bool,
) -> Result<Option<(GuestPath, Found)>> {
    let answer = async {
        let attributes = match known {
            Some(known) => Some(known),
            None => session.lstat(&real).await?,
        };
        let Some(attributes) = attributes else { return Ok(None) };
        let shape = shape(session, &real, attributes, bound, keep).await?;
        Ok(Some((attributes, shape)))
    };
    match answer.await {
        Ok(found) => Ok(found.map(|(attributes, shape)| {
            let found = Found {
                shape,
                mode: Mode::of_bits(attributes.mode),
                owner: Owner {
                    uid: attributes.uid,
                    gid: attributes.gid,
                },
            };
            (path.clone(), found)
        })),
        // Removed in between.
        Err(failure @ Failure::Status { .. }) if failure.is_missing() => Ok(None),
        Err(failure) => Err(failure.within(path)),
    }
}

async fn shape(
    session: &Session,
    bytes: &[u8],
    attributes: Attributes,
    bound: Option<u64>,
    keep: bool,
) -> Result<Shape, Failure> {
    Ok(match attributes.kind() {
        Kind::Directory => Shape::Directory,
        Kind::Special => Shape::Special,
        Kind::Symlink => Shape::Symlink(String::from_utf8_lossy(&session.read_link(bytes).await?).into_owned()),
        Kind::File if bound.is_none_or(|bound| attributes.size > bound) => Shape::File {
            digest: None,
            size: attributes.size,
            content: None,
        },
        Kind::File => {
            let bound = bound.unwrap_or_default();
            let mut hasher = Hasher::new();
            let mut size = 0;
            let mut kept = keep.then(Vec::new);
            read_blocks(session, bytes, attributes.size, |block| {
                hasher.update(block);
                size += block.len() as u64;
                if size > Inspection::KEPT {
                    kept = None;
                } else if let Some(kept) = &mut kept {
                    kept.extend_from_slice(block);
                }
                // It may grow while it is read.
                size <= bound
            })
            .await?;
            Shape::File {
                digest: (size <= bound).then(|| hasher.finish()),
                size,
                content: kept.map(Into::into),
            }
        }
    })
}

/// What lies in a folder, or anywhere below it, but for what is closed, ordered by path. Where there is more than [`MOST`], an error.
pub(super) async fn walk(
    session: &Session,
    folder: &GuestPath,
    recursive: bool,
    closed: &BTreeSet<Vec<u8>>,
) -> Result<Vec<(Vec<u8>, Attributes)>> {
    let mut found = Vec::new();
    let mut count = 0;
    let top = folder;
    let mut round = vec![folder.as_str().trim_end_matches('/').as_bytes().to_vec()];
    let mut at_top = true;
    while !round.is_empty() {
        let lists = round.drain(..).map(|folder| async move {
            let path: &[u8] = if folder.is_empty() { b"/" } else { &folder };
            match session.list(path, MOST).await {
                Ok(entries) => Ok((folder, entries)),
                Err(failure) if failure.is_missing() => Ok((folder, Vec::new())),
                // What nobody inside can see is nobody's declaration.
                Err(failure) if failure.is_denied() && !at_top => Ok((folder, Vec::new())),
                Err(failure) => Err(failure.within(String::from_utf8_lossy(path))),
            }
        });
        let lists: Vec<_> = lists.collect();
        let lists: Vec<_> = stream::iter(lists).buffer_unordered(WINDOW).try_collect().await?;
        at_top = false;
        count += lists.iter().map(|(_, entries)| entries.len()).sum::<usize>();
        if count > MOST {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("{top}: more than {MOST} files lie there, which is too many to look at"),
            ));
        }
        for (folder, entries) in lists {
            for (name, attributes) in entries {
                let path = join(&folder, &name);
                if closed.contains(&path) {
                    continue;
                }
                if recursive && attributes.kind() == Kind::Directory {
                    round.push(path.clone());
                }
                found.push((path, attributes));
            }
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

/// A listing's entry.
pub(super) fn entry(path: &[u8], attributes: Attributes) -> FileEntry {
    FileEntry {
        path: GuestPath::observed(String::from_utf8_lossy(path)),
        size: attributes.size,
        mode: Mode::of_bits(attributes.mode),
        is_dir: attributes.kind() == Kind::Directory,
    }
}
