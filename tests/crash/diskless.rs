//! An instance that the daemon knows, and no disk of it: what is left where a daemon is killed while it makes or deletes one.

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::{Value, json};

use super::private::Private;
use crate::incus::api;
use crate::support::daemon::Daemon;
use crate::support::place::Place;

/// `bad` never finishes its first apply; `bare` has nothing into which a plan would look, and is protected.
const SPEC: &str = r#"environment "lost"
backend "incus"
sandbox "a" { image "busybox"; state "stopped"; file "/etc/motd" content="hello\n"; }
sandbox "bad" { image "busybox"; state "stopped"; run "step" command="false"; }
sandbox "bare" { image "busybox"; state "stopped"; protect true; }
sandbox "link" { image "busybox"; state "stopped"; file "/etc/motd" content="hello\n"; }
sandbox "keep" { image "busybox"; file "/root/seed" content="a seed\n" when="create"; }
"#;

const PLAN: &str = "\
Environment lost on incus, 4 of 5 sandboxes:

-/+ a  replace  (its disk is gone) [data loss]
    image: no disk → busybox (drift)
  + file /etc/motd  0644 0:0

-/+ bad  replace  (its disk is gone) [restart]
    image: no disk → busybox (pending)
  ▶ run step

-/+ bare  replace  (its disk is gone) [data loss]
    image: no disk → busybox (drift)

-/+ link  replace  (its disk is gone) [data loss]
    image: no disk → busybox (drift)
  + file /etc/motd  0644 0:0
";

/// When each instance was made.
async fn made(daemon: &Daemon) -> BTreeMap<String, String> {
    let all = api::call(daemon, Method::GET, "/1.0/instances?recursion=1", None).await;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let all = all.as_array().expect("a list").iter();
    all.map(|instance| (text(&instance["name"]), text(&instance["created_at"])))
        .collect()
}

fn run(place: &Place, arguments: &[&str], code: u8) -> String {
    let run = place.run(arguments);
    assert_eq!(run.code, code, "{arguments:?}: {}{}", run.stdout, run.stderr);
    run.stdout + &run.stderr
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_disk_is_made_anew() {
    let Some(private) = Private::start() else { return };
    let (daemon, place) = (private.daemon(), private.place());
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (spec, kept) = (path("sbx.kdl"), path("kept.json"));
    std::fs::write(&spec, SPEC).expect("writes");

    run(&place, &["apply", &spec, "--yes"], 1);
    run(&place, &["plan", &spec, "--target", "a", "--out", &kept], 0);
    let stop = json!({"action": "stop", "force": true});
    api::call(&daemon, Method::PUT, "/1.0/instances/lost-bad/state", Some(stop)).await;
    // What a kill leaves when it comes between the two rows, without waiting for chance to pick that moment.
    let query = "DELETE FROM storage_volumes WHERE name IN ('lost-a', 'lost-bad', 'lost-bare')";
    let query = json!({"database": "global", "query": query});
    let answer = api::call(&daemon, Method::POST, "/internal/sql", Some(query)).await;
    assert_eq!(answer["Results"][0]["rows_affected"], 3, "{answer}");
    // The same, some moments later or earlier: the disk is there, and the way to it is not.
    private.remove("containers/lost-link");
    private.restart();
    // A helper that was there before goes on serving the files of the disk.
    private.without_helpers();

    let before = made(&daemon).await;
    let refusal = run(&place, &["apply", &spec, "--yes", "--allow-data-loss"], 4);
    assert!(refusal.contains("say `protect false`"), "{refusal}");
    let refusal = run(&place, &["apply", &kept, "--yes", "--allow-data-loss"], 4);
    assert!(refusal.contains("image"), "{refusal}");
    let free = SPEC.replace("protect true", "protect false");
    std::fs::write(&spec, &free).expect("writes");
    let plan = run(&place, &["plan", &spec], 0);
    assert!(plan.starts_with(PLAN), "{plan}");
    run(&place, &["check", &spec], 3);
    let plan = place.run(&["plan", &spec, "--json"]).stdout;
    let plan: Value = serde_json::from_str(&plan).expect("JSON");
    let change = json!({
        "sandbox": "a", "kind": "sandbox", "name": "", "action": "replace", "impact": "data-loss",
        "reason": "disk-gone",
        "fields": [{"path": "image", "before": "no disk", "after": "busybox", "origin": "drift"}],
    });
    assert_eq!(plan["changes"][0], change);

    // It may lie somewhere yet, for a person to rescue: nobody says that it was worth nothing.
    let refusal = run(&place, &["apply", &spec, "--yes"], 4);
    assert!(refusal.contains("--allow-data-loss"), "{refusal}");
    // Nor is it something to be accepted: nothing could be done with it.
    let ignored = ["apply", &spec, "--yes", "--ignore", "a/image"];
    run(&place, &ignored, 4);
    assert_eq!(made(&daemon).await, before, "nothing was done");

    let mended = free.replace("\"false\"", "\"true\"");
    std::fs::write(&spec, mended).expect("writes");
    run(&place, &["apply", &spec, "--yes", "--target", "bad"], 0);
    run(&place, &["apply", &spec, "--yes", "--allow-data-loss"], 0);
    run(&place, &["check", &spec], 0);
    let after = made(&daemon).await;
    let same: Vec<&str> = after
        .keys()
        .filter(|name| after[*name] == before[*name])
        .map(String::as_str)
        .collect();
    assert_eq!((same, after.len()), (vec!["lost-keep"], before.len()));
    run(&place, &["file", "read", &spec, "a", "/etc/motd"], 0);
    run(&place, &["destroy", &spec, "--allow-data-loss"], 0);
}
