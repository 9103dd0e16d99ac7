//! On this machine.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use super::scene::Scene;

const USER: &str = "user \"user\" uid=1000;";

fn sandbox(body: &str) -> String {
    format!("sandbox \"one\" {{ {USER} {body} }}")
}

#[test]
fn an_edit_on_each_side_of_a_mount_is_seen_on_the_other() {
    let Some(scene) = Scene::on_local("both") else { return };
    scene.file("src/main", "from the host");
    scene.apply(&sandbox("mount \"/work\" source=\".\";"));
    assert_eq!(scene.as_user("cat /work/src/main"), "from the host");
    assert_eq!(scene.as_user("stat -c %u:%g /work/src/main"), "1000:1000");
    assert_eq!(
        scene.as_user("echo inside > /work/src/new && stat -c %u /work/src/new"),
        "1000"
    );
    assert_eq!(
        (scene.read("src/new").as_str(), scene.owner("src/new")),
        ("inside\n", (1000, 1000))
    );
    scene.file("src/main", "edited outside");
    assert_eq!(scene.as_user("cat /work/src/main"), "edited outside");
    scene.inside("echo x > /work/src/of-root");
    assert_eq!(scene.owner("src/of-root"), (0, 0));
}

#[test]
fn the_spec_is_read_only_inside_and_its_includes_too() {
    let Some(scene) = Scene::on_local("guard") else { return };
    scene.file("parts/deep/more.kdl", "variable \"x\" default=\"y\"\n");
    scene.file("parts/free", "free");
    let spec = format!(
        "include \"parts/deep/more.kdl\"\n{}",
        sandbox("mount \"/work\" source=\".\";")
    );
    scene.apply(&spec);
    let text = scene.read("sbx.kdl");
    for file in ["/work/sbx.kdl", "/work/parts/deep/more.kdl"] {
        for script in [
            "echo bad > FILE",
            "rm -f FILE",
            "mv FILE /work/elsewhere",
            "umount FILE; mount -o remount,bind,rw FILE; echo bad > FILE",
        ] {
            let said = scene.inside(&script.replace("FILE", file));
            assert!(
                said.contains("Read-only") || said.contains("busy"),
                "{script} {file}: {said}"
            );
        }
    }
    for folder in ["/work/parts", "/work/parts/deep"] {
        let said = scene.inside(&format!("mv {folder} /work/other"));
        assert!(said.contains("busy") || said.contains("cross"), "{said}");
    }
    assert_eq!(scene.read("sbx.kdl"), text);
    assert_eq!(scene.read("parts/deep/more.kdl"), "variable \"x\" default=\"y\"\n");
    assert_eq!(
        scene.as_user("echo more > /work/parts/free && cat /work/parts/free"),
        "more"
    );
}

#[test]
fn what_is_mounted_to_read_stays_so_for_root() {
    let Some(scene) = Scene::on_local("readonly") else {
        return;
    };
    scene.file("src/main", "kept");
    scene.file("note", "kept");
    scene.apply(&sandbox(
        "mount \"/src\" source=\"src\" readonly=true; mount \"/etc/note\" source=\"note\" readonly=true;",
    ));
    let said = scene.inside("mount -o remount,bind,rw /src; umount /src; echo bad > /src/main; echo bad > /etc/note");
    assert_eq!(said.matches("Read-only").count(), 2, "{said}");
    assert_eq!(
        (scene.read("src/main").as_str(), scene.read("note").as_str()),
        ("kept", "kept")
    );
}

#[test]
fn a_volume_keeps_its_data_when_its_sandbox_is_made_anew() {
    let Some(scene) = Scene::on_local("volume") else { return };
    let body = "volume \"data\" path=\"/data\";";
    scene.apply(&sandbox(body));
    assert_eq!(
        scene.as_user("echo years > /data/work && stat -c %u:%a /data"),
        "1000:755"
    );
    let base = "sandbox \"base\" { state \"stopped\"; snapshot \"ready\"; }";
    let spec = format!("{base}\nsandbox \"one\" {{ {USER} clone-from \"base\" snapshot=\"ready\"; {body} }}");
    scene.apply(&spec);
    assert_eq!(scene.as_user("cat /data/work"), "years");
    let shown = scene.says(0, &["show"]);
    assert!(shown.contains("data at /data"), "{shown}");
    let without = spec.replace(body, "");
    scene.write(&without);
    scene.says(0, &["apply", "--yes"]);
    assert_eq!(scene.as_user("cat /data/work"), "years", "it stays without --prune");
    let plan = scene.says(0, &["plan", "--prune"]);
    assert!(
        plan.contains("delete volume data") && plan.contains("data loss"),
        "{plan}"
    );
    scene.says(0, &["apply", "--yes", "--prune"]);
    assert!(scene.as_user("cat /data/work").contains("No such file"));
    assert_eq!(volumes(&scene), 0);
    scene.apply(&spec);
    assert_eq!(volumes(&scene), 1);
    scene.says(0, &["destroy", "--allow-data-loss", "--yes"]);
    assert_eq!(volumes(&scene), 0);
}

fn volumes(scene: &Scene) -> usize {
    fs::read_dir(scene.repo().join("../state/volumes")).map_or(0, Iterator::count)
}

#[test]
fn what_hands_take_away_is_drift_and_repaired() {
    let Some(scene) = Scene::on_local("hands") else { return };
    scene.file("src/main", "here");
    let body = "mount \"/src\" source=\"src\"; volume \"data\" path=\"/data\";";
    scene.apply(&sandbox(body));
    let record = scene.record();
    // What is mounted cannot be unmounted, from outside either: hands can only edit what is to be.
    for (was, is, what) in [
        ("\"readonly\":false", "\"readonly\":true", "mount /src"),
        ("\"data\":\"/data\"", "\"data\":\"/more\"", "volume data"),
    ] {
        let text = fs::read_to_string(&record).expect("reads").replace(": ", ":");
        assert!(text.contains(was), "{text}");
        fs::write(&record, text.replace(was, is)).expect("writes");
        let check = scene.says(3, &["check"]);
        assert!(
            check.contains(what) && check.contains("drift") && check.contains("restart"),
            "{check}"
        );
        scene.says(0, &["apply", "--yes"]);
        assert!(scene.says(0, &["check"]).contains("No changes"));
        assert_eq!(scene.inside("cat /src/main"), "here");
    }
}

#[test]
fn a_link_in_a_sources_place_is_refused_when_it_is_applied_and_at_a_start() {
    let Some(scene) = Scene::on_local("swap") else { return };
    scene.file("src/main", "here");
    fs::write(scene.outside().join("main"), "nobody's business").expect("writes");
    scene.apply(&sandbox("mount \"/src\" source=\"src\"; state \"stopped\";"));
    fs::rename(scene.repo().join("src"), scene.repo().join("was")).expect("renames");
    symlink(scene.outside(), scene.repo().join("src")).expect("links");
    let said = scene.says(1, &["apply", "--yes"]);
    assert!(said.contains("leads outside"), "{said}");
    // The record still has it, as a start by other means would find it.
    scene.write(&sandbox(
        "mount \"/src\" source=\"was\" readonly=true; ignore \"mount:/src\";",
    ));
    let said = scene.says(1, &["apply", "--yes"]);
    assert!(said.contains("it has become a link"), "{said}");
}

#[test]
fn a_source_that_was_replaced_is_drift_until_it_is_mounted_anew() {
    let Some(scene) = Scene::on_local("replaced") else {
        return;
    };
    scene.file("src/main", "here");
    scene.file("note", "old");
    let body = "mount \"/src\" source=\"src\"; mount \"/etc/note\" source=\"note\";";
    scene.write(&sandbox(body));
    let plan = scene.says(0, &["plan"]);
    assert!(
        plan.contains("mount /etc/note: a file that is saved by a renaming"),
        "{plan}"
    );
    scene.apply(&sandbox(body));
    scene.file(".note.new", "new");
    fs::rename(scene.repo().join(".note.new"), scene.repo().join("note")).expect("renames");
    fs::rename(scene.repo().join("src"), scene.repo().join("was")).expect("renames");
    scene.file("src/main", "there");
    assert_eq!(scene.inside("cat /etc/note /src/main"), "oldhere");
    let check = scene.says(3, &["check"]);
    assert!(
        check.contains("~ mount /etc/note") && check.contains("~ mount /src"),
        "{check}"
    );
    let check = scene.says(3, &["check", "--json"]);
    assert_eq!(check.matches("which has been replaced since").count(), 2, "{check}");
    scene.says(0, &["apply", "--yes"]);
    assert_eq!(scene.inside("cat /etc/note /src/main"), "newthere");
    assert!(scene.says(0, &["check"]).contains("No changes"));
}

#[test]
fn what_another_sandbox_can_change_is_told_at_its_line() {
    let Some(scene) = Scene::on_local("fed") else { return };
    scene.file("setup/deps.sh", "#!/bin/sh\n");
    scene.file("conf/a", "a");
    let other = |readonly: &str| {
        format!(
            "{}\nsandbox \"two\" {{\n run \"deps\" script=\"setup/deps.sh\";\n file \"/etc/a\" source=\"conf/a\";\n}}",
            sandbox(&format!("mount \"/work\" source=\"setup\" {readonly};"))
        )
    };
    scene.write(&other(""));
    let plan = scene.says(0, &["plan"]);
    let told = "two: `one` can change what runs in the set-up step deps (sbx.kdl:6)";
    assert!(plan.contains(told) && !plan.contains("put at /etc/a"), "{plan}");
    scene.write(&other("readonly=true"));
    assert!(!scene.says(0, &["plan"]).contains("can change what"));
}

#[test]
fn mounts_are_exported_as_a_spec_says_them() {
    let Some(scene) = Scene::on_local("export") else { return };
    scene.file("src/main", "here");
    scene.file("conf/a", "a");
    scene.apply(&sandbox(
        "mount \"/src\" source=\"src\" readonly=true; mount \"/etc/conf\" source=\"conf\";",
    ));
    let export = ["export", "--backend", "local", "--environment", &scene.environment];
    let output = scene.run(&export);
    let spec = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && !spec.contains("ignore"), "{spec}");
    assert!(spec.contains("mount \"/src\" source=\"src\" readonly=true"), "{spec}");
    fs::write(scene.repo().join("exported.kdl"), &spec).expect("writes");
    scene.says(0, &["plan", "--detailed-exitcode", "exported.kdl"]);
    // What lies elsewhere is told.
    let root = scene.outside();
    let said = scene.says(0, &[&export[..], &["--root", &root.to_string_lossy()]].concat());
    assert!(
        !said.contains("mount \"") && said.contains("is mounted at /src"),
        "{said}"
    );
}

#[test]
fn a_link_where_something_is_to_be_mounted_is_told_with_what_to_do() {
    let Some(scene) = Scene::on_local("target") else { return };
    scene.file("src/main", "here");
    scene.apply(&sandbox(""));
    scene.inside("ln -s /tmp /opt");
    scene.write(&sandbox("mount \"/opt\" source=\"src\";"));
    let said = scene.says(1, &["apply", "--yes"]);
    assert!(
        said.contains("cannot mount /opt: a link stands there; mount it where that leads"),
        "{said}"
    );
    scene.apply(&sandbox("mount \"/tmp\" source=\"src\";"));
    assert_eq!(scene.inside("cat /opt/main"), "here");
}

#[test]
fn nothing_that_is_mounted_below_a_source_comes_along() {
    let Some(scene) = Scene::on_local("nested") else { return };
    scene.file("src/below/main", "covered");
    let below = scene.repo().join("src/below");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "none"]).arg(&below).status();
    if !mounted.is_ok_and(|status| status.success()) {
        return crate::support::daemon::skipped("a mount below a source: nothing can be mounted here");
    }
    fs::write(below.join("secret"), "nobody's business").expect("writes");
    scene.write(&sandbox("mount \"/src\" source=\"src\";"));
    let applied = scene.run(&["apply", "--yes"]);
    let said = scene.inside("ls /src/below");
    let _ = Command::new("umount").arg(&below).status();
    assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    assert_eq!(said, "main");
}

#[test]
fn what_the_tool_works_with_is_never_mounted() {
    let Some(scene) = Scene::on_local("own") else { return };
    scene.apply(&sandbox(""));
    what_it_works_with_is_refused(
        &scene,
        &[
            ("..", "/state"),
            ("../state", "/state"),
            ("../state/sandboxes", "/state"),
        ],
    );
}

/// Refuses mounts of these sources, whose root is the folder of the scene, for what they would show.
pub(super) fn what_it_works_with_is_refused(scene: &Scene, sources: &[(&str, &str)]) {
    let root = scene.repo().join("..").display().to_string();
    for (source, what) in sources {
        for readonly in ["", "readonly=true"] {
            scene.write(&sandbox(&format!("mount \"/x\" source=\"{source}\" {readonly};")));
            let said = scene.says(1, &["apply", "--yes", "--root", &root]);
            assert!(
                said.contains("plan::own-path") && said.contains(what) && said.contains("sbx.kdl:4"),
                "{source}: {said}"
            );
        }
    }
}
