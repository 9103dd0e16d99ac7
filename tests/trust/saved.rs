//! Kept plans, with real sandboxes: what was looked at is done, or nothing is.

use sbx_apply::model::{Content, GuestPath, InstanceName, Mode};

use crate::support::place::{Place, on_both};

on_both! {
    a_kept_plan_is_done_exactly_or_not_at_all,
}

async fn a_kept_plan_is_done_exactly_or_not_at_all(place: Place) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (spec, plan) = (path("sbx.kdl"), path("plan.json"));
    let environment = format!("saved-{}", std::process::id());
    let write = |text: &str| {
        let text = format!(
            "environment \"{environment}\"\nbackend \"{}\"\nsandbox \"one\" {{ image \"{}\"; file \"/etc/text\" \
             content=\"{text}\"; run \"copy\" command=\"cat /etc/text >> /root/copies\" on-change=\"/etc/text\"; }}\n",
            place.name(),
            place.image()
        );
        std::fs::write(&spec, text).expect("writes");
    };
    let ended = |arguments: &[&str], code: u8| {
        let run = place.run(arguments);
        assert_eq!(run.code, code, "{arguments:?}\n{}\n{}", run.stdout, run.stderr);
        run
    };
    let backend = place.open().await;
    let name = InstanceName::observed(format!("{environment}-one"));
    let at = |path: &str| GuestPath::new(path).expect("a path");
    let copies = async || {
        let (bytes, _) = backend.read(&name, &at("/root/copies"), 1 << 20).await.expect("reads");
        String::from_utf8(bytes).expect("text")
    };

    write("one,");
    ended(&["plan", &spec, "--out", &plan], 0);
    ended(&["apply", &plan], 0);
    ended(&["check", &spec], 0);
    assert_eq!(copies().await, "one,");
    ended(&["apply", &plan], 4);

    // The live system moves under it.
    write("two,");
    std::fs::remove_file(&plan).expect("removes");
    ended(&["plan", &spec, "--out", &plan], 0);
    let hand = Content::inline(&b"by hand"[..]);
    let written = backend.write(&name, &at("/etc/text"), hand, Mode::FILE, None).await;
    written.expect("writes");
    let refused = ended(&["apply", &plan], 4);
    assert!(
        refused.stderr.contains("/etc/text"),
        "what moved is named: {}",
        refused.stderr
    );
    assert_eq!(copies().await, "one,", "nothing was done");
    let (bytes, _) = backend.read(&name, &at("/etc/text"), 100).await.expect("reads");
    assert_eq!(bytes, b"by hand");

    // And as it was again, it holds.
    let back = Content::inline(&b"one,"[..]);
    let written = backend.write(&name, &at("/etc/text"), back, Mode::FILE, None).await;
    written.expect("writes");
    ended(&["apply", &plan], 0);
    ended(&["check", &spec], 0);
    assert_eq!(copies().await, "one,two,");
    backend.close().await.expect("closes");
    ended(&["destroy", &spec, "--allow-data-loss"], 0);
}
