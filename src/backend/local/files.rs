//! Reading and changing files: a helper goes where they are, and is asked.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::timeout;

use super::Local;
use super::helper::{Helper, unexpected};
use super::state::Lock;
use super::wire::{Entry, EntryShape, FileRequest, Reply, Request, View, Where};
use crate::backend::retry::retry;
use crate::backend::source::source;
use crate::backend::{Error, ErrorKind, FileChange, FileEntry, Files, ReadFiles, Result};
use crate::model::{Content, Data, Found, GuestPath, Hasher, Inspection, InstanceName, Mode, Owner, Query, Shape};

/// How long looking at files may take, whatever a guest does to draw it out.
const LOOK: Duration = Duration::from_secs(120);
/// So many bytes of a file are sent at once.
const BLOCK: usize = 256 << 10;

#[async_trait]
impl ReadFiles for Local {
    async fn inspect(&self, name: &InstanceName, query: &Query) -> Result<Inspection> {
        self.store.record(name)?;
        if query.is_empty() {
            return Ok(Inspection::default());
        }
        bounded(name, async {
            let mut session = self.session(name, false).await?;
            let texts = |paths: &std::collections::BTreeSet<GuestPath>| paths.iter().map(ToString::to_string).collect();
            let request = FileRequest::Inspect {
                paths: query.paths.difference(&query.opaque).map(ToString::to_string).collect(),
                opaque: texts(&query.opaque),
                below: texts(&query.below),
                bound: query.bound,
            };
            let (entries, contents) = session.entries(&request).await?;
            session.end().await;
            found(entries, &contents)
        })
        .await
    }

    async fn read(&self, name: &InstanceName, path: &GuestPath, max_bytes: u64) -> Result<(Vec<u8>, bool)> {
        bounded(name, async {
            let mut session = self.session(name, false).await?;
            let request = FileRequest::Read {
                path: path.to_string(),
                most: max_bytes,
            };
            session.helper.send(&request).await?;
            let answer = match session.helper.reply().await? {
                Reply::Read { truncated } => (session.helper.bytes().await?, truncated),
                other => return Err(unexpected(&other)),
            };
            session.end().await;
            Ok(answer)
        })
        .await
        .map_err(|error| error.within(format_args!("cannot read `{path}` in `{name}`")))
    }

    async fn list_files(&self, name: &InstanceName, path: &GuestPath, recursive: bool) -> Result<Vec<FileEntry>> {
        bounded(name, async {
            let mut session = self.session(name, false).await?;
            let request = FileRequest::List {
                path: path.to_string(),
                recursive,
            };
            let (entries, _) = session.entries(&request).await?;
            session.end().await;
            let mut listed: Vec<_> = entries
                .into_iter()
                .map(|entry| FileEntry {
                    path: GuestPath::observed(entry.path),
                    size: entry.size,
                    mode: Mode::of_bits(entry.mode),
                    is_dir: matches!(entry.shape, EntryShape::Directory),
                })
                .collect();
            listed.sort_by(|a, b| a.path.cmp(&b.path));
            Ok(listed)
        })
        .await
        .map_err(|error| error.within(format_args!("cannot list `{path}` in `{name}`")))
    }
}

#[async_trait]
impl Files for Local {
    async fn change_files(&self, name: &InstanceName, changes: &[FileChange]) -> Result<Vec<bool>> {
        self.store.record(name)?;
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        let mut session = self.session(name, true).await?;
        let mut there = Vec::with_capacity(changes.len());
        for change in changes {
            there.push(session.change(change).await?);
        }
        session.end().await;
        Ok(there)
    }

    async fn write_stream(
        &self,
        name: &InstanceName,
        path: &GuestPath,
        content: &mut (dyn AsyncRead + Send + Unpin),
        mode: Mode,
        owner: Option<Owner>,
    ) -> Result<()> {
        let mut session = self.session(name, true).await?;
        session.write(path, mode, owner, content, None).await?;
        session.end().await;
        Ok(())
    }

    async fn delete_file(&self, name: &InstanceName, path: &GuestPath) -> Result<()> {
        let removed = self
            .change_files(name, &[FileChange::Remove { path: path.clone() }])
            .await?;
        match removed[..] {
            [true] => Ok(()),
            _ => Err(Error::not_found(format!("`{path}`: no such file"))),
        }
    }
}

/// A helper that serves files. The sandbox neither starts nor stops while it lives.
#[derive(Debug)]
struct Session {
    helper: Helper,
    _lock: Lock,
}

impl Local {
    /// One that ends while it is entered is looked at again: then its disk is at hand.
    async fn session(&self, name: &InstanceName, writes: bool) -> Result<Session> {
        retry(|| self.try_session(name, writes)).await
    }

    async fn try_session(&self, name: &InstanceName, writes: bool) -> Result<Session> {
        // Those who read may be several at a stopped disk; who writes is alone with it. A running one is mounted
        // once, and everybody goes there.
        self.store.record(name)?;
        let mut lock = Lock::take(&self.store.lock(name), false, &format!("`{name}`")).await?;
        if writes && self.store.process(name).is_none() {
            drop(lock);
            (lock, _) = self.lock(name).await?;
        }
        let record = self.store.record(name)?;
        let disk = match self.store.process(name) {
            Some(process) => Where::Running(process),
            None => {
                self.finish_ending(name).await?;
                let parts = self.parts(&record.image).await?;
                Where::Stopped(self.store.tree(name, &record, &parts, writes)?)
            }
        };
        let within = |error: Error| error.within(format_args!("cannot reach the files of `{name}`"));
        let mut helper = self
            .helpers
            .ask(&Request::Files(View {
                ids: self.ids,
                in_use: self.in_use(name)?,
                disk,
            }))
            .await
            .map_err(within)?;
        match helper.reply().await.map_err(within)? {
            Reply::Ready => Ok(Session { helper, _lock: lock }),
            other => Err(unexpected(&other)),
        }
    }
}

impl Session {
    /// Waits until it is gone from the disk, too.
    async fn end(self) {
        self.helper.end().await;
    }

    async fn entries(&mut self, request: &FileRequest) -> Result<(Vec<Entry>, Vec<u8>)> {
        self.helper.send(request).await?;
        match self.helper.reply().await? {
            Reply::Found(entries) => Ok((entries, self.helper.bytes().await?)),
            other => Err(unexpected(&other)),
        }
    }

    async fn change(&mut self, change: &FileChange) -> Result<bool> {
        let ids = |owner: &Owner| (owner.uid, owner.gid);
        let request = match change {
            FileChange::Write {
                path,
                content,
                mode,
                owner,
            } => {
                return match &content.data {
                    Data::Bytes(bytes) => self.write(path, *mode, *owner, &mut &bytes[..], None).await,
                    Data::Path(file) => {
                        let mut file = source(file).await?;
                        self.write(path, *mode, *owner, &mut file, Some(content)).await
                    }
                };
            }
            FileChange::Directory { path, mode, owner } => FileRequest::Directory {
                path: path.to_string(),
                mode: mode.bits(),
                owner: ids(owner),
            },
            FileChange::Symlink { path, target, owner } => FileRequest::Symlink {
                path: path.to_string(),
                target: target.clone(),
                owner: ids(owner),
            },
            FileChange::Attributes { path, mode, owner } => FileRequest::Attributes {
                path: path.to_string(),
                mode: mode.bits(),
                owner: ids(owner),
            },
            FileChange::Remove { path } => FileRequest::Remove { path: path.to_string() },
        };
        self.helper.send(&request).await?;
        self.there().await
    }

    async fn there(&mut self) -> Result<bool> {
        match self.helper.reply().await? {
            Reply::There(there) => Ok(there),
            other => Err(unexpected(&other)),
        }
    }

    /// Sends a file. It is put in place only when its bytes are those that were `promised`.
    async fn write(
        &mut self,
        path: &GuestPath,
        mode: Mode,
        owner: Option<Owner>,
        from: &mut (dyn AsyncRead + Send + Unpin),
        promised: Option<&Content>,
    ) -> Result<bool> {
        let request = FileRequest::Write {
            path: path.to_string(),
            mode: mode.bits(),
            owner: owner.map(|owner| (owner.uid, owner.gid)),
        };
        self.helper.send(&request).await?;
        let mut hasher = Hasher::new();
        let mut block = vec![0; BLOCK];
        let mut size = 0_u64;
        let read = loop {
            match from.read(&mut block).await {
                Ok(0) => break Ok(()),
                Ok(length) => {
                    size += length as u64;
                    if promised.is_some_and(|promised| size > promised.size) {
                        break Ok(());
                    }
                    hasher.update(&block[..length]);
                    self.helper.send_bytes(&block[..length]).await?;
                }
                Err(error) => break Err(error),
            }
        };
        let moved = promised.is_some_and(|promised| size != promised.size || hasher.finish() != promised.digest);
        self.helper.send_bytes(&[]).await?;
        self.helper.send_bytes(&[u8::from(read.is_ok() && !moved)]).await?;
        let answer = self.there().await;
        match read {
            Err(error) => {
                Err(Error::new(ErrorKind::Failed, format!("cannot read what `{path}` is to hold")).with_source(error))
            }
            Ok(()) if moved => Err(Error::new(
                ErrorKind::Invalid,
                format!("the source of `{path}` has changed since it was planned"),
            )),
            Ok(()) => answer,
        }
    }
}

fn found(entries: Vec<Entry>, contents: &[u8]) -> Result<Inspection> {
    let mut rest = contents;
    let mut found = BTreeMap::new();
    for entry in entries {
        let shape = match entry.shape {
            EntryShape::File { digest, content } => {
                let content = match content {
                    None => None,
                    Some(length) => {
                        let length = usize::try_from(length).unwrap_or(usize::MAX);
                        let (own, others) = rest
                            .split_at_checked(length)
                            .ok_or_else(|| Error::new(ErrorKind::Failed, "a helper sent less than it said"))?;
                        rest = others;
                        Some(own.into())
                    }
                };
                Shape::File {
                    digest,
                    size: entry.size,
                    content,
                }
            }
            EntryShape::Directory => Shape::Directory,
            EntryShape::Symlink(target) => Shape::Symlink(target),
            EntryShape::Special => Shape::Special,
        };
        // A name that is no path of ours cannot have been asked for.
        let Ok(path) = GuestPath::new(entry.path) else { continue };
        found.insert(
            path,
            Found {
                shape,
                mode: Mode::of_bits(entry.mode),
                owner: Owner {
                    uid: entry.uid,
                    gid: entry.gid,
                },
            },
        );
    }
    Ok(Inspection(found))
}

async fn bounded<T>(name: &InstanceName, look: impl Future<Output = Result<T>> + Send) -> Result<T> {
    timeout(LOOK, look).await.unwrap_or_else(|_| {
        Err(Error::new(
            ErrorKind::Timeout,
            format!("looking at the files of `{name}` took longer than {} s", LOOK.as_secs()),
        ))
    })
}
