//! What a plan says, in whole: each folder here holds a spec that is applied first (`before.kdl`), sometimes
//! another one that is planned then (`after.kdl`), and all that the program says about it (`plan.txt`). What
//! hands do in between stands in this file.
//!
//! `SBX_BLESS=1` writes the texts anew; read the difference before you commit it.

use sbx_apply::backend::memory::{Machine, Memory};
use sbx_apply::model::{Mode, Owner, Status};

use crate::support::blessed;
use crate::support::program::{Run, program};

type Edit = fn(&Memory);

fn nothing(_: &Memory) {}

/// What hands do to one instance.
fn by_hand(memory: &Memory, name: &str, change: impl FnOnce(&mut Machine)) {
    memory
        .edit(name, |machine| {
            change(machine);
            Ok(())
        })
        .expect("there is such an instance");
}

fn path(name: &str, file: &str) -> Option<String> {
    let path = format!("tests/scenarios/{name}/{file}");
    std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(&path)
        .exists()
        .then_some(path)
}

/// Applies what was before, lets hands do their work, plans, and holds the text against the file's.
async fn scenario(name: &str, edit: Edit, flags: &[&str]) -> (Memory, Run) {
    let memory = Memory::new();
    let before = path(name, "before.kdl");
    if let Some(before) = &before {
        let run = program(&memory, &["apply", before, "--yes", "--quiet"]).await;
        assert_eq!((run.code, run.stdout.as_str()), (0, ""), "{}", run.stderr);
    }
    edit(&memory);
    let spec = path(name, "after.kdl").or(before).expect("a spec");
    let command = [&["plan", &spec, "--detailed-exitcode"], flags].concat();
    let journal = memory.journal();
    let run = program(&memory, &command).await;
    assert_eq!(memory.journal(), journal, "a plan writes nothing");
    let text = format!(
        "$ sbx-apply plan{}\n{}--- stderr\n{}--- exit code {}\n",
        flags.iter().map(|flag| format!(" {flag}")).collect::<String>(),
        run.stdout,
        run.stderr,
        run.code
    );
    blessed::check(&format!("tests/scenarios/{name}/plan.txt"), &text);
    // The same as a comment on a pull request, where a folder has one.
    if let Some(file) = path(name, "check.md") {
        let command = [&["check", &spec, "--markdown"], flags].concat();
        let comment = program(&memory, &command).await;
        assert_eq!(comment.code, run.code, "{}", comment.stderr);
        blessed::check(&file, &comment.stdout);
    }
    if let Some(file) = path(name, "check.txt") {
        let command = [&["check", &spec], flags].concat();
        let check = program(&memory, &command).await;
        assert_eq!((check.code, check.stderr), (run.code, run.stderr.clone()));
        blessed::check(&file, &check.stdout);
    }
    assert_eq!(memory.journal(), journal, "nor does a check");
    (memory, run)
}

/// The same, and then an apply after which nothing is left.
async fn settles(name: &str, edit: Edit, flags: &[&str], apply_flags: &[&str]) {
    let (memory, _) = scenario(name, edit, flags).await;
    let spec = path(name, "after.kdl")
        .or_else(|| path(name, "before.kdl"))
        .expect("a spec");
    let command = [&["apply", &spec, "--yes"], flags, apply_flags].concat();
    let run = program(&memory, &command).await;
    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
    let command = [&["plan", &spec, "--detailed-exitcode"], flags].concat();
    let run = program(&memory, &command).await;
    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
}

#[tokio::test]
async fn fresh() {
    settles("fresh", nothing, &[], &[]).await;
}

#[tokio::test]
async fn in_sync() {
    scenario("in-sync", nothing, &[]).await;
}

#[tokio::test]
async fn one_line() {
    settles("one-line", nothing, &[], &[]).await;
}

#[tokio::test]
async fn drift() {
    let edit: Edit = |memory| {
        by_hand(memory, "demo-base", |machine| {
            machine
                .write("/etc/motd", "hello\n\u{1b}]0;owned\u{7}intruder\n")
                .expect("writes");
            machine
                .attributes(
                    "/usr/local/bin/tool",
                    Mode::of_bits(0o600),
                    Owner { uid: 1000, gid: 1000 },
                )
                .expect("sets");
            machine.remove("/etc/gone").expect("removes");
            machine.write("/etc/blob", [0, 1, 2]).expect("writes");
            machine.cpu = Some("4".to_owned());
            machine.memory = None;
            machine.env.insert("RUST_LOG".to_owned(), "trace".to_owned());
            machine.status = Status::Stopped;
        });
    };
    settles("drift", edit, &[], &[]).await;
}

#[tokio::test]
async fn conflict() {
    let edit: Edit = |memory| {
        by_hand(memory, "demo-base", |machine| {
            machine.write("/etc/motd", "by hand\n").expect("writes");
            machine.cpu = Some("8".to_owned());
        });
    };
    settles("conflict", edit, &[], &[]).await;
}

#[tokio::test]
async fn left_spec() {
    settles("left-spec", nothing, &[], &[]).await;
}

#[tokio::test]
async fn replace_by_image() {
    settles("replace", nothing, &[], &["--allow-data-loss"]).await;
}

#[tokio::test]
async fn leftovers_are_shown() {
    scenario("leftovers", nothing, &[]).await;
}

#[tokio::test]
async fn leftovers_are_pruned() {
    settles("prune", nothing, &["--prune"], &[]).await;
}

#[tokio::test]
async fn a_foreign_name_is_refused() {
    let edit: Edit = |memory| memory.make_foreign("demo-base").expect("is free");
    let (memory, _) = scenario("foreign", edit, &[]).await;
    let spec = path("foreign", "after.kdl").expect("a spec");
    let run = program(&memory, &["apply", &spec, "--yes", "--allow-data-loss"]).await;
    assert_eq!(
        (run.code, memory.names()),
        (4, vec!["demo-base".to_owned()]),
        "{}",
        run.stderr
    );
}

#[tokio::test]
async fn a_target_takes_what_it_needs_along() {
    settles("target", nothing, &["--target", "task"], &[]).await;
}

#[tokio::test]
async fn a_protected_disk_is_not_replaced() {
    let (memory, _) = scenario("protect", nothing, &[]).await;
    let spec = path("protect", "after.kdl").expect("a spec");
    let _ = memory.take_journal();
    let run = program(&memory, &["apply", &spec, "--yes", "--allow-data-loss"]).await;
    assert_eq!(
        (run.code, memory.journal()),
        (4, Vec::<String>::new()),
        "{}",
        run.stderr
    );
}

#[tokio::test]
async fn an_unfinished_apply_goes_on() {
    let edit: Edit = |memory| {
        by_hand(memory, "demo-base", |machine| {
            machine.labels.0.remove("complete");
            machine.remove("/etc/motd").expect("removes");
        });
    };
    settles("unfinished", edit, &[], &[]).await;
}

#[tokio::test]
async fn what_is_ignored_is_accepted() {
    let edit: Edit = |memory| {
        by_hand(memory, "demo-base", |machine| {
            machine.write("/etc/hosts", "by the VPN\n").expect("writes");
            machine.write("/etc/resolv.conf", "by the VPN\n").expect("writes");
            machine.write("/etc/motd", "by hand\n").expect("writes");
        });
    };
    scenario("ignore", edit, &["--ignore", "base/file:/etc/motd"]).await;
}

#[tokio::test]
async fn fifty_clones_are_readable() {
    scenario("fifty", nothing, &[]).await;
}

#[tokio::test]
async fn a_tree_that_changes() {
    let edit: Edit = |memory| {
        by_hand(memory, "demo-base", |machine| {
            machine.remove("/srv/app/a.txt").expect("removes");
            for number in 0..20 {
                machine
                    .write(&format!("/srv/app/extra-{number:02}"), "x")
                    .expect("writes");
            }
            machine.remove("/etc/link").expect("removes");
            machine.symlink("/etc/link", "/etc/shadow", Owner::ROOT).expect("links");
        });
    };
    settles("tree", edit, &[], &[]).await;
}

#[tokio::test]
async fn what_the_backend_lacks_is_told_at_its_line() {
    scenario("lacking", nothing, &[]).await;
}

#[tokio::test]
async fn a_comment_holds_nothing_but_text() {
    let edit: Edit = |memory| {
        by_hand(memory, "demo-base", |machine| {
            let hostile = "```\n</details><img src=x onerror=y>\n@team #1 | `x`\n\u{1b}[2J\u{202e}\n`````\n";
            machine.write("/etc/motd", hostile).expect("writes");
            machine
                .env
                .insert("A".to_owned(), "`|</code>\\|@team **bold** [x](y)".to_owned());
            machine.write("/srv/app/a|b`c<i>", "x").expect("writes");
        });
    };
    scenario("hostile", edit, &[]).await;
    let comment = std::fs::read_to_string(path("hostile", "check.md").expect("is there")).expect("text");
    assert!(!comment.chars().any(|c| c.is_control() && c != '\n'));
    // Outside of fences, HTML is only ours.
    let (mut fence, mut outside) = (None, Vec::new());
    for line in comment.lines() {
        let run = line.chars().take_while(|c| *c == '`').count();
        match fence {
            None if run >= 3 => fence = Some(run),
            Some(open) if run >= open => fence = None,
            Some(_) => {}
            None => outside.push(line),
        }
    }
    let ours = [
        "<code>",
        "</code>",
        "<details>",
        "</details>",
        "<summary>",
        "</summary>",
    ];
    let rest = ours.iter().fold(outside.join("\n"), |text, tag| text.replace(tag, ""));
    assert!(!rest.contains('<'), "{rest}");
    // Every row has the same cells.
    let rows: Vec<&str> = outside.into_iter().filter(|line| line.starts_with('|')).collect();
    assert!(
        rows.len() > 3 && rows.iter().all(|row| row.matches('|').count() == 7),
        "{rows:#?}"
    );
}

#[tokio::test]
async fn a_chain_of_clones_is_made_anew_in_one_apply() {
    settles("stale-replace", nothing, &[], &["--allow-data-loss"]).await;
}

#[tokio::test]
async fn a_snapshot_that_others_were_cloned_from_needs_consent() {
    let (memory, _) = scenario("stale-keep", nothing, &[]).await;
    let spec = path("stale-keep", "after.kdl").expect("a spec");
    let _ = memory.take_journal();
    let run = program(&memory, &["apply", &spec, "--yes"]).await;
    assert_eq!(
        (run.code, memory.journal()),
        (4, Vec::<String>::new()),
        "{}",
        run.stderr
    );
    settles("stale-keep", nothing, &[], &["--allow-data-loss"]).await;
}

#[tokio::test]
async fn a_stale_clone_that_stays_is_shown_and_not_counted() {
    let memory = Memory::new();
    for (spec, code) in [("before.kdl", 0), ("after.kdl", 0)] {
        let spec = path("stale-keep", spec).expect("a spec");
        let run = program(&memory, &["apply", &spec, "--yes", "--allow-data-loss", "--quiet"]).await;
        assert_eq!(run.code, code, "{}", run.stderr);
    }
    let spec = path("stale-keep", "after.kdl").expect("a spec");
    let run = program(&memory, &["plan", &spec, "--detailed-exitcode"]).await;
    blessed::check("tests/scenarios/stale-kept/in-sync.txt", &run.stdout);
    assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{}", run.stdout);
    let run = program(&memory, &["check", &spec, "--markdown"]).await;
    blessed::check("tests/scenarios/stale-kept/check.md", &run.stdout);
    assert_eq!(run.code, 0, "{}", run.stdout);
    let run = program(&memory, &["plan", &spec, "--json"]).await;
    let plan: serde_json::Value = serde_json::from_str(&run.stdout).expect("JSON");
    assert_eq!(
        (&plan["in_sync"], &plan["summary"]["pending"]),
        (&true.into(), &0.into())
    );
    let schema = jsonschema::validator_for(&sbx_apply::view::json::plan_schema()).expect("a schema");
    assert!(schema.is_valid(&plan), "{plan}");
    for change in plan["changes"].as_array().expect("changes") {
        assert_eq!(
            (&change["kind"], &change["action"]),
            (&"sandbox".into(), &"none".into())
        );
        assert_eq!(
            (&change["reason"], &change["impact"]),
            (&"stale".into(), &"live".into())
        );
        assert_eq!(change["fields"][0]["path"], "source-recipe");
    }
    let spec = path("stale-kept", "after.kdl").expect("a spec");
    let run = program(&memory, &["plan", &spec, "--detailed-exitcode"]).await;
    blessed::check("tests/scenarios/stale-kept/more.txt", &run.stdout);
    assert_eq!(run.code, 2, "{}", run.stdout);
    let run = program(&memory, &["show", &spec]).await;
    blessed::check("tests/scenarios/stale-kept/show.txt", &run.stdout);
}

#[tokio::test]
async fn what_is_no_part_of_a_recipe_makes_nothing_stale() {
    settles("stale-not", nothing, &[], &[]).await;
}

#[tokio::test]
async fn a_stale_clone_that_is_protected_is_not_made_anew() {
    let (memory, _) = scenario("stale-protect", nothing, &[]).await;
    let spec = path("stale-protect", "after.kdl").expect("a spec");
    let _ = memory.take_journal();
    let run = program(&memory, &["apply", &spec, "--yes", "--allow-data-loss"]).await;
    assert_eq!(
        (run.code, memory.journal()),
        (4, Vec::<String>::new()),
        "{}",
        run.stderr
    );
}
