//! A folder of the host that somebody has attached by hand: nothing that we remove reaches into it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use sbx_apply::backend::ErrorKind;

use crate::conformance::fixture::{Fixture, fails, file, folder, incus, link, nothing, path, run as checked};
use crate::support::daemon::{self, Daemon};
use crate::support::program::{Run, real_program};

/// An environment with one sandbox, and a folder of the host.
struct Scene {
    daemon: Daemon,
    environment: String,
    folder: tempfile::TempDir,
}

impl Scene {
    fn new(name: &str) -> Option<Self> {
        let daemon = daemon::find()?;
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir_all(folder.path().join("app")).expect("makes");
        fs::write(folder.path().join("app/own"), "own").expect("writes");
        let scene = Self {
            daemon,
            environment: format!("{name}-{}", std::process::id()),
            folder,
        };
        fs::create_dir_all(scene.host().join("deep")).expect("makes");
        fs::write(scene.host().join("deep/precious"), "years of it").expect("writes");
        // Whoever is root inside could delete all of it.
        for path in ["", "host", "host/deep", "host/deep/precious"] {
            let path = scene.folder.path().join(path);
            fs::set_permissions(path, fs::Permissions::from_mode(0o777)).expect("sets");
        }
        Some(scene)
    }

    fn host(&self) -> PathBuf {
        self.folder.path().join("host")
    }

    #[track_caller]
    fn is_untouched(&self) {
        let precious = fs::read_to_string(self.host().join("deep/precious"));
        assert_eq!(precious.ok().as_deref(), Some("years of it"), "the host's data");
    }

    fn instance(&self) -> String {
        format!("{}-one", self.environment)
    }

    #[track_caller]
    fn client(&self, words: &[&str]) {
        client(&self.daemon, words);
    }

    #[track_caller]
    fn attach(&self, at: &str) {
        let (source, at) = (format!("source={}", self.host().display()), format!("path={at}"));
        self.client(&[
            "config",
            "device",
            "add",
            &self.instance(),
            "by-hand",
            "disk",
            &source,
            &at,
        ]);
    }

    #[track_caller]
    fn shell(&self, script: &str) {
        self.client(&["exec", &self.instance(), "--", "/bin/sh", "-ec", script]);
    }

    async fn run(&self, command: &[&str], body: &str, code: u8) -> Run {
        let spec = self.folder.path().join("sbx.kdl");
        let head = format!("environment \"{}\"\nbackend \"incus\"\n", self.environment);
        let text = format!("{head}sandbox \"one\" {{ image \"busybox\"; {body} }}\n");
        fs::write(&spec, text).expect("writes");
        let (spec, socket) = (spec.display().to_string(), self.daemon.socket.display().to_string());
        let words = [&command[..1], &[&spec], &command[1..], &["--socket", &socket]].concat();
        let run = real_program(&words, &[]).await;
        assert_eq!(run.code, code, "{words:?} {body}\n{}\n{}", run.stdout, run.stderr);
        run
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = Command::new("incus")
            .args(["delete", "--force", &self.instance()])
            .env("INCUS_SOCKET", &self.daemon.socket)
            .output();
    }
}

#[track_caller]
fn client(daemon: &Daemon, words: &[&str]) {
    let output = Command::new("incus")
        .args(words)
        .env("INCUS_SOCKET", &daemon.socket)
        .output()
        .expect("the client is there");
    assert!(
        output.status.success(),
        "{words:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

const TREE: &str = "tree \"/srv/app\" source=\"app\" delete=true;";

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_that_is_kept_clean_leaves_what_is_attached_in_it_alone() {
    let Some(scene) = Scene::new("mounted-tree") else {
        return;
    };
    scene.run(&["apply"], TREE, 0).await;
    scene.attach("/srv/app/some/data");
    let check = scene.run(&["check"], TREE, 0).await;
    let said = "one: /srv/app: what somebody has attached at /srv/app/some/data is left alone";
    assert!(check.stdout.contains(said), "{}", check.stdout);
    // What else lies there goes all the same.
    scene.shell("echo x > /srv/app/extra; mkdir -p /srv/app/some/other; echo x > /srv/app/some/other/extra");
    let apply = scene.run(&["apply"], TREE, 0).await;
    assert!(!apply.stdout.contains("precious"), "{}", apply.stdout);
    scene.shell("test ! -e /srv/app/extra; test ! -e /srv/app/some/other; test -e /srv/app/some/data/deep/precious");
    scene.is_untouched();
    // Stopped and started, and with the tree itself behind such a device.
    scene.client(&["stop", "--force", &scene.instance()]);
    scene.run(&["apply"], TREE, 0).await;
    scene.is_untouched();
    scene.client(&["config", "device", "remove", &scene.instance(), "by-hand"]);
    scene.attach("srv/app/");
    let apply = scene.run(&["apply"], TREE, 0).await;
    assert!(apply.stdout.contains("nothing is deleted there"), "{}", apply.stdout);
    scene.is_untouched();
    scene.run(&["destroy", "--allow-data-loss"], TREE, 0).await;
    scene.is_untouched();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_mounted_where_a_link_leads_is_left_alone_too() {
    let Some(scene) = Scene::new("mounted-link") else {
        return;
    };
    scene.run(&["apply"], TREE, 0).await;
    scene.shell("ln -s /srv/app /link");
    scene.attach("/link/data");
    scene.run(&["check"], TREE, 0).await;
    // A folder that holds one is refused whole, though the plan could not know of it.
    scene.client(&["config", "device", "remove", &scene.instance(), "by-hand"]);
    scene.shell("rm -rf /srv/app/data; mkdir /srv/app/some; echo x > /srv/app/some/extra");
    scene.attach("/link/some/data");
    let apply = scene.run(&["apply"], TREE, 1).await;
    assert!(
        apply.stderr.contains("something is mounted at `/srv/app/some/data`"),
        "{}",
        apply.stderr
    );
    scene.shell("test -e /srv/app/some/extra");
    scene.is_untouched();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_holds_a_device_is_never_in_the_way_of_a_file() {
    let Some(scene) = Scene::new("mounted-file") else {
        return;
    };
    let both = "file \"/etc/one\" content=\"1\\n\"; file \"/etc/two\" content=\"2\\n\";";
    scene.run(&["apply"], both, 0).await;
    scene.shell("rm /etc/one /etc/two; mkdir -p /etc/one/sub");
    scene.attach("/etc/one/sub/data");
    let cases = [
        // In a declared file's place.
        (both.to_owned(), "/etc/one"),
        // In the place of one that left the spec, or is wanted absent.
        ("file \"/etc/two\" content=\"2\\n\";".to_owned(), "/etc/one"),
        ("file \"/etc/one\" absent=true;".to_owned(), "/etc/one"),
        // In the place of a tree's own file.
        ("tree \"/etc\" source=\"etc\";".to_owned(), "/etc/one"),
    ];
    fs::create_dir(scene.folder.path().join("etc")).expect("makes");
    fs::write(scene.folder.path().join("etc/one"), "tree").expect("writes");
    for (body, path) in cases {
        let plan = scene.run(&["plan", "--detailed-exitcode"], &body, 4).await;
        let said = format!("`{path}` in `one` would go, and something that is not ours is mounted at");
        assert!(plan.stderr.contains(&said), "{body}: {}", plan.stderr);
        scene.run(&["apply", "--yes", "--allow-data-loss"], &body, 4).await;
        scene.is_untouched();
    }
    scene.client(&["config", "device", "remove", &scene.instance(), "by-hand"]);
    scene.run(&["apply", "--yes", "--allow-data-loss"], both, 0).await;
    scene.is_untouched();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_profile_attaches_to_a_new_sandbox_is_left_alone() {
    let Some(scene) = Scene::new("mounted-profile") else {
        return;
    };
    let profile = format!("mounted-{}", std::process::id());
    scene.client(&["profile", "copy", "default", &profile]);
    let (source, at) = (format!("source={}", scene.host().display()), "path=/srv/app/data");
    scene.client(&["profile", "device", "add", &profile, "shared", "disk", &source, at]);
    let image = format!("{TREE} snapshot \"ready\";");
    scene.run(&["apply", "--profile", &profile], &image, 0).await;
    scene.run(&["check"], &image, 0).await;
    scene.is_untouched();
    scene.run(&["destroy", "--allow-data-loss"], TREE, 0).await;
    scene.client(&["profile", "delete", &profile]);
    scene.is_untouched();
}

#[tokio::test(flavor = "multi_thread")]
async fn removing_stops_before_a_mount_whoever_asks_for_it() {
    let Some(scene) = Scene::new("mounted-removal") else {
        return;
    };
    checked(incus().await, async |f: &Fixture| {
        let name = f.running("mounted").await;
        let source = format!("source={}", scene.host().display());
        let device = [
            "config",
            "device",
            "add",
            name.as_str(),
            "by-hand",
            "disk",
            &source,
            "path=/a b/in/data",
        ];
        f.change(
            &name,
            &[
                folder("/a b", 0o755, f.user()),
                file("/a b/first", "1"),
                link("/to", "/a b"),
            ],
        )
        .await;
        client(&scene.daemon, &device);
        for removed in ["/a b", "/a b/in", "/a b/in/data", "/to/in", "/to/in/data"] {
            let error = fails(
                f.backend.change_files(&name, &[nothing(removed)]).await,
                ErrorKind::Failed,
            );
            assert!(
                error.to_string().contains("something is mounted at"),
                "{removed}: {error}"
            );
            fails(f.backend.delete_file(&name, &path(removed)).await, ErrorKind::Failed);
            fails(
                f.backend.change_files(&name, &[file(removed, "instead")]).await,
                ErrorKind::Failed,
            );
            assert_eq!(f.text(&name, "/a b/first").await, "1", "nothing of it is gone");
            scene.is_untouched();
        }
        // Beside it, and a link to it.
        f.change(&name, &[nothing("/a b/first"), nothing("/to")]).await;
        assert!(exists(&scene.host()));
        let live = f.observed(&name).await;
        assert_eq!(live.mounted, [path("/a b/in/data")].into());
    })
    .await;
    scene.is_untouched();
}

fn exists(path: &Path) -> bool {
    fs::read_dir(path).expect("reads").count() == 1
}
