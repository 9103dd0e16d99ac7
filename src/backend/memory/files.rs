//! Reading and changing the files of simulated instances.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::Memory;
use super::disk::{Disk, Node};
use super::machine::{Machine, cannot};
use super::walk::Obstacle;
use crate::backend::source::source;
use crate::backend::{Error, ErrorKind, FileChange, FileEntry, Files, ReadFiles, Result};
use crate::model::{Capability, Content, Data, Digest, GuestPath, Inspection, InstanceName, Mode, Owner, Query};

#[async_trait]
impl ReadFiles for Memory {
    async fn inspect(&self, name: &InstanceName, query: &Query) -> Result<Inspection> {
        self.count("inspect");
        self.pause().await;
        self.with_disk(name, |disk| Ok(disk.inspect(query)))
    }

    async fn read(&self, name: &InstanceName, path: &GuestPath, max_bytes: u64) -> Result<(Vec<u8>, bool)> {
        self.count("read");
        self.pause().await;
        self.with_disk(name, |disk| {
            let bytes = disk.bytes(path).map_err(|obstacle| cannot(path, obstacle))?;
            let end = usize::try_from(max_bytes).unwrap_or(usize::MAX).min(bytes.len());
            Ok((bytes[..end].to_vec(), end < bytes.len()))
        })
    }

    async fn list_files(&self, name: &InstanceName, path: &GuestPath, recursive: bool) -> Result<Vec<FileEntry>> {
        self.count("list_files");
        self.pause().await;
        self.with_disk(name, |disk| {
            disk.list(path, recursive).map_err(|obstacle| cannot(path, obstacle))
        })
    }
}

#[async_trait]
impl Files for Memory {
    async fn change_files(&self, name: &InstanceName, changes: &[FileChange]) -> Result<Vec<bool>> {
        self.note("change_files", changes.iter().map(|change| entry(name, change)));
        self.pause().await;
        // Even an empty batch opens a session.
        self.with_disk(name, |_| Ok(()))?;
        let mut there = Vec::with_capacity(changes.len());
        for change in changes {
            // Nothing is undone where a later one fails, as in any session with a real system.
            let bytes = match change {
                FileChange::Write { content, .. } => Some(load(content).await?),
                _ => None,
            };
            there.push(self.with_disk(name, |disk| {
                let there = disk.at(change.path().as_str(), false).is_some();
                disk.apply(change, bytes)
                    .map_err(|obstacle| cannot(change.path(), obstacle))?;
                Ok(there)
            })?);
        }
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
        self.note("write_stream", [written(name, path, mode, owner)]);
        self.pause().await;
        self.with_disk(name, |_| Ok(()))?;
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes).await.map_err(|source| {
            Error::new(ErrorKind::Failed, format!("cannot read what `{path}` is to hold")).with_source(source)
        })?;
        self.with_disk(name, |disk| {
            disk.write(path, bytes.into(), mode, owner)
                .map_err(|obstacle| cannot(path, obstacle))
        })
    }

    async fn delete_file(&self, name: &InstanceName, path: &GuestPath) -> Result<()> {
        self.note("delete_file", [format!("remove {name} {path}")]);
        self.pause().await;
        self.with_disk(name, |disk| match disk.remove(path) {
            true => Ok(()),
            false => Err(cannot(path, Obstacle::Missing)),
        })
    }
}

impl Memory {
    /// The disk of an instance whose files can be reached now.
    fn with_disk<T>(&self, name: &InstanceName, then: impl FnOnce(&mut Disk) -> Result<T>) -> Result<T> {
        self.need(Capability::Files)?;
        let mut world = self.world();
        let held = world.holds.disk_is_held(name);
        let machine: &mut Machine = world.machine_mut(name)?;
        if held {
            return Err(Error::new(
                ErrorKind::Busy,
                format!("another operation is under way on the disk of `{name}`"),
            ));
        }
        if !machine.runs() {
            self.need(Capability::FilesWhenStopped)?;
        }
        then(&mut machine.root)
    }
}

impl Disk {
    fn write(&mut self, path: &GuestPath, bytes: Arc<[u8]>, mode: Mode, owner: Option<Owner>) -> Result<(), Obstacle> {
        let owner = owner.unwrap_or(Owner::ROOT);
        self.put(path, Node::file(bytes, mode, owner), owner)
    }

    /// Does one change; `bytes` are those of a [`FileChange::Write`].
    fn apply(&mut self, change: &FileChange, bytes: Option<Arc<[u8]>>) -> Result<(), Obstacle> {
        match change {
            FileChange::Write { path, mode, owner, .. } => self.write(path, bytes.unwrap_or_default(), *mode, *owner),
            FileChange::Directory { path, mode, owner } => self.directory(path, *mode, *owner),
            FileChange::Symlink { target, .. } if target.is_empty() => Err(Obstacle::NoTarget),
            FileChange::Symlink { path, target, owner } => self.put(path, Node::symlink(target, *owner), *owner),
            FileChange::Attributes { path, mode, owner } => self.attributes(path, *mode, *owner),
            FileChange::Remove { path } => {
                self.remove(path);
                Ok(())
            }
        }
    }
}

/// The bytes of a content, which must be those that were planned.
async fn load(content: &Content) -> Result<Arc<[u8]>> {
    let (bytes, source): (Arc<[u8]>, _) = match &content.data {
        Data::Bytes(bytes) => (bytes.clone(), "an inline content".to_owned()),
        Data::Path(path) => {
            let shown = format!("`{}`", path.display());
            let mut bytes = Vec::new();
            let read = source(path).await?.take(content.size.saturating_add(1));
            let mut read = std::pin::pin!(read);
            read.read_to_end(&mut bytes)
                .await
                .map_err(|source| Error::new(ErrorKind::Invalid, format!("cannot read {shown}")).with_source(source))?;
            (bytes.into(), shown)
        }
    };
    if Digest::of(&bytes) != content.digest {
        return Err(Error::new(
            ErrorKind::Invalid,
            format!("{source} is not what was planned any more"),
        ));
    }
    Ok(bytes)
}

fn entry(name: &InstanceName, change: &FileChange) -> String {
    match change {
        FileChange::Write { path, mode, owner, .. } => written(name, path, *mode, *owner),
        FileChange::Directory { path, mode, owner } => format!("directory {name} {path} {mode} {owner}"),
        FileChange::Symlink { path, target, .. } => format!("symlink {name} {path} -> {target}"),
        FileChange::Attributes { path, mode, owner } => format!("attributes {name} {path} {mode} {owner}"),
        FileChange::Remove { path } => format!("remove {name} {path}"),
    }
}

fn written(name: &InstanceName, path: &GuestPath, mode: Mode, owner: Option<Owner>) -> String {
    match owner {
        Some(owner) => format!("write {name} {path} {mode} {owner}"),
        None => format!("write {name} {path} {mode}"),
    }
}
