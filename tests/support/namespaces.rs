//! Local sandboxes, for tests that want real ones.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use sbx_apply::backend::local::Local;
use sbx_apply::backend::{Account, CreateOpts, ExecOpts, Output, Sandboxes, Settings};
use sbx_apply::model::InstanceName;

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
    backend_by(Path::new(env!("CARGO_BIN_EXE_sbx-apply")))
}

/// The same with another file of the program.
pub(crate) fn backend_by(program: &Path) -> Arc<dyn Sandboxes> {
    let own = |name: &str| folder().join(name).display().to_string();
    let settings = [("state", own("state")), ("folder", own("")), ("root", own(""))];
    let settings = Settings::from(settings.map(|(key, value)| (key.to_owned(), value)));
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

/// A running sandbox of the image `host`. It goes with the test, also with one that fails.
pub(crate) struct Sandbox {
    pub(crate) backend: Arc<dyn Sandboxes>,
    pub(crate) name: InstanceName,
}

impl Sandbox {
    pub(crate) async fn start() -> Self {
        Self::start_with(CreateOpts::default()).await
    }

    /// The same with settings; name and image aside.
    pub(crate) async fn start_with(opts: CreateOpts) -> Self {
        static SWEPT: tokio::sync::OnceCell<()> = tokio::sync::OnceCell::const_new();
        SWEPT.get_or_init(sweep).await;
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("own-{}-{number}", std::process::id());
        let sandbox = Self {
            backend: backend(),
            name: InstanceName::observed(&name),
        };
        let opts = CreateOpts {
            name,
            image: Some("host".to_owned()),
            ..opts
        };
        sandbox.backend.create(&opts).await.expect("creates");
        sandbox
    }

    /// What root inside gets for a script.
    pub(crate) async fn shell(&self, script: &str) -> Output {
        let opts = ExecOpts {
            command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            account: Account::root(),
            env: [].into(),
            timeout: Some(Duration::from_secs(120)),
        };
        self.backend.output(&self.name, &opts).await.expect("runs")
    }

    /// What a script says.
    pub(crate) async fn says(&self, script: &str) -> String {
        String::from_utf8_lossy(&self.shell(script).await.stdout).into_owned()
    }

    pub(crate) async fn end(self) {
        self.backend.delete(&self.name).await.expect("deletes");
    }
}

/// Deletes the sandboxes of tests that were killed.
async fn sweep() {
    let backend = backend();
    for name in fs::read_dir(folder().join("state/sandboxes"))
        .into_iter()
        .flatten()
        .flatten()
    {
        let name = name.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix("own-").and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|owner| !Path::new("/proc").join(owner).exists()) {
            // Somebody else may sweep as well.
            let _ = backend.delete(&InstanceName::observed(name)).await;
        }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let (backend, name) = (self.backend.clone(), self.name.clone());
        // The test's own runtime cannot be waited for in here.
        let delete = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            // Mostly it has gone already.
            let _ = runtime.block_on(backend.delete(&name));
            io::Result::Ok(())
        };
        let _ = std::thread::spawn(delete).join();
    }
}
