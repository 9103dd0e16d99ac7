//! Looking at a disk: inspections, contents and listings.

use std::collections::BTreeMap;

use super::disk::{Disk, Kind, Node};
use super::walk::{Obstacle, Spot};
use crate::backend::FileEntry;
use crate::model::{Found, GuestPath, Inspection, Query, Shape};

impl Disk {
    /// What stands at the paths of a query. Contents come along for [`Query::paths`] alone.
    pub(super) fn inspect(&self, query: &Query) -> Inspection {
        let mut found = BTreeMap::new();
        for folder in &query.below {
            if let Some(node) = self.at(folder.as_str(), false).filter(|node| node.is_directory()) {
                each_below(node, folder, &mut |path, node| {
                    if !query.closed.iter().any(|closed| path.lies_in(closed)) {
                        found.insert(path.clone(), describe(node, false, None));
                    }
                });
            }
        }
        for path in query.paths.union(&query.opaque) {
            if let Some(node) = self.at(path.as_str(), false) {
                found.insert(
                    path.clone(),
                    describe(node, !query.opaque.contains(path), Some(query.bound)),
                );
            }
        }
        Inspection(found)
    }

    /// The bytes of a regular file, links followed.
    pub(super) fn bytes(&self, path: &GuestPath) -> Result<&[u8], Obstacle> {
        match &self.followed(path)?.kind {
            Kind::File { bytes, .. } => Ok(bytes),
            _ => Err(Obstacle::NotFile),
        }
    }

    /// What lies in a folder, or anywhere below it, ordered by path. Links in it are listed, not followed.
    pub(super) fn list(&self, path: &GuestPath, recursive: bool) -> Result<Vec<FileEntry>, Obstacle> {
        let node = self.followed(path)?;
        let folder = node.folder().ok_or(Obstacle::NotFolder)?;
        let mut entries = BTreeMap::new();
        let mut add = |path: &GuestPath, node: &Node| {
            entries.insert(path.clone(), entry(path, node));
        };
        if recursive {
            each_below(node, path, &mut add);
        } else {
            for (name, node) in folder {
                add(&path.join(name), node);
            }
        }
        Ok(entries.into_values().collect())
    }

    /// What stands at a path, if anything.
    pub(super) fn at(&self, path: &str, follow: bool) -> Option<&Node> {
        match self.walk(path, follow) {
            Ok(Spot::There(place)) => self.node(&place),
            _ => None,
        }
    }

    /// Where a path leads, links followed, if it leads to anything.
    pub(super) fn place(&self, path: &str) -> Option<Vec<String>> {
        match self.walk(path, true) {
            Ok(Spot::There(place)) => Some(place),
            _ => None,
        }
    }

    fn followed(&self, path: &GuestPath) -> Result<&Node, Obstacle> {
        match self.walk(path.as_str(), true) {
            Ok(Spot::There(place)) => self.node(&place).ok_or(Obstacle::Missing),
            Ok(Spot::Missing { .. }) | Err(Obstacle::Dangling | Obstacle::NotFolder) => Err(Obstacle::Missing),
            Err(obstacle) => Err(obstacle),
        }
    }
}

/// Calls `visit` for everything below a folder.
fn each_below(node: &Node, path: &GuestPath, visit: &mut impl FnMut(&GuestPath, &Node)) {
    for (name, node) in node.folder().into_iter().flatten() {
        let path = path.join(name);
        visit(&path, node);
        each_below(node, &path, visit);
    }
}

/// An inode as an inspection tells it; files of up to `bound` bytes are read, if any.
pub(super) fn describe(node: &Node, with_content: bool, bound: Option<u64>) -> Found {
    let shape = match &node.kind {
        Kind::File { bytes, digest } => {
            let size = bytes.len() as u64;
            Shape::File {
                digest: bound.is_some_and(|bound| size <= bound).then(|| digest.clone()),
                size,
                content: (with_content && bound.is_some_and(|bound| size <= bound.min(Inspection::KEPT)))
                    .then(|| bytes.clone()),
            }
        }
        Kind::Directory(_) => Shape::Directory,
        Kind::Symlink(target) => Shape::Symlink(target.clone()),
        Kind::Special => Shape::Special,
    };
    Found {
        shape,
        mode: node.mode,
        owner: node.owner,
    }
}

fn entry(path: &GuestPath, node: &Node) -> FileEntry {
    let size = match &node.kind {
        Kind::File { bytes, .. } => bytes.len(),
        Kind::Symlink(target) => target.len(),
        Kind::Directory(_) | Kind::Special => 0,
    };
    FileEntry {
        path: path.clone(),
        size: size as u64,
        mode: node.mode,
        is_dir: node.is_directory(),
    }
}
