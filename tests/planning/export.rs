//! What is there, written as a spec.

use sbx_apply::backend::memory::{Machine, Memory};
use sbx_apply::model::{GuestPath, Labels, Mode, Owner, Status};

use super::{program_with, run};
use crate::support::program::{NOW, Run, program, program_as};

async fn export(memory: &Memory, words: &[&str]) -> String {
    let run = program(memory, &[&["export", "--backend", "local"], words].concat()).await;
    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
    run.stdout
}

/// Writes a spec and runs a command on it.
async fn on(memory: &Memory, command: &[&str], spec: &str, extension: &str) -> Run {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join(format!("sbx.{extension}"));
    std::fs::write(&path, spec).expect("writes");
    let path = path.to_str().expect("a path");
    let words: Vec<&str> = command
        .iter()
        .map(|word| if *word == "-" { path } else { word })
        .collect();
    program(memory, &words).await
}

async fn plans_empty(memory: &Memory, spec: &str, extension: &str) {
    let plan = on(memory, &["plan", "-", "--detailed-exitcode"], spec, extension).await;
    assert_eq!(plan.code, 0, "{spec}\n{}{}", plan.stdout, plan.stderr);
}

fn edit(memory: &Memory, name: &str, change: impl FnOnce(&mut Machine)) {
    let edited = memory.edit(name, |machine| {
        change(machine);
        Ok(())
    });
    edited.expect("is there");
}

#[tokio::test]
async fn what_an_environment_owns_plans_empty_at_once() {
    let memory = Memory::new();
    let spec = "sandbox \"base\" { image \"debian/12\"; cpu 2; memory \"1GiB\"; disk \"10GiB\"; state \"stopped\"; \
                user \"dev\" uid=1234; env A=\"$${b} c\"; config limits.processes=\"5\"; protect true; ttl \"24h\"; \
                file \"/etc/motd\" content=\"hi $${x}\\n\" mode=\"0600\" owner=7 group=8; \
                file \"/home/dev/x\" content=\"x\"; file \"/etc/none\" absent=true; \
                file \"/etc/seed\" content=\"seed\" when=\"create\"; tree \"/srv/app\" source=\"app\" delete=true; \
                run \"go\" command=\"true\"; snapshot \"ready\"; }\n\
                sandbox \"task\" count=2 { clone-from \"base\" snapshot=\"ready\"; depends-on \"base\"; }";
    run(&memory, "apply", spec, 0).await;
    let _ = memory.take_journal();
    for format in ["kdl", "yaml"] {
        let text = export(&memory, &["--environment", "demo", "--format", format]).await;
        plans_empty(&memory, &text, format).await;
    }
    let text = export(&memory, &["--environment", "demo"]).await;
    for said in [
        "image debian/12",
        "content=\"hi $${x}\\n\" mode=\"0600\" owner=7 group=8",
        "file \"/home/dev/x\" content=\"x\"\n",
        "file \"/etc/none\" absent=true",
        "A=\"$${b} c\"",
        "clone-from base snapshot=ready",
        "protect true",
        "//   - the set-up step go has run",
        "//   - the tree /srv/app has 3 entries",
        "//   - the file /etc/seed was written once",
        "ignore \"snapshot:ready.recipe\"",
    ] {
        let bare = text
            .replace("\"debian/12\"", "debian/12")
            .replace("\"base\"", "base")
            .replace("\"ready\"", "ready");
        assert!(text.contains(said) || bare.contains(said), "{said}\n{text}");
    }
    assert_eq!(memory.journal(), Vec::<String>::new(), "an export only reads");
    // One of them alone: what it was cloned from is not there, and it is not made anew for that.
    let one = export(&memory, &["demo-task-1"]).await;
    assert!(
        one.contains("it is a clone of base@ready, which is not in here"),
        "{one}"
    );
    plans_empty(&memory, &one, "kdl").await;
}

#[tokio::test]
async fn what_somebody_made_plans_empty_once_it_is_adopted() {
    for format in ["kdl", "yaml"] {
        let memory = Memory::new();
        memory.make_foreign("Web").expect("is free");
        memory.make_foreign("shop-db").expect("is free");
        edit(&memory, "Web", |machine| {
            machine.cpu = Some("2".to_owned());
            machine.memory = Some("50%".to_owned());
            machine.disk = Some("5GiB".to_owned());
            machine.env.insert("GREETING".to_owned(), "hello ${name}".to_owned());
            machine.config.insert("limits.processes".to_owned(), "500".to_owned());
            machine
                .config
                .insert("security.privileged".to_owned(), "true".to_owned());
        });
        edit(&memory, "shop-db", |machine| {
            machine.status = Status::Stopped;
            machine.mounted.insert(GuestPath::new("/mnt/theirs").expect("a path"));
        });
        let words = ["Web", "shop-db", "--environment", "shop", "--format", format];
        let text = export(&memory, &words).await;
        assert!(text.contains("sbx-apply adopt SPEC web Web"), "{text}");
        assert!(text.contains("the setting security.privileged is true"), "{text}");
        assert!(
            text.contains("what somebody has attached at /mnt/theirs is not in here"),
            "{text}"
        );
        for (sandbox, instance) in [("web", "Web"), ("db", "shop-db")] {
            let adopted = on(&memory, &["adopt", "-", sandbox, instance], &text, format).await;
            assert_eq!(adopted.code, 0, "{text}\n{}", adopted.stderr);
        }
        plans_empty(&memory, &text, format).await;
        let _ = memory.take_journal();
        let apply = on(&memory, &["apply", "-"], &text, format).await;
        assert_eq!(apply.code, 0, "{}{}", apply.stdout, apply.stderr);
        let changes = memory.take_journal();
        assert!(
            changes
                .iter()
                .all(|entry| entry.starts_with("configure") && entry.contains("label.")),
            "{changes:?}"
        );
        // Owned now, it exports as it is.
        let again = export(&memory, &["--environment", "shop", "--format", format]).await;
        plans_empty(&memory, &again, format).await;
    }
}

#[tokio::test]
async fn a_hostile_live_system_writes_no_spec() {
    for format in ["kdl", "yaml"] {
        let memory = Memory::new();
        memory.make_foreign("web").expect("is free");
        edit(&memory, "web", |machine| {
            let env = [
                ("A", "\"; }\nsandbox \"evil\" { image \"x\"; }\n//"),
                ("B", "\u{1b}[2J\u{202e}"),
                ("C", "# : { } ${HOME} $${x} \\ ' \" - | > & * ! % @ `"),
                ("D\nE", "x"),
                ("", "x"),
                ("F", "\u{2028}\u{feff}\u{85}"),
                ("G", "true"),
                ("H", ""),
            ];
            for (name, value) in env {
                machine.env.insert(name.to_owned(), value.to_owned());
            }
            machine.cpu = Some("0-1\n}".to_owned());
            machine.memory = Some("\u{1b}]0;x\u{7}".to_owned());
            machine.config.insert("user.x\"} {".to_owned(), "y".to_owned());
            machine.config.insert("user.y".to_owned(), "\n}\nfile: x".to_owned());
            machine
                .config
                .insert("raw.lxc".to_owned(), "lxc.hook.start = /x\nlxc.y".to_owned());
            machine.location = Some("member\r\n*/ \u{fffe}\u{ffff}".to_owned());
            machine.status = Status::Frozen;
            // Labels of somebody who is not us say nothing.
            machine.labels.0.insert(
                Labels::APPLIED.to_owned(),
                "{\"file\":{\"/etc/shadow\":{\"content\":\"x\"}}}".to_owned(),
            );
        });
        let text = export(&memory, &["web", "--environment", "demo", "--format", format]).await;
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
        assert!(!text.contains("shadow"), "{text}");
        let shown = on(&memory, &["show", "-"], &text, format).await;
        assert_eq!(shown.code, 0, "{text}\n{}", shown.stderr);
        assert_eq!(shown.stdout.lines().count(), 2, "one sandbox alone: {}", shown.stdout);
        let adopted = on(&memory, &["adopt", "-", "web", "web"], &text, format).await;
        assert_eq!(adopted.code, 0, "{text}\n{}", adopted.stderr);
        plans_empty(&memory, &text, format).await;
    }
}

#[tokio::test]
async fn a_hostile_record_reads_no_file_that_it_may_not() {
    let memory = Memory::new();
    let spec = "sandbox \"one\" { image \"debian/12\"; file \"/etc/a\" content=\"a\"; file \"/etc/b\" content=\"b\"; \
                file \"/etc/c\" content=\"c\"; file \"/etc/d\" content=\"d\"; file \"/etc/e\" content=\"e\"; }";
    run(&memory, "apply", spec, 0).await;
    edit(&memory, "demo-one", |machine| {
        machine.write("/etc/a", [0xff, 0xfe, 0x00]).expect("writes");
        machine.write("/etc/b", vec![b'x'; 100_000]).expect("writes");
        machine.remove("/etc/c").expect("removes");
        machine.symlink("/etc/c", "/etc/shadow", Owner::ROOT).expect("links");
        machine.fifo("/etc/d").expect("makes");
        machine
            .attributes("/etc/e", Mode::of_bits(0o4755), Owner::ROOT)
            .expect("sets");
        machine.labels.0.insert(Labels::TTL.to_owned(), "soon".to_owned());
    });
    let text = export(&memory, &["--environment", "demo"]).await;
    for said in [
        "/etc/a is no text",
        "/etc/b is not as",
        "at /etc/c is no file",
        "at /etc/d is no file",
        "/etc/e has mode 4755",
    ] {
        assert!(text.contains(said), "{said}\n{text}");
    }
    plans_empty(&memory, &text, "kdl").await;
    edit(&memory, "demo-one", |machine| {
        machine
            .labels
            .0
            .insert(Labels::APPLIED.to_owned(), "not JSON".to_owned());
    });
    let text = export(&memory, &["demo-one"]).await;
    plans_empty(&memory, &text, "kdl").await;
}

#[tokio::test]
async fn secrets_stay_where_they_are() {
    let memory = Memory::new();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("sbx.kdl");
    std::fs::write(
        &path,
        "environment \"demo\"\nsandbox \"one\" { image \"debian/12\"; file \"/etc/token\" secret=\"TOKEN\"; \
         file \"/etc/seed\" secret=\"TOKEN\" when=\"create\"; snapshot \"ready\"; }",
    )
    .expect("writes");
    let path = path.to_str().expect("a path");
    let variables = [("TOKEN", "hunter2-hunter2")];
    let apply = program_as(&memory, &["apply", path], &variables, NOW).await;
    assert_eq!(apply.code, 0, "{}{}", apply.stdout, apply.stderr);
    let text = export(&memory, &["--environment", "demo"]).await;
    assert!(!text.contains("hunter2"), "{text}");
    assert!(text.contains("the file /etc/token is secret"), "{text}");
    assert!(!text.contains("secret:"), "not its hash either: {text}");
    plans_empty(&memory, &text, "kdl").await;
}

#[tokio::test]
async fn what_cannot_be_exported_is_told() {
    let memory = Memory::new();
    run(&memory, "apply", "sandbox \"one\" { image \"debian/12\"; }", 0).await;
    let other = ["apply", "-", "--environment", "other"];
    let apply = program_with(&memory, &other, "sandbox \"one\" { image \"debian/12\"; }").await;
    assert_eq!(apply.code, 0, "{}", apply.stderr);
    for (words, text) in [
        (&[][..], "neither an environment nor an instance"),
        (&["--environment", "nobody"], "owns nothing here"),
        (&["demo-won"], "did you mean `demo-one`?"),
        (&["demo-one", "other-one"], "several environments: demo, other"),
        (&["demo-one", "--environment", "x"], "several environments: demo, x"),
    ] {
        let run = program(&memory, &[&["export", "--backend", "local"], words].concat()).await;
        assert_eq!(run.code, 1, "{words:?} {}", run.stdout);
        assert!(run.stderr.contains(text), "{text}\n{}", run.stderr);
    }
}
