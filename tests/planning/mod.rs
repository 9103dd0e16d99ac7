//! Rules of planning and applying that a single plan's text does not show: each a small story on the simulated
//! backend.

mod accepted;
mod adopt;
mod egress;
mod export;
mod gc;
mod secrets;
mod stale;
mod unseen;
mod workspace;

use sbx_apply::backend::memory::Memory;
use sbx_apply::model::{Labels, Mode, Owner};

use crate::support::program::{NOW, Run, program_as};

const HEAD: &str = "environment \"demo\"\n";

/// Runs the program on a spec in a folder of its own, next to a folder `app` to make trees from.
async fn program_with(memory: &Memory, command: &[&str], spec: &str) -> Run {
    program_in(memory, command, spec, &[]).await
}

/// The same with variables in the caller's environment.
async fn program_in(memory: &Memory, command: &[&str], spec: &str, variables: &[(&str, &str)]) -> Run {
    program_when(memory, command, spec, variables, NOW).await
}

/// The same at another moment.
async fn program_with_at(memory: &Memory, command: &[&str], spec: &str, now: u64) -> Run {
    program_when(memory, command, spec, &[], now).await
}

async fn program_when(memory: &Memory, command: &[&str], spec: &str, variables: &[(&str, &str)], now: u64) -> Run {
    let folder = tempfile::tempdir().expect("a folder");
    let app = folder.path().join("app");
    std::fs::create_dir_all(app.join("static")).expect("makes");
    std::fs::write(app.join("start"), "#!/bin/sh\n").expect("writes");
    std::fs::write(app.join("static/index.html"), "<p>hello").expect("writes");
    let path = folder.path().join("sbx.kdl");
    std::fs::write(&path, format!("{HEAD}{spec}")).expect("writes");
    let path = path.to_str().expect("a path");
    let arguments: Vec<&str> = command
        .iter()
        .map(|word| if *word == "-" { path } else { word })
        .collect();
    program_as(memory, &arguments, variables, now).await
}

/// Runs a command on a spec, and requires its exit code.
async fn run(memory: &Memory, command: &str, spec: &str, code: u8) -> Run {
    let arguments = if command == "plan" {
        &["plan", "-", "--detailed-exitcode"][..]
    } else {
        &[command, "-"][..]
    };
    let run = program_with(memory, arguments, spec).await;
    assert_eq!(run.code, code, "{command} {spec}\n{}\n{}", run.stdout, run.stderr);
    run
}

#[tokio::test]
async fn readiness_that_was_waited_for_in_vain_is_waited_for_again() {
    let memory = Memory::new();
    let spec = "sandbox \"db\" { image \"debian/12\"; ready timeout=\"1s\" { command \"test -e /up\"; }; }";
    run(&memory, "apply", spec, 1).await;
    run(&memory, "apply", spec, 1).await;
    memory
        .edit("demo-db", |machine| machine.write("/up", ""))
        .expect("edits");
    run(&memory, "apply", spec, 0).await;
    run(&memory, "plan", spec, 0).await;
}

#[tokio::test]
async fn what_the_backend_remarks_is_said_once_and_before_something_is_made() {
    let memory = Memory::new();
    let mut capabilities = sbx_apply::backend::Observe::capabilities(&memory).clone();
    capabilities.remarks = vec!["no network here".to_owned()];
    let memory = memory.with_capabilities(capabilities);
    let spec = "sandbox \"a\" count=3 { image \"debian/12\"; }; sandbox \"b\" { image \"debian/12\"; }";
    let said = run(&memory, "plan", spec, 2).await.stdout;
    assert_eq!(said.matches("no network here").count(), 1, "{said}");
    run(&memory, "apply", spec, 0).await;
    let said = run(&memory, "plan", spec, 0).await.stdout;
    assert!(!said.contains("no network here"), "{said}");
}

#[tokio::test]
async fn a_file_that_we_made_goes_with_its_declaration_even_after_a_failure() {
    let memory = Memory::new();
    let spec = |file: &str, command: &str| {
        format!("sandbox \"one\" {{ image \"debian/12\"; {file} run \"go\" command=\"{command}\"; }}")
    };
    let file = "file \"/etc/made\" content=\"x\"; file \"/etc/group\" content=\"ours\";";
    run(&memory, "apply", &spec(file, "false"), 1).await;
    run(&memory, "apply", &spec(file, "true"), 0).await;
    let said = run(&memory, "apply", &spec("", "true"), 0).await;
    let machine = memory.machine("demo-one").expect("is there");
    assert_eq!(machine.read("/etc/made"), None, "it was ours");
    assert_eq!(machine.read("/etc/group"), Some(b"ours".to_vec()), "the image had it");
    assert!(said.stdout.contains("/etc/group is released"), "{}", said.stdout);
}

#[tokio::test]
async fn a_link_in_the_place_of_a_trees_folder_is_replaced_with_all_that_belongs_there() {
    let memory = Memory::new();
    let spec = "sandbox \"one\" { image \"debian/12\"; tree \"/srv/app\" source=\"app\"; \
                file \"/srv/app/static/own\" content=\"x\"; }";
    run(&memory, "apply", spec, 0).await;
    for folder in ["/srv/app/static", "/srv/app"] {
        memory
            .edit("demo-one", |machine| {
                machine.remove(folder)?;
                machine.directory("/elsewhere", Mode::DIRECTORY, Owner::ROOT)?;
                machine.symlink(folder, "/elsewhere", Owner::ROOT)
            })
            .expect("edits");
        let plan = run(&memory, "plan", spec, 3).await;
        assert!(plan.stdout.contains("/srv/app/static/own"), "{}", plan.stdout);
        run(&memory, "apply", spec, 0).await;
        run(&memory, "plan", spec, 0).await;
        let machine = memory.machine("demo-one").expect("is there");
        assert!(machine.read("/srv/app/static/index.html").is_some());
        assert!(
            machine.read("/elsewhere/static/index.html").is_none(),
            "links are not followed"
        );
        memory
            .edit("demo-one", |machine| machine.remove("/elsewhere"))
            .expect("edits");
    }
}

#[tokio::test]
async fn a_folder_that_stands_where_something_else_belongs_goes_only_with_consent() {
    let memory = Memory::new();
    let spec =
        "sandbox \"one\" { image \"debian/12\"; tree \"/srv/app\" source=\"app\"; file \"/etc/conf\" content=\"x\"; }";
    run(&memory, "apply", spec, 0).await;
    for (path, told) in [
        ("/etc/conf", "the folder /etc/conf and all in it go"),
        ("/srv/app/start", "folders in /srv/app go, with all in them"),
    ] {
        memory
            .edit("demo-one", |machine| {
                machine.remove(path)?;
                machine.write(&format!("{path}/deep/work"), "somebody's")
            })
            .expect("edits");
        let refused = run(&memory, "apply", spec, 4).await;
        assert!(refused.stderr.contains(told), "{}", refused.stderr);
        let machine = memory.machine("demo-one").expect("is there");
        assert!(machine.read(&format!("{path}/deep/work")).is_some(), "nothing was done");
        let consented = program_in(&memory, &["apply", "-", "--allow-data-loss"], spec, &[]).await;
        assert_eq!(consented.code, 0, "{}", consented.stderr);
        run(&memory, "plan", spec, 0).await;
    }
}

#[tokio::test]
async fn a_lost_record_makes_nothing_anew() {
    let memory = Memory::new();
    let spec = "sandbox \"one\" { image \"debian/12\"; cpu 1; file \"/etc/motd\" content=\"x\"; }";
    run(&memory, "apply", spec, 0).await;
    for record in [None, Some("no record"), Some("{\"future\":{\"\":{\"x\":\"y\"}}}")] {
        memory
            .edit("demo-one", |machine| {
                let labels = &mut machine.labels.0;
                match record {
                    Some(text) => drop(labels.insert(Labels::APPLIED.to_owned(), text.to_owned())),
                    None => drop(labels.remove(Labels::APPLIED)),
                }
                Ok(())
            })
            .expect("edits");
        run(&memory, "plan", spec, 0).await;
        let _ = memory.take_journal();
        run(&memory, "apply", spec, 0).await;
        assert!(
            memory.journal().iter().all(|call| !call.starts_with("delete")),
            "{:?}",
            memory.journal()
        );
    }
}

#[tokio::test]
async fn what_a_failed_apply_left_is_no_drift() {
    let memory = Memory::new();
    let spec = |command: &str| {
        format!("sandbox \"base\" {{ image \"debian/12\"; state \"stopped\"; run \"go\" command=\"{command}\"; }}")
    };
    run(&memory, "apply", &spec("true"), 0).await;
    run(&memory, "apply", &spec("false"), 1).await;
    let plan = run(&memory, "plan", &spec("false"), 2).await;
    assert!(plan.stdout.contains("■ stop"), "{}", plan.stdout);
    assert!(!plan.stdout.contains("drift"), "{}", plan.stdout);
}

#[tokio::test]
async fn a_finished_record_stands_on_every_snapshot() {
    let memory = Memory::new();
    run(
        &memory,
        "apply",
        "sandbox \"one\" { image \"debian/12\"; snapshot \"s\"; }",
        0,
    )
    .await;
    let machine = memory.machine("demo-one").expect("is there");
    assert!(machine.snapshots["s"].labels.is_true(Labels::COMPLETE));
}

#[tokio::test]
async fn destroy_goes_against_what_depends_on_what() {
    let memory = Memory::new();
    let spec = "sandbox \"a\" { image \"debian/12\"; }\nsandbox \"b\" { image \"debian/12\"; depends-on \"a\"; }\n\
                sandbox \"c\" { clone-from \"b\"; }";
    run(&memory, "apply", spec, 0).await;
    let _ = memory.take_journal();
    let run = program_with(&memory, &["destroy", "-", "--allow-data-loss"], spec).await;
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(memory.journal(), ["delete demo-c", "delete demo-b", "delete demo-a"]);
}

#[tokio::test]
async fn two_instances_of_one_sandbox_are_refused() {
    let memory = Memory::new();
    let spec = "sandbox \"one\" { image \"debian/12\"; }";
    run(&memory, "apply", spec, 0).await;
    memory.copy_by_hand("demo-one", "demo-two").expect("copies");
    run(&memory, "plan", spec, 0).await;
    memory
        .edit("demo-two", |machine| {
            machine
                .labels
                .0
                .insert(Labels::INSTANCE.to_owned(), "demo-two".to_owned());
            Ok(())
        })
        .expect("edits");
    let plan = run(&memory, "plan", spec, 4).await;
    assert!(plan.stderr.contains("has two instances"), "{}", plan.stderr);
    let _ = memory.take_journal();
    let destroy = program_with(&memory, &["destroy", "-", "--allow-data-loss"], spec).await;
    assert_eq!(destroy.code, 4, "{}", destroy.stderr);
    assert!(destroy.stderr.contains("has two instances"), "{}", destroy.stderr);
    assert_eq!(memory.journal(), Vec::<String>::new(), "which one is ours is not known");
}

#[tokio::test]
async fn what_is_left_over_is_listed_as_people_count() {
    let memory = Memory::new();
    let spec = |count: u32| format!("sandbox \"t\" count={count} {{ image \"debian/12\"; }}");
    run(&memory, "apply", &spec(11), 0).await;
    let left = run(&memory, "plan", &spec(1), 0).await;
    let names = |text: &str| -> Vec<String> {
        let words = text.split_whitespace().filter(|word| word.starts_with("t-"));
        words.map(str::to_owned).collect()
    };
    let expected: Vec<String> = (2..=11).map(|number| format!("t-{number}")).collect();
    assert_eq!(names(&left.stdout), expected, "{}", left.stdout);
    let shown = program_with(&memory, &["show", "-"], &spec(0)).await;
    assert_eq!(names(&shown.stdout)[1..], expected, "{}", shown.stdout);
    let all = program_with(&memory, &["destroy", "-"], &spec(1)).await;
    assert!(all.stdout.contains("t-1 … t-11"), "{}", all.stdout);
}

#[tokio::test]
async fn unprotecting_is_an_edit_of_the_spec() {
    let memory = Memory::new();
    let spec = |protect: &str| format!("sandbox \"one\" {{ image \"debian/12\"; protect {protect}; }}");
    run(&memory, "apply", &spec("true"), 0).await;
    let plan = run(&memory, "plan", &spec("false"), 2).await;
    assert!(plan.stdout.contains("settings  (the spec changed)"), "{}", plan.stdout);
}

#[tokio::test]
async fn what_leaves_a_tree_that_deletes_is_the_specs_doing() {
    let memory = Memory::new();
    let outer = "tree \"/srv/app\" source=\"app\" delete=true;";
    let inner = "tree \"/srv/app/vendor\" source=\"app/static\"; file \"/srv/app/x\" content=\"x\";";
    let spec = |files: String| format!("sandbox \"one\" {{ image \"debian/12\"; {files} }}");
    run(&memory, "apply", &spec(format!("{outer} {inner}")), 0).await;
    run(&memory, "plan", &spec(format!("{outer} {inner}")), 0).await;
    let plan = run(&memory, "plan", &spec(outer.to_owned()), 2).await;
    assert!(!plan.stdout.contains("released"), "{}", plan.stdout);
    run(&memory, "apply", &spec(outer.to_owned()), 0).await;
    let machine = memory.machine("demo-one").expect("is there");
    assert!(machine.found("/srv/app/vendor").is_none() && machine.found("/srv/app/x").is_none());
    run(&memory, "plan", &spec(outer.to_owned()), 0).await;
}

#[tokio::test]
async fn set_up_steps_of_a_new_sandbox_run_in_their_order() {
    let memory = Memory::new();
    let step = |name: &str| format!("run \"{name}\" command=\"echo {name} >> /etc/ran\";");
    let spec = format!(
        "defaults {{ {} }}\ntemplate \"t\" {{ {} {} }}\n\
         sandbox \"one\" {{ image \"debian/12\"; use \"t\"; {} {} }}",
        step("zeta"),
        step("omega"),
        step("beta"),
        step("gamma"),
        step("alpha"),
    );
    run(&memory, "apply", &spec, 0).await;
    let ran = memory
        .machine("demo-one")
        .and_then(|machine| machine.read("/etc/ran"))
        .expect("ran");
    assert_eq!(String::from_utf8_lossy(&ran), "zeta\nomega\nbeta\ngamma\nalpha\n");
}

#[tokio::test]
async fn another_id_for_a_user_is_refused_when_it_is_planned() {
    let memory = Memory::new();
    let spec = |uid: u32| format!("sandbox \"one\" {{ image \"debian/12\"; user \"dev\" uid={uid}; }}");
    run(&memory, "apply", &spec(1234), 0).await;
    let plan = run(&memory, "plan", &spec(1235), 1).await;
    assert!(
        plan.stderr.contains("has the user `dev:1234` already"),
        "{}",
        plan.stderr
    );
}

#[tokio::test]
async fn what_a_backend_lacks_is_said_once_for_all_of_a_count() {
    let memory = Memory::new();
    let spec = "sandbox \"one\" count=5 { image \"debian/12\"; egress { enforce \"guest\"; allow \"192.0.2.1\"; }; }";
    let plan = run(&memory, "plan", spec, 1).await;
    assert_eq!(
        plan.stderr.matches("cannot do egress rules inside the guest").count(),
        1,
        "{}",
        plan.stderr
    );
    assert!(plan.stdout.contains("it cannot be applied"), "{}", plan.stdout);
}

#[tokio::test]
async fn nothing_is_lost_for_an_image_that_is_not_there() {
    let memory = Memory::new();
    let spec = |image: &str| format!("sandbox \"one\" count=2 {{ image \"{image}\"; }}");
    let plan = run(&memory, "plan", &spec("debain/12"), 1).await;
    assert_eq!(
        plan.stderr.matches("the image `debain/12`").count(),
        1,
        "{}",
        plan.stderr
    );
    run(&memory, "apply", &spec("debian/12"), 0).await;
    let looked = |memory: &Memory| memory.calls().get("find_image").copied().unwrap_or_default();
    let before = looked(&memory);
    run(&memory, "plan", &spec("debian/12"), 0).await;
    assert_eq!(looked(&memory), before, "nobody looks for what is not needed");
    let _ = memory.take_journal();
    let apply = program_with(&memory, &["apply", "-", "--allow-data-loss"], &spec("debain/12")).await;
    assert_eq!((apply.code, memory.journal()), (1, Vec::new()), "{}", apply.stderr);
}

#[tokio::test]
async fn a_folder_in_a_files_place_goes_with_consent_only() {
    let memory = Memory::new();
    let spec = |more: &str| format!("sandbox \"one\" {{ image \"debian/12\"; {more} }}");
    run(&memory, "apply", &spec(""), 0).await;
    memory
        .edit("demo-one", |machine| machine.write("/home/alice/work", "work"))
        .expect("edits");
    for holds in [
        "file \"/home/alice\" absent=true;",
        "file \"/home/alice\" content=\"x\";",
    ] {
        run(&memory, "apply", &spec(holds), 4).await;
        let protected = format!("{holds} protect true;");
        run(&memory, "apply", &spec(&protected), 4).await;
        let forced = program_with(&memory, &["apply", "-", "--allow-data-loss"], &spec(&protected)).await;
        assert_eq!(forced.code, 4, "{}", forced.stdout);
    }
    let machine = memory.machine("demo-one").expect("is there");
    assert_eq!(machine.read("/home/alice/work"), Some(b"work".to_vec()));
    let spec = spec("file \"/home/alice\" absent=true;");
    let forced = program_with(&memory, &["apply", "-", "--allow-data-loss"], &spec).await;
    assert_eq!(forced.code, 0, "{}", forced.stderr);
    run(&memory, "plan", &spec, 0).await;
}
