//! What this machine cannot do is said when planning, at the line of the spec that needs it.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::support::daemon::skipped;

fn plan(folder: &Path, spec: &str, before: &str) -> Output {
    fs::write(folder.join("sbx.kdl"), spec).expect("writes");
    let script = format!("{before} exec {} plan sbx.kdl", env!("CARGO_BIN_EXE_sbx-apply"));
    let mut command = match before.is_empty() {
        true => Command::new("/bin/sh"),
        false => {
            let mut command = Command::new("unshare");
            command.args(["--user", "--map-root-user", "/bin/sh"]);
            command
        }
    };
    command.args(["-c", &script]).current_dir(folder).env_clear();
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.env("SBX_LOCAL_STATE", folder.join("state"));
    command.output().expect("runs")
}

fn refused(output: &Output, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_ne!(output.status.code(), Some(0), "{said}");
    for word in words {
        assert!(said.contains(word), "{word}: {said}");
    }
}

#[test]
fn an_image_that_is_not_there_is_refused_at_its_line() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir(folder.path().join("empty")).expect("makes");
    for (image, why) in [
        ("root.tar", "there is no image `root.tar`"),
        ("/usr", "lies outside the root folder"),
        ("empty", "holds no root file system"),
    ] {
        let spec = format!("environment \"e\"\nsandbox \"a\" {{\n    image \"{image}\"\n}}\n");
        refused(&plan(folder.path(), &spec, ""), &[why, "sbx.kdl:3:"]);
    }
    assert!(!folder.path().join("state").exists(), "planning makes nothing");
}

#[test]
fn a_state_folder_that_can_hold_no_layers_is_found_out() {
    let overlay = "mkdir l u w m && mount -t overlay o -o lowerdir=l,upperdir=u,workdir=w,userxattr m";
    let folder = tempfile::tempdir().expect("a folder");
    let tried = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "/bin/sh", "-c", overlay])
        .current_dir(folder.path())
        .status();
    if !tried.is_ok_and(|status| status.success()) {
        skipped("a state folder on an overlay: nobody can mount one here");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let spec = "environment \"e\"\nsandbox \"a\" {\n    image \"host\"\n}\n";
    // After the first word of what it is put before, `exec`.
    let before = format!("unshare --mount sh -c '{overlay} && shift && SBX_LOCAL_STATE=$PWD/m/state \"$@\"' sh");
    let output = plan(folder.path(), spec, &before);
    refused(&output, &["it lies on an overlay", "SBX_LOCAL_STATE", "sbx.kdl:3:"]);
}

#[test]
fn a_machine_without_user_namespaces_is_found_out() {
    let works = Command::new("unshare")
        .args(["--user", "--map-root-user", "true"])
        .status();
    if !works.is_ok_and(|status| status.success()) {
        skipped("a machine that forbids user namespaces: this one does, or has no program unshare");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let spec = "environment \"e\"\nsandbox \"a\" {\n    image \"host\"\n}\n";
    // In a namespace of our own, that is for us to say.
    let forbid = "echo 0 > /proc/sys/user/max_user_namespaces &&";
    let output = plan(folder.path(), spec, forbid);
    refused(
        &output,
        &[
            "this machine makes no sandboxes",
            "user.max_user_namespaces is 0",
            "sbx.kdl:3:",
        ],
    );
    let output = plan(folder.path(), spec, "true &&");
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
