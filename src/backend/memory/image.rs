//! The images that a simulated backend knows.

use std::sync::Arc;

use super::disk::{Disk, Node};
use crate::model::{GuestPath, Mode, Owner};

/// The image that every [`Memory`](super::Memory) knows.
pub(super) const BASE: &str = "debian/12";

/// Its next version, for specs that change.
pub(super) const NEXT: &str = "debian/13";

const SHADOW: Owner = Owner { uid: 0, gid: 42 };

/// The little that a set-up looks for in an image: folders, accounts and a shell.
pub(super) fn base() -> Disk {
    let mut disk = Disk::empty();
    for (path, mode) in [
        ("/bin", 0o755),
        ("/etc", 0o755),
        ("/home", 0o755),
        ("/root", 0o700),
        ("/tmp", 0o777),
    ] {
        let node = Node::directory(Mode::of_bits(mode), Owner::ROOT);
        put(&mut disk, path, node);
    }
    let account = "root:x:0:0:root:/root:/bin/sh\n";
    for (path, text, mode, owner) in [
        ("/bin/sh", "simulated\n", 0o755, Owner::ROOT),
        ("/etc/passwd", account, 0o644, Owner::ROOT),
        ("/etc/group", "root:x:0:\nshadow:x:42:\n", 0o644, Owner::ROOT),
        ("/etc/shadow", "root:*:19000:0:99999:7:::\n", 0o640, SHADOW),
    ] {
        put(
            &mut disk,
            path,
            Node::file(Arc::from(text.as_bytes()), Mode::of_bits(mode), owner),
        );
    }
    disk
}

/// The same with more files, 0644 and root's.
pub(super) fn with_files(files: &[(&str, &str)]) -> Disk {
    let mut disk = base();
    for (path, text) in files {
        put(
            &mut disk,
            path,
            Node::file(Arc::from(text.as_bytes()), Mode::FILE, Owner::ROOT),
        );
    }
    disk
}

/// Puts a file into an image. What cannot stand there does not: a test that asks for it will miss it.
fn put(disk: &mut Disk, path: &str, node: Node) {
    if let Ok(path) = GuestPath::new(path) {
        let _ = disk.put(&path, node, Owner::ROOT);
    }
}
