//! What becomes of disks when the daemon is killed while it makes or deletes them. All of it was seen with 6.0.4 on btrfs.

use crate::backend::Error;

/// Whether the daemon knows an instance and no disk of it, or no way to its disk any more: it was killed while it made or
/// deleted it. It can then do nothing with it but delete it.
pub(super) fn is_diskless(error: &Error) -> bool {
    let text = error.to_string();
    let no_way = text.contains("SFTP connection: open ") && text.contains("/rootfs: no such file or directory");
    no_way || text.contains("Instance storage pool not found")
}

/// An error of a deletion, with what a person can do where the daemon can do nothing any more: it was killed when it had made a
/// folder for a disk, and no disk. That it deletes neither the folder nor the instance then is its own fault.
pub(super) fn with_way_out(error: Error) -> Error {
    let text = error.to_string();
    let Some((_, after)) = text.split_once("Failed deleting subvolume \"") else {
        return error;
    };
    match after.split_once('"') {
        Some((folder, after)) if after.contains("Not a Btrfs subvolume") => error.with_hint(format!(
            "Incus was killed while it made this disk, and cannot delete what it left, an empty folder; where it runs, as root: \
             rmdir '{folder}'; then try again"
        )),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::ErrorKind;

    fn error(text: &str) -> Error {
        Error::new(ErrorKind::Failed, text)
    }

    #[test]
    fn disks_that_are_gone_are_told_from_files_that_are() {
        let within = "Failed getting instance SFTP connection: ";
        for text in [
            "Failed getting instance pool: Instance storage pool not found",
            "open /var/lib/incus/containers/a-b/rootfs: no such file or directory",
        ] {
            assert!(is_diskless(&error(&format!("{within}{text}"))), "{text}");
        }
        for text in [
            "dial unix /run/incus/a-b/forkfile.sock: connect: no such file or directory",
            "open /var/lib/incus/containers/a-b/rootfs: permission denied",
        ] {
            assert!(!is_diskless(&error(&format!("{within}{text}"))), "{text}");
        }
    }

    #[test]
    fn where_only_a_person_can_delete_it_they_are_told_how() {
        let text = "Error deleting storage volume: Failed deleting subvolume \"/pool/containers/a-b\": Failed to run: btrfs \
                    subvolume delete /pool/containers/a-b: exit status 1 (ERROR: Not a Btrfs subvolume: Invalid argument)";
        let hint = with_way_out(error(text)).hint().map(str::to_owned);
        assert!(hint.is_some_and(|hint| hint.contains("rmdir '/pool/containers/a-b'")));
        let other = text.replace("Not a Btrfs subvolume", "No space left");
        assert_eq!(with_way_out(error(&other)).hint(), None);
    }
}
