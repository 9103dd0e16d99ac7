//! A simulated disk: a tree of inodes that copies share until one of them changes it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::{Digest, Mode, Owner};

/// A small file system below one root. Cloning it costs nothing: copies share what neither has changed, so a
/// thousand instances of one image are cheap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    pub(super) root: Arc<Node>,
}

/// What a folder holds, by name.
pub(super) type Folder = BTreeMap<String, Arc<Node>>;

/// An inode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) kind: Kind,
    pub(super) mode: Mode,
    pub(super) owner: Owner,
}

/// What an inode is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// Bytes, and their digest: it is asked for more often than they change.
    File {
        bytes: Arc<[u8]>,
        digest: Digest,
    },
    Directory(Folder),
    Symlink(String),
    /// A FIFO, a socket or a device: nothing that could be read.
    Special,
}

impl Node {
    pub(super) fn file(bytes: Arc<[u8]>, mode: Mode, owner: Owner) -> Self {
        let digest = Digest::of(&bytes);
        Self {
            kind: Kind::File { bytes, digest },
            mode,
            owner,
        }
    }

    pub(super) fn directory(mode: Mode, owner: Owner) -> Self {
        Self {
            kind: Kind::Directory(Folder::new()),
            mode,
            owner,
        }
    }

    pub(super) fn symlink(target: impl Into<String>, owner: Owner) -> Self {
        Self {
            kind: Kind::Symlink(target.into()),
            // Linux gives every link these bits and never looks at them (symlink(7)).
            mode: Mode::of_bits(0o777),
            owner,
        }
    }

    pub(super) fn special(mode: Mode, owner: Owner) -> Self {
        Self {
            kind: Kind::Special,
            mode,
            owner,
        }
    }

    pub(super) fn is_directory(&self) -> bool {
        matches!(self.kind, Kind::Directory(_))
    }

    pub(super) fn is_file(&self) -> bool {
        matches!(self.kind, Kind::File { .. })
    }

    pub(super) fn folder(&self) -> Option<&Folder> {
        match &self.kind {
            Kind::Directory(folder) => Some(folder),
            _ => None,
        }
    }
}

impl Disk {
    /// Nothing but a root folder, 0755 and root's.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            root: Arc::new(Node::directory(Mode::DIRECTORY, Owner::ROOT)),
        }
    }

    /// The inode at a place that [`Self::walk`](Disk::walk) found.
    pub(super) fn node(&self, place: &[String]) -> Option<&Node> {
        place
            .iter()
            .try_fold(&*self.root, |node, name| node.folder()?.get(name).map(|node| &**node))
    }

    /// The same for changing it; what copies share is parted on the way down.
    pub(super) fn node_mut(&mut self, place: &[String]) -> Option<&mut Node> {
        let mut node = Arc::make_mut(&mut self.root);
        for name in place {
            let Kind::Directory(folder) = &mut node.kind else {
                return None;
            };
            node = Arc::make_mut(folder.get_mut(name)?);
        }
        Some(node)
    }

    /// The folder at a place, for changing it.
    pub(super) fn folder_mut(&mut self, place: &[String]) -> Option<&mut Folder> {
        match &mut self.node_mut(place)?.kind {
            Kind::Directory(folder) => Some(folder),
            _ => None,
        }
    }
}
