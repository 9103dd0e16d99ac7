//! Copies of disks: what snapshots, clones and rollbacks of datasets do to the folders of the daemon's pool.

use std::path::Path;

use tokio::process::Command;

/// btrfs, in `statfs`.
const BTRFS: i64 = 0x9123_683E;

fn btrfs(path: &Path) -> bool {
    let parent = path.parent().unwrap_or(path);
    rustix::fs::statfs(parent).is_ok_and(|stat| stat.f_type == BTRFS)
}

async fn run(program: &str, arguments: &[&std::ffi::OsStr]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output().await;
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
}

/// Copies one disk to where none is.
pub(super) async fn copy(from: &Path, to: &Path) -> Result<(), String> {
    if let Some(folder) = to.parent() {
        std::fs::create_dir_all(folder).map_err(|error| error.to_string())?;
    }
    if btrfs(from) {
        let words = [
            "subvolume".as_ref(),
            "snapshot".as_ref(),
            from.as_os_str(),
            to.as_os_str(),
        ];
        return run("btrfs", &words).await;
    }
    run("cp", &["-a".as_ref(), from.as_os_str(), to.as_os_str()]).await
}

/// Removes one disk.
pub(super) async fn remove(disk: &Path) -> Result<(), String> {
    if btrfs(disk) {
        return run("btrfs", &["subvolume".as_ref(), "delete".as_ref(), disk.as_os_str()]).await;
    }
    std::fs::remove_dir_all(disk).map_err(|error| error.to_string())
}

/// Removes all disks in a folder, and the folder.
pub(super) async fn remove_folder(folder: &Path) -> Result<(), String> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Ok(());
    };
    for entry in entries.flatten() {
        remove(&entry.path()).await?;
    }
    std::fs::remove_dir(folder).map_err(|error| error.to_string())
}
