//! A spec that a sandbox can write to is somebody's to say yes to, when it has changed.

use std::fs;
use std::os::unix::fs::{chown, symlink};

use super::scene::Scene;

/// A sandbox that can write to the whole repository; `env` is what an edit changes.
fn spec(env: &str) -> String {
    format!("sandbox \"one\" {{ user \"user\" uid=1000; env A=\"{env}\"; mount \"/work\" source=\".\"; }}")
}

const FLAG: &str = "--allow-changed-spec";

impl Scene {
    /// Saves the spec as editors and git do: a new file, in the place of the old one.
    fn save(&self, from: &str, to: &str) {
        let new = self.repo().join(".sbx.kdl.new");
        let text = fs::read_to_string(self.spec()).expect("reads").replace(from, to);
        fs::write(&new, text).expect("writes");
        chown(&new, Some(1000), Some(1000)).expect("is root");
        fs::rename(new, self.spec()).expect("renames");
    }

    /// Nothing is done without the flag, and with it the sandbox's variable comes to be `value`.
    #[track_caller]
    fn needs_a_yes(&self, why: &str, value: &str) {
        let before = self.inside("echo $A");
        for (arguments, words) in [
            (&["plan"][..], why),
            (&["plan", "--markdown"], "**Look at the spec before you apply it:**"),
            (&["plan", "--json"], "\"spec_changes\""),
        ] {
            let said = self.says(0, arguments);
            assert!(said.contains(words), "{arguments:?}: {said}");
        }
        let said = self.says(4, &["apply", "--yes", "--allow-data-loss"]);
        assert!(
            said.contains("plan::changed-spec") && said.contains(FLAG) && said.contains("`one`"),
            "{said}"
        );
        self.says(0, &["plan", "--out", "kept.json"]);
        let said = self.says(4, &["apply", "kept.json", "--yes"]);
        assert!(said.contains("plan::changed-spec"), "{said}");
        assert_eq!(self.inside("echo $A"), before, "nothing was done");
        self.says(0, &["apply", "kept.json", "--yes", FLAG]);
        fs::remove_file(self.repo().join("kept.json")).expect("was kept");
        assert_eq!(self.inside("echo $A"), value);
        let plan = self.says(0, &["plan", "--detailed-exitcode"]);
        assert!(!plan.contains(why), "{plan}");
    }
}

#[test]
fn on_this_machine_only_what_was_not_covered_all_the_time_needs_a_yes() {
    let Some(scene) = Scene::on_local("trust") else { return };
    scene.write(&spec("1"));
    let said = scene.says(0, &["apply", "--yes"]);
    assert!(!said.contains("sbx.kdl has"), "{said}");
    // Written where it is: nobody inside could have.
    scene.write(&spec("2"));
    assert_eq!(scene.says(0, &["plan"]).matches("Look at the spec").count(), 0);
    scene.says(0, &["apply", "--yes"]);
    assert_eq!(scene.inside("echo $A"), "2");
    // Saved by a renaming, the cover is off.
    scene.save("A=\"2\"", "A=\"3\"");
    scene.needs_a_yes("has changed since it was last applied, and `one` could", "3");
    assert!(scene.inside("echo x >> /work/sbx.kdl").contains("Read-only"));
    // What is saved as it was is what somebody has said yes to, until somebody inside writes to it.
    scene.save("A=\"3\"", "A=\"3\"");
    let plan = scene.says(0, &["plan"]);
    assert!(plan.contains("guarded") && !plan.contains("Look at the spec"), "{plan}");
    scene.inside("sed 's/A=\"3\"/A=\"4\"/' /work/sbx.kdl > /tmp/x && cat /tmp/x > /work/sbx.kdl");
    scene.needs_a_yes("has changed since it was last applied, and `one` could", "4");
    // Covered again, also against what was changed while it was applied.
    scene.write(&spec("5"));
    scene.says(0, &["apply", "--yes"]);
    assert_eq!(scene.inside("echo $A"), "5");
}

#[test]
fn in_a_terminal_whoever_applies_it_is_asked_whatever_was_said_before() {
    let Some(scene) = Scene::on_local("asked") else { return };
    scene.apply(&spec("1"));
    for (answer, code, value) in [("n", 4, "1"), ("y", 0, "2")] {
        scene.save("A=\"1\"", "A=\"2\"");
        let mut pty = scene.pty(&["apply", "--yes"]);
        pty.sees("Look at the spec before you apply it:");
        pty.sees("Apply this plan?");
        pty.types(answer);
        let (ended, said, _) = pty.ends();
        assert_eq!(ended, Some(code), "{said}");
        assert_eq!(scene.inside("echo $A"), value);
    }
    // Who was asked for data as well has seen it, too.
    scene.save("A=\"2\"", "A=\"3\"");
    let mut pty = scene.pty(&["apply", "--yes", FLAG]);
    pty.sees("Applied");
    assert_eq!(pty.ends().0, Some(0));
    assert_eq!(scene.inside("echo $A"), "3");
}

#[test]
fn a_comment_alone_is_asked_about_once_it_would_do_something() {
    let Some(scene) = Scene::on_local("comment") else {
        return;
    };
    scene.apply(&spec("1"));
    scene.save("environment", "// a remark\nenvironment");
    scene.says(0, &["apply", "--yes", FLAG]);
    scene.save("a remark", "another remark");
    // The cover is off, which is drift: something to do.
    let said = scene.says(3, &["check"]);
    assert!(
        said.contains("Look at the spec") && said.contains("git diff sbx.kdl"),
        "{said}"
    );
    scene.says(4, &["apply", "--yes"]);
    scene.says(0, &["apply", "--yes", FLAG]);
    // A spec from somewhere else is not what a sandbox could have written.
    let outside = scene.outside().join("sbx.kdl");
    fs::copy(scene.spec(), &outside).expect("copies");
    let root = scene.repo().join("..");
    let said = scene.says(
        0,
        &["plan", "--root", &root.to_string_lossy(), &outside.to_string_lossy()],
    );
    assert!(!said.contains("Look at the spec"), "{said}");
}

#[test]
fn a_link_to_the_spec_that_leads_elsewhere_needs_a_yes() {
    let Some(scene) = Scene::on_local("link") else { return };
    scene.write(&spec("1"));
    fs::rename(scene.spec(), scene.repo().join("real.kdl")).expect("renames");
    symlink("real.kdl", scene.spec()).expect("links");
    scene.says(0, &["apply", "--yes"]);
    assert!(!scene.says(0, &["plan"]).contains("Look at the spec"));
    let script = "cd /work; sed 's/A=\"1\"/A=\"2\"/' real.kdl > evil.kdl; rm sbx.kdl; ln -s evil.kdl sbx.kdl";
    scene.inside(script);
    scene.needs_a_yes("a link leads elsewhere, and `one` could", "2");
}

#[test]
fn an_include_and_another_environments_name_are_no_way_around() {
    let Some(scene) = Scene::on_local("include") else {
        return;
    };
    scene.file("parts/more.kdl", "variable \"x\" default=\"1\"\n");
    let include = |env: &str| format!("include \"parts/more.kdl\"\n{}", spec(env));
    scene.apply(&include("${x}"));
    let part = scene.repo().join("parts/more.kdl");
    fs::remove_file(&part).expect("removes");
    scene.file("parts/more.kdl", "variable \"x\" default=\"1\"\n");
    scene.inside("echo 'variable \"x\" default=\"2\"' > /work/parts/more.kdl");
    scene.needs_a_yes("parts/more.kdl has changed", "2");
    scene.save("environment \"", "environment \"x");
    let said = scene.says(4, &["apply", "--yes"]);
    let who = format!("`one` of `{}`", scene.environment);
    assert!(said.contains("sbx.kdl has changed") && said.contains(&who), "{said}");
    // A file that nobody has ever applied may be anybody's.
    fs::copy(scene.spec(), scene.repo().join("more.kdl")).expect("copies");
    let said = scene.says(4, &["apply", "--yes", "more.kdl"]);
    assert!(said.contains("was never applied from there"), "{said}");
}

#[test]
fn on_incus_whatever_has_changed_needs_a_yes() {
    let Some(scene) = Scene::on_incus("trust") else { return };
    scene.write(&spec("1"));
    scene.says(0, &["apply", "--yes"]);
    assert!(!scene.says(0, &["plan"]).contains("Look at the spec"));
    scene.inside("umount /work/sbx.kdl; sed 's/A=\"1\"/A=\"2\"/' /work/sbx.kdl > /tmp/x; cat /tmp/x > /work/sbx.kdl");
    scene.needs_a_yes("has changed since it was last applied, and `one` could", "2");
    // Nobody can tell who has written, where root inside can take the cover off.
    scene.write(&spec("3"));
    scene.needs_a_yes("has changed since it was last applied, and `one` could", "3");
    // What no sandbox can write to any more needs nobody's yes from then on.
    let readonly = |env: &str| spec(env).replace("source=\".\"", "source=\".\" readonly=true");
    scene.write(&readonly("3"));
    scene.says(0, &["apply", "--yes", FLAG]);
    scene.write(&readonly("4"));
    scene.says(0, &["apply", "--yes"]);
    assert_eq!(scene.inside("echo $A"), "4");
}

#[test]
fn what_a_sandbox_of_another_environment_may_have_written_needs_a_yes() {
    let Some(scene) = Scene::on_local("others") else { return };
    scene.apply("sandbox \"one\" { env A=\"1\"; }");
    // Its own spec lies elsewhere, so nothing of it is in what it has mounted.
    let other = scene.repo().join("../other.kdl");
    let name = format!("{}-b", scene.environment);
    let spec =
        format!("environment \"{name}\"\nsandbox \"evil\" {{ image \"repo/image\"; mount \"/x\" source=\"repo\"; }}\n");
    fs::write(&other, spec).expect("writes");
    let other = other.display().to_string();
    scene.says(0, &["apply", "--yes", &other]);
    let said = scene.says(0, &["plan"]);
    let who = format!("`evil` of `{name}` could have done that");
    assert!(said.contains(&who), "{said}");
    // What somebody has said yes to is not asked about again, until it changes.
    scene.write("sandbox \"one\" { env A=\"2\"; }");
    scene.says(0, &["apply", "--yes", FLAG]);
    let said = scene.says(0, &["plan", "--detailed-exitcode"]);
    assert!(!said.contains("Look at the spec"), "{said}");
    let script = "sed 's/A=\"2\"/A=\"3\"/' /x/sbx.kdl > /tmp/x; cat /tmp/x > /x/sbx.kdl";
    scene.says(0, &["exec", &other, "evil", "--", "/bin/sh", "-c", script]);
    let said = scene.says(4, &["apply", "--yes"]);
    assert!(said.contains("plan::changed-spec") && said.contains(&who), "{said}");
    scene.says(
        0,
        &[
            "destroy",
            "--environment",
            &name,
            "--backend",
            "local",
            "--yes",
            "--allow-data-loss",
        ],
    );
    scene.says(0, &["apply", "--yes"]);
}
