//! Local sandboxes, for tests that want real ones.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

use sbx_apply::backend::local::Local;
use sbx_apply::backend::{Sandboxes, Settings};

use super::daemon::skipped;

/// The backend with a state folder of the tests' own, and an image with a shell and the account `user`. None
/// where this machine has no static busybox to make one from, which is said aloud.
pub(crate) fn open() -> Option<(Arc<dyn Sandboxes>, &'static str)> {
    static IMAGE: OnceLock<Option<String>> = OnceLock::new();
    let image = IMAGE.get_or_init(|| match image() {
        Ok(image) => Some(image.display().to_string()),
        Err(error) => {
            skipped(&format!("every check of local sandboxes with a small image: {error}"));
            None
        }
    });
    Some((backend(), image.as_deref()?))
}

/// The backend alone.
pub(crate) fn backend() -> Arc<dyn Sandboxes> {
    let own = |name: &str| folder().join(name).display().to_string();
    let settings = [("state", own("state")), ("folder", own("")), ("root", own(""))];
    let settings = Settings::from(settings.map(|(key, value)| (key.to_owned(), value)));
    let program = Path::new(env!("CARGO_BIN_EXE_sbx-apply"));
    Arc::new(Local::open(&settings, program).expect("opens"))
}

/// A folder of the tests' own, for each user that runs them.
pub(crate) fn folder() -> PathBuf {
    let uid = rustix::process::geteuid().as_raw();
    let folder = std::env::var_os("SBX_TEST_LOCAL").map_or_else(
        || Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("local-{uid}")),
        PathBuf::from,
    );
    fs::create_dir_all(&folder).expect("makes a folder");
    folder
}

/// A root file system with busybox in it.
fn image() -> io::Result<PathBuf> {
    let place = folder().join("busybox");
    if place.exists() {
        return Ok(place);
    }
    let half = tempfile::tempdir_in(folder())?;
    let root = half.path();
    for folder in [
        "bin",
        "etc",
        "home/user",
        "root",
        "tmp",
        "srv",
        "usr/bin",
        "usr/sbin",
        "sbin",
        "var/lib",
    ] {
        fs::create_dir_all(root.join(folder))?;
    }
    fs::copy("/bin/busybox", root.join("bin/busybox"))?;
    let list = Command::new("/bin/busybox").arg("--list").output()?;
    for name in String::from_utf8_lossy(&list.stdout)
        .lines()
        .filter(|name| *name != "busybox")
    {
        symlink("busybox", root.join("bin").join(name))?;
    }
    fs::write(
        root.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n",
    )?;
    fs::write(root.join("etc/group"), "root:x:0:\nuser:x:1000:\n")?;
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(root.join("home/user"), Some(1000), Some(1000))?;
    }
    for folder in [root, &root.join("tmp")] {
        let mode = if folder == root { 0o755 } else { 0o1777 };
        fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(mode))?;
    }
    match fs::rename(root, &place) {
        // Another test was faster.
        Err(error) if error.kind() != io::ErrorKind::DirectoryNotEmpty => Err(error),
        _ => Ok(place),
    }
}
