//! A base that changes under a chain of clones, with real sandboxes.

use std::process::{Command, Stdio};

use sbx_apply::backend::Stop;
use sbx_apply::model::{Content, GuestPath, InstanceName, Mode};

use serde_json::Value;

use crate::support::place::{Place, on_both};
use crate::support::program::Run;

on_both! {
    a_chain_of_clones_is_made_anew_in_one_apply,
    a_snapshot_of_that_name_that_is_not_ours_is_refused,
    an_image_that_is_not_there_costs_nothing,
    what_a_kill_left_between_delete_and_create_is_made_good,
}

/// An environment of one test.
struct Story {
    place: Place,
    environment: String,
    folder: tempfile::TempDir,
}

impl Story {
    fn begin(name: &str, place: Place) -> Self {
        Self {
            place,
            environment: format!("{name}-{}", std::process::id()),
            folder: tempfile::tempdir().expect("a folder"),
        }
    }

    /// Runs a command on a chain: `base`, `middle` of its snapshot, `leaf` of middle's, and `kept`, which stays.
    fn run(&self, command: &str, flags: &[&str], text: &str, code: u8) -> Run {
        let (backend, image) = (self.place.name(), self.place.image());
        let spec = format!(
            r#"environment "{}"
            backend "{backend}"
            sandbox "base" {{
                image "{image}"
                file "/etc/text" content="{text}"
                run "copy" command="cat /etc/text > /root/copy" on-change="/etc/text"
                state "stopped"
                snapshot "ready"
            }}
            sandbox "middle" {{
                clone-from "base" snapshot="ready" on-stale="replace"
                file "/etc/middle" content="middle"
                state "stopped"
                snapshot "done"
            }}
            sandbox "leaf" {{ clone-from "middle" snapshot="done" on-stale="replace"; }}
            sandbox "kept" {{ clone-from "middle" snapshot="done"; state "stopped"; }}
            "#,
            self.environment
        );
        let path = self.folder.path().join("sbx.kdl");
        std::fs::write(&path, spec).expect("writes");
        let spec = path.display().to_string();
        let words = [&[command, &spec], flags].concat();
        let run = self.place.run(&words);
        assert_eq!(run.code, code, "{words:?}\n{}\n{}", run.stdout, run.stderr);
        run
    }

    fn instance(&self, sandbox: &str) -> InstanceName {
        InstanceName::observed(format!("{}-{sandbox}", self.environment))
    }

    /// What the set-up step of the base has left in each sandbox, and its file.
    async fn texts(&self) -> Vec<(String, String)> {
        let backend = self.place.open().await;
        let mut texts = Vec::new();
        for sandbox in ["base", "middle", "leaf", "kept"] {
            let read = async |path: &str| {
                let path = GuestPath::new(path).expect("a path");
                let (bytes, _) = backend
                    .read(&self.instance(sandbox), &path, 1 << 20)
                    .await
                    .expect("reads");
                String::from_utf8(bytes).expect("text")
            };
            texts.push((read("/etc/text").await, read("/root/copy").await));
        }
        backend.close().await.expect("closes");
        texts
    }

    /// Has a snapshot of the same name there that the program has not taken.
    fn replaces_the_snapshot(&self) {
        let base = self.instance("base");
        match &self.place {
            Place::Incus(daemon) => {
                for verb in ["delete", "create"] {
                    let output = Command::new("incus")
                        .args(["snapshot", verb, base.as_str(), "ready"])
                        .env("INCUS_SOCKET", &daemon.socket)
                        .stdin(Stdio::null())
                        .output()
                        .expect("the incus client is installed with the daemon");
                    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
                }
            }
            Place::Local(folder) => {
                let record = folder.state().join("sandboxes").join(base.as_str()).join("record.json");
                let mut known: Value = serde_json::from_slice(&std::fs::read(&record).expect("reads")).expect("JSON");
                known["snapshots"][0]["labels"] = Value::Object(serde_json::Map::new());
                std::fs::write(record, known.to_string()).expect("writes");
            }
        }
    }

    /// Does something behind the program's back.
    async fn by_hand(&self, hand: Hand<'_>) {
        let backend = self.place.open().await;
        let base = self.instance("base");
        match hand {
            Hand::Writes(text) => {
                let path = GuestPath::new("/etc/text").expect("a path");
                let content = Content::inline(text.as_bytes());
                backend.write(&base, &path, content, Mode::FILE, None).await
            }
            Hand::DeletesTheSnapshot => backend.delete_snapshot(&base, "ready").await,
            Hand::DeletesTheLeaf => {
                let leaf = self.instance("leaf");
                backend.stop(&leaf, Stop::Force).await.expect("stops");
                backend.delete(&leaf).await
            }
        }
        .expect("does it");
        backend.close().await.expect("closes");
    }
}

enum Hand<'a> {
    Writes(&'a str),
    DeletesTheSnapshot,
    DeletesTheLeaf,
}

impl Drop for Story {
    fn drop(&mut self) {
        // Also after a failed assertion: a daemon is shared, and what runs goes on.
        let environment = ["--environment", &self.environment, "--backend", self.place.name()];
        self.place
            .run(&[&["destroy"], &environment[..], &["--allow-data-loss"]].concat());
    }
}

fn same(text: &str) -> (String, String) {
    (text.to_owned(), text.to_owned())
}

async fn a_chain_of_clones_is_made_anew_in_one_apply(place: Place) {
    let story = Story::begin("chain", place);
    story.run("apply", &[], "one", 0);
    assert_eq!(story.texts().await, vec![same("one"); 4]);
    story.run("check", &[], "one", 0);

    // What is kept of a snapshot tells its recipe, so that nothing else has to be kept.
    story.by_hand(Hand::Writes("by hand")).await;
    let check = story.run("check", &[], "one", 3);
    assert!(
        !check.stdout.contains("stale"),
        "drift makes nothing stale: {}",
        check.stdout
    );

    // The base has drifted and changes: its snapshot is taken of what is declared.
    let plan = story.run("plan", &["--detailed-exitcode"], "two", 3);
    for text in [
        "+ snapshot ready  (stale: file /etc/text, run copy) [data loss]",
        "-/+ middle  replace  (stale: its source has other files and other set-up steps) [data loss]",
        "-/+ leaf  replace  (stale: its source has a changed source of its own) [data loss]",
        "· kept  none  (stale: its source has a changed source of its own)",
    ] {
        assert!(plan.stdout.contains(text), "{text}: {}", plan.stdout);
    }
    story.run("apply", &[], "two", 4);
    story.run("apply", &["--allow-data-loss"], "two", 0);
    assert_eq!(
        story.texts().await,
        [same("two"), same("two"), same("two"), same("one")]
    );
    let check = story.run("check", &[], "two", 0);
    assert!(check.stdout.contains("1 stale clone stays"), "{}", check.stdout);
    let show = story.run("show", &[], "two", 0);
    let stale: Vec<&str> = show.stdout.lines().filter(|line| line.contains("  source  ")).collect();
    assert!(stale.len() == 1 && stale[0].starts_with("kept "), "{}", show.stdout);
}

async fn what_a_kill_left_between_delete_and_create_is_made_good(place: Place) {
    let story = Story::begin("killed", place);
    story.run("apply", &[], "one", 0);
    // A snapshot that is gone makes no clone stale.
    story.by_hand(Hand::DeletesTheSnapshot).await;
    let plan = story.run("plan", &[], "one", 0);
    assert!(plan.stdout.contains("+ snapshot ready  (it is gone"), "{}", plan.stdout);
    assert!(!plan.stdout.contains("stale"), "{}", plan.stdout);
    // The stale snapshot and a stale clone went, and nothing came after them.
    story.by_hand(Hand::DeletesTheLeaf).await;
    story.run("apply", &["--allow-data-loss"], "two", 0);
    assert_eq!(
        story.texts().await,
        [same("two"), same("two"), same("two"), same("one")]
    );
    story.run("check", &[], "two", 0);
}

async fn a_snapshot_of_that_name_that_is_not_ours_is_refused(place: Place) {
    let story = Story::begin("foreign", place);
    story.run("apply", &[], "one", 0);
    story.replaces_the_snapshot();
    let plan = story.run("plan", &[], "two", 1);
    assert!(plan.stderr.contains("did not take"), "{}", plan.stderr);
}

async fn an_image_that_is_not_there_costs_nothing(place: Place) {
    let story = Story::begin("typo", place);
    let spec = |image: &str| {
        let path = story.folder.path().join("one.kdl");
        let text = format!(
            "environment \"{}\"\nsandbox \"one\" {{ image \"{image}\"; state \"stopped\"; }}",
            story.environment
        );
        std::fs::write(&path, text).expect("writes");
        path.display().to_string()
    };
    let apply = |image: &str| {
        let backend = ["--backend", story.place.name()];
        story
            .place
            .run(&[&["apply", &spec(image)], &backend[..], &["--allow-data-loss"]].concat())
    };
    assert_eq!(apply(story.place.image()).code, 0);
    let refused = apply("local:bosybux");
    assert_eq!(refused.code, 1, "{}", refused.stderr);
    assert!(refused.stderr.contains("plan::image-missing"), "{}", refused.stderr);
    let backend = story.place.open().await;
    assert!(backend.get(&story.instance("one")).await.is_ok(), "it is spared");
}
