//! What lies in a mount: another mount, a volume.

use std::fs;
use std::os::unix::fs::symlink;

use super::scene::Scene;

fn sandbox(body: &str) -> String {
    format!("sandbox \"one\" {{ user \"user\" uid=1000; {body} }}")
}

/// A volume and a folder of the repository, in a mount of another one.
fn lie_over_the_mount(scene: &Scene) {
    scene.file("src/main", "here");
    scene.file("lib/one", "inner");
    let outer = "mount \"/work\" source=\"src\";";
    scene.apply(&sandbox(outer));
    let inner = "mount \"/work/lib\" source=\"lib\"; volume \"data\" path=\"/work/out/data\";";
    scene.apply(&sandbox(&format!("{outer} {inner}")));
    assert_eq!(scene.as_user("cat /work/main /work/lib/one"), "hereinner");
    assert_eq!(
        scene.as_user("echo kept > /work/out/data/x && stat -c %u:%g /work/out/data /work/out/data/x"),
        "1000:1000\n1000:1000"
    );
    // What they lie over is made, of whoever the folder belongs to, and nothing comes to lie in it.
    for folder in ["src/lib", "src/out", "src/out/data"] {
        assert_eq!(scene.owner(folder), (1000, 1000), "{folder}");
    }
    assert_eq!(
        fs::read_dir(scene.repo().join("src/out/data"))
            .expect("is there")
            .count(),
        0
    );
    scene.inside("echo inner > /work/lib/two");
    assert_eq!(scene.read("lib/two"), "inner\n");
    // A volume that was elsewhere keeps its owners where it comes to lie in a mount.
    scene.apply(&sandbox(&inner.replace("/work/", "/")));
    assert_eq!(
        scene.as_user("echo more > /out/data/y && stat -c %u /out/data/x"),
        "1000"
    );
    scene.apply(&sandbox(&format!("{outer} {inner}")));
    assert_eq!(scene.as_user("cat /work/out/data/x /work/out/data/y"), "kept\nmore");
    assert_eq!(scene.read("src/main"), "here");
}

#[test]
fn they_lie_over_a_mount_on_this_machine() {
    if let Some(scene) = Scene::on_local("inner") {
        lie_over_the_mount(&scene);
    }
}

#[test]
fn they_lie_over_a_mount_on_incus() {
    if let Some(scene) = Scene::on_incus("inner") {
        lie_over_the_mount(&scene);
    }
}

#[test]
fn what_could_not_be_put_there_is_told_at_its_line() {
    let Some(scene) = Scene::on_local("no-place") else {
        return;
    };
    scene.file("src/main", "here");
    scene.file("lib/one", "inner");
    symlink("main", scene.repo().join("src/link")).expect("links");
    for (outer, inner, why) in [
        (
            "readonly=true",
            "mount \"/work/lib\" source=\"lib\";",
            "there is no lib",
        ),
        (
            "readonly=true",
            "volume \"data\" path=\"/work/a/b\";",
            "there is no a/b",
        ),
        ("", "mount \"/work/one\" source=\"lib/one\";", "there is no one"),
        ("", "volume \"data\" path=\"/work/main\";", "a file stands there"),
        ("", "volume \"data\" path=\"/work/main/x\";", "a file stands there"),
        ("", "volume \"data\" path=\"/work/link\";", "a link stands there"),
    ] {
        scene.write(&sandbox(&format!("mount \"/work\" source=\"src\" {outer};\n{inner}")));
        let said = scene.says(1, &["validate"]);
        assert!(
            said.contains(why) && said.contains("sbx.kdl:5") && said.contains("help"),
            "{inner}: {said}"
        );
    }
}
