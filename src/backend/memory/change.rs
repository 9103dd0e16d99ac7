//! Changing a disk: what each [`FileChange`](crate::backend::FileChange) does to it.

use std::sync::Arc;

use super::disk::{Disk, Node};
use super::walk::{Obstacle, Spot};
use crate::model::{GuestPath, Mode, Owner};

impl Disk {
    /// Puts an inode in place of whatever stands at a path. Missing parents are made, 0755 and `parents`'.
    pub(super) fn put(&mut self, path: &GuestPath, node: Node, parents: Owner) -> Result<(), Obstacle> {
        let (mut folder, mut names) = match self.walk(path.as_str(), false)? {
            Spot::There(mut place) => {
                let name = place.pop().ok_or(Obstacle::NotFile)?;
                (place, vec![name])
            }
            Spot::Missing { folder, names } => (folder, names),
        };
        let last = names.pop().ok_or(Obstacle::NotFile)?;
        for name in names {
            self.insert(&folder, name.clone(), Node::directory(Mode::DIRECTORY, parents))?;
            folder.push(name);
        }
        self.insert(&folder, last, node)
    }

    fn insert(&mut self, folder: &[String], name: String, node: Node) -> Result<(), Obstacle> {
        let folder = self.folder_mut(folder).ok_or(Obstacle::NotFolder)?;
        folder.insert(name, Arc::new(node));
        Ok(())
    }

    /// Makes a folder, or gives the one that is there this mode and owner.
    pub(super) fn directory(&mut self, path: &GuestPath, mode: Mode, owner: Owner) -> Result<(), Obstacle> {
        if let Some(node) = self.there_mut(path)?
            && node.is_directory()
        {
            node.mode = mode;
            node.owner = owner;
            return Ok(());
        }
        self.put(path, Node::directory(mode, owner), owner)
    }

    /// Gives the regular file that is there another mode and owner.
    pub(super) fn attributes(&mut self, path: &GuestPath, mode: Mode, owner: Owner) -> Result<(), Obstacle> {
        let node = self.there_mut(path)?.ok_or(Obstacle::Missing)?;
        if !node.is_file() {
            return Err(Obstacle::NotFile);
        }
        node.mode = mode;
        node.owner = owner;
        Ok(())
    }

    /// Removes what stands at a path, a link itself. Says whether there was anything.
    pub(super) fn remove(&mut self, path: &GuestPath) -> bool {
        let Ok(Spot::There(mut place)) = self.walk(path.as_str(), false) else {
            return false;
        };
        let Some(name) = place.pop() else { return false };
        self.folder_mut(&place)
            .is_some_and(|folder| folder.remove(&name).is_some())
    }

    fn there_mut(&mut self, path: &GuestPath) -> Result<Option<&mut Node>, Obstacle> {
        Ok(match self.walk(path.as_str(), false)? {
            Spot::There(place) => self.node_mut(&place),
            Spot::Missing { .. } => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::memory::machine::Machine;
    use crate::model::Shape;

    const DEV: Owner = Owner { uid: 1000, gid: 1000 };

    fn path(text: &str) -> GuestPath {
        GuestPath::new(text).expect(text)
    }

    fn file(text: &str) -> Node {
        Node::file(Arc::from(text.as_bytes()), Mode::FILE, DEV)
    }

    #[test]
    fn parents_are_made_and_existing_ones_left_alone() {
        let mut disk = Disk::empty();
        disk.directory(&path("/srv"), Mode::of_bits(0o700), Owner::ROOT)
            .expect("makes");
        disk.put(&path("/srv/a/b"), file("x"), DEV).expect("writes");
        let machine = Machine::bare(disk);
        let attributes = |path: &str| machine.found(path).map(|found| (found.mode, found.owner));
        assert_eq!(attributes("/srv"), Some((Mode::of_bits(0o700), Owner::ROOT)));
        assert_eq!(attributes("/srv/a"), Some((Mode::DIRECTORY, DEV)));
        assert_eq!(attributes("/srv/a/b"), Some((Mode::FILE, DEV)));
    }

    #[test]
    fn a_link_is_replaced_and_its_target_left_alone() {
        let mut disk = Disk::empty();
        disk.put(&path("/target"), file("old"), DEV).expect("writes");
        disk.put(&path("/link"), Node::symlink("target", DEV), DEV)
            .expect("links");
        disk.put(&path("/link"), file("new"), DEV).expect("writes");
        let machine = Machine::bare(disk);
        assert_eq!(machine.read("/target").as_deref(), Some(&b"old"[..]));
        assert_eq!(machine.read("/link").as_deref(), Some(&b"new"[..]));
    }

    #[test]
    fn a_file_among_the_parents_is_no_folder() {
        let mut disk = Disk::empty();
        disk.put(&path("/a"), file("x"), DEV).expect("writes");
        assert_eq!(disk.put(&path("/a/b"), file("y"), DEV), Err(Obstacle::NotFolder));
        assert_eq!(
            disk.directory(&path("/a/b"), Mode::DIRECTORY, DEV),
            Err(Obstacle::NotFolder)
        );
        assert!(!disk.remove(&path("/a/b")));
    }

    #[test]
    fn attributes_are_for_regular_files_that_are_there() {
        let mut disk = Disk::empty();
        disk.put(&path("/link"), Node::symlink("x", DEV), DEV).expect("links");
        assert_eq!(disk.attributes(&path("/gone"), Mode::FILE, DEV), Err(Obstacle::Missing));
        assert_eq!(disk.attributes(&path("/link"), Mode::FILE, DEV), Err(Obstacle::NotFile));
    }

    #[test]
    fn removing_takes_a_folder_with_all_that_it_holds() {
        let mut disk = Disk::empty();
        disk.put(&path("/a/b/c"), file("x"), DEV).expect("writes");
        assert!(disk.remove(&path("/a")));
        assert!(!disk.remove(&path("/a")));
        assert_eq!(disk, Disk::empty());
    }

    #[test]
    fn copies_part_when_one_of_them_changes() {
        let mut disk = Disk::empty();
        disk.put(&path("/shared/one"), file("1"), DEV).expect("writes");
        disk.put(&path("/apart/two"), file("2"), DEV).expect("writes");
        let copy = disk.clone();
        disk.put(&path("/apart/two"), file("changed"), DEV).expect("writes");
        let node = |disk: &Disk, name: &str| disk.root.folder().and_then(|root| root.get(name).cloned());
        let same = |name: &str| match (node(&disk, name), node(&copy, name)) {
            (Some(one), Some(other)) => Arc::ptr_eq(&one, &other),
            _ => false,
        };
        assert!(same("shared"));
        assert!(!same("apart"));
        let copy = Machine::bare(copy);
        assert!(matches!(
            copy.found("/apart/two").map(|found| found.shape),
            Some(Shape::File { size: 1, .. })
        ));
    }
}
