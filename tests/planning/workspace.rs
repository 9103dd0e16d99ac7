//! Mounts, volumes and ports, compared.

use sbx_apply::backend::memory::Memory;
use sbx_apply::model::{GuestPath, Protocol};
use serde_json::Value;

use super::{program_with, run};

fn spec(body: &str) -> String {
    format!("sandbox \"one\" {{ image \"debian/12\"; {body} }}")
}

const ALL: &str = "mount \"/app\" source=\"app\"; volume \"data\" path=\"/data\"; port 8080 host=18080;";

async fn applied(body: &str) -> Memory {
    let memory = Memory::new();
    run(&memory, "apply", &spec(body), 0).await;
    let _ = memory.take_journal();
    memory
}

/// The changes of a plan: kind, name, action, reason, impact, and the fields. Every program has a folder of its own, and
/// so another source.
async fn changes(memory: &Memory, arguments: &[&str], body: &str) -> Vec<String> {
    let body = format!("{body} ignore \"mount:/app.source\";");
    let shown = program_with(memory, &[&["plan", "-", "--json"], arguments].concat(), &spec(&body)).await;
    let plan: Value = serde_json::from_str(&shown.stdout).unwrap_or_else(|_| panic!("{}", shown.stderr));
    let changes = plan["changes"].as_array().expect("changes").iter().map(|change| {
        let text = |key: &str| change[key].as_str().unwrap_or("-").to_owned();
        let fields = change["fields"].as_array().expect("fields").iter().map(|field| {
            let text = |key: &str| field[key].as_str().unwrap_or("-").to_owned();
            format!("{}>{} {}", text("before"), text("after"), text("origin"))
        });
        let fields: Vec<String> = fields.collect();
        format!(
            "{} {} {} {} {}: {}",
            text("kind"),
            text("name"),
            text("action"),
            text("reason"),
            text("impact"),
            fields.join(", ")
        )
    });
    changes.collect()
}

fn edit(memory: &Memory, edit: impl Fn(&mut sbx_apply::model::Workspace)) {
    let edited = memory.edit("demo-one", |machine| {
        edit(&mut machine.workspace);
        Ok(())
    });
    edited.expect("is there");
}

#[tokio::test]
async fn they_are_attached_before_the_first_start() {
    let memory = Memory::new();
    run(&memory, "apply", &spec(ALL), 0).await;
    let journal = memory.take_journal();
    let at = |what: &str| {
        journal
            .iter()
            .position(|entry| entry.starts_with(what))
            .unwrap_or_else(|| panic!("{what}: {journal:?}"))
    };
    assert!(
        journal.contains(&"attach demo-one mount:/app volume:data port:8080".to_owned()),
        "{journal:?}"
    );
    assert!(at("create demo-one") < at("attach demo-one") && at("attach demo-one") < at("start demo-one"));
    assert_eq!(changes(&memory, &[], ALL).await, Vec::<String>::new());
}

#[tokio::test]
async fn an_edit_of_each_is_live_but_for_what_root_inside_could_undo() {
    let memory = applied(ALL).await;
    let edited = "mount \"/app\" source=\"app\" readonly=true; volume \"data\" path=\"/more\"; port 8080 host=18081;";
    assert_eq!(
        changes(&memory, &[], edited).await,
        [
            "volume data update spec-changed live: /data>/more pending",
            "mount /app update spec-changed restart: false>true pending",
            "port 8080 update spec-changed live: 18080>18081 pending",
        ]
    );
    run(&memory, "apply", &spec(edited), 0).await;
    let journal = memory.take_journal();
    let stopped = journal.iter().position(|entry| entry == "stop demo-one");
    assert!(
        stopped < journal.iter().position(|entry| entry.starts_with("attach")),
        "{journal:?}"
    );
    assert_eq!(changes(&memory, &[], edited).await, Vec::<String>::new());
}

#[tokio::test]
async fn what_leaves_the_spec_is_undone_and_volumes_with_prune_only() {
    let memory = applied(ALL).await;
    let gone = [
        "mount /app delete left-spec live: false>- pending",
        "port 8080 delete left-spec live: 18080>- pending",
    ];
    assert_eq!(changes(&memory, &[], "").await, gone);
    let shown = program_with(&memory, &["plan", "-"], &spec("")).await;
    assert!(
        shown
            .stdout
            .contains("the volume data left the spec; it stays, attached, until --prune"),
        "{}",
        shown.stdout
    );
    run(&memory, "apply", &spec(""), 0).await;
    assert_eq!(changes(&memory, &[], "").await, Vec::<String>::new());
    assert_eq!(memory.volumes().len(), 1);
    assert_eq!(
        changes(&memory, &["--prune"], "").await,
        ["volume data delete pruned data-loss: /data>- pending"]
    );
    program_with(&memory, &["apply", "-", "--prune", "--yes"], &spec("")).await;
    assert_eq!(memory.volumes().len(), 0);
    assert_eq!(changes(&memory, &["--prune"], "").await, Vec::<String>::new());
}

#[tokio::test]
async fn what_hands_do_is_drift() {
    let memory = applied(ALL).await;
    edit(&memory, |found| found.mounts.clear());
    edit(&memory, |found| found.volumes.clear());
    edit(&memory, |found| {
        found.ports.values_mut().for_each(|host| *host = "1".to_owned());
    });
    let found = changes(&memory, &[], ALL).await;
    assert_eq!(
        found,
        [
            "volume data create missing live: ->/data drift",
            "mount /app create missing live: ->false drift",
            "port 8080 update live-changed live: 1>18080 drift",
        ]
    );
    let path = GuestPath::new("/by-hand").expect("a path");
    run(&memory, "apply", &spec(ALL), 0).await;
    edit(&memory, |found| {
        let theirs = found.mounts.values().next().cloned().expect("one");
        found.mounts.insert(path.clone(), theirs);
    });
    assert_eq!(changes(&memory, &[], ALL).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_volume_outlives_its_sandbox_and_goes_with_its_environment() {
    let memory = applied(ALL).await;
    let other = spec(ALL).replace("debian/12", "debian/13");
    program_with(&memory, &["apply", "-", "--yes", "--allow-data-loss"], &other).await;
    let journal = memory.take_journal();
    assert!(
        journal.contains(&"delete demo-one".to_owned()) && !journal.iter().any(|entry| entry.contains("delete volume")),
        "{journal:?}"
    );
    assert_eq!(memory.volumes().len(), 1);
    // A sandbox that left the spec takes its volumes along, with `--prune`.
    let none = "sandbox \"two\" { image \"debian/12\"; }";
    program_with(&memory, &["apply", "-", "--yes", "--prune"], none).await;
    assert_eq!(memory.volumes().len(), 0);
    program_with(&memory, &["apply", "-", "--yes"], &spec(ALL)).await;
    assert_eq!(memory.volumes().len(), 1);
    let shown = program_with(&memory, &["destroy", "-", "--yes", "--allow-data-loss"], &spec(ALL)).await;
    assert_eq!(
        (shown.code, memory.volumes().len()),
        (0, 0),
        "{}{}",
        shown.stdout,
        shown.stderr
    );
}

#[tokio::test]
async fn a_protected_sandbox_keeps_its_volumes() {
    let memory = applied(&format!("{ALL} protect true;")).await;
    let shown = program_with(&memory, &["apply", "-", "--yes", "--prune"], &spec("protect true;")).await;
    assert!(
        shown.code == 4 && shown.stderr.contains("its volume data would go"),
        "{}",
        shown.stderr
    );
    assert_eq!(memory.volumes().len(), 1);
}

#[tokio::test]
async fn a_taken_port_is_an_error_at_its_line_and_nothing_is_touched() {
    let memory = Memory::new();
    memory.take_port(18080, Protocol::Tcp, "somebody listens there");
    let shown = program_with(&memory, &["apply", "-", "--yes"], &spec(ALL)).await;
    assert!(
        shown.code == 1 && shown.stderr.contains("port 18080 of this machine is taken"),
        "{}",
        shown.stderr
    );
    assert_eq!(memory.take_journal(), Vec::<String>::new());
    let udp = spec("port 8080 host=18080 protocol=\"udp\";");
    run(&memory, "apply", &udp, 0).await;
}

#[tokio::test]
async fn the_files_of_the_spec_are_guarded() {
    let memory = applied("mount \"/work\" source=\".\";").await;
    let machine = memory.machine("demo-one").expect("is there");
    let mount = machine.workspace.mounts.values().next().expect("one");
    assert_eq!(mount.guarded.iter().collect::<Vec<_>>(), ["sbx.kdl"]);
    edit(&memory, |found| {
        found.mounts.values_mut().for_each(|mount| mount.guarded.clear());
    });
    let body = "mount \"/work\" source=\".\"; ignore \"mount:/work.source\";";
    assert_eq!(
        changes(&memory, &[], body).await,
        ["mount /work update live-changed restart: ->sbx.kdl drift"]
    );
}

#[tokio::test]
async fn volumes_and_ports_are_exported() {
    let memory =
        applied("volume \"data\" path=\"/data\"; port 53 host=1053 protocol=\"udp\"; mount \"/app\" source=\"app\";")
            .await;
    let shown = program_with(&memory, &["export", "--environment", "demo", "--backend", "local"], "").await;
    for text in [
        "volume \"data\" path=\"/data\"",
        "port 53 host=1053 protocol=\"udp\"",
        "is mounted at /app",
    ] {
        assert!(shown.stdout.contains(text), "{text}: {}{}", shown.stdout, shown.stderr);
    }
}

#[tokio::test]
async fn a_port_that_changes_hands_is_let_go_of_first() {
    let memory = Memory::new();
    let spec = |one: &str, two: &str| {
        format!("sandbox \"one\" {{ image \"debian/12\"; {one} }}; sandbox \"two\" {{ image \"debian/12\"; {two} }}")
    };
    let low = "port 80 host=1080;";
    run(&memory, "apply", &spec("", low), 0).await;
    run(&memory, "apply", &spec(low, ""), 0).await;
    run(&memory, "plan", &spec(low, ""), 0).await;
}

#[tokio::test]
async fn a_taken_port_is_in_nobodys_way_who_stays_stopped() {
    let memory = applied("port 8080 host=18080; state \"stopped\";").await;
    memory.take_port(18080, Protocol::Tcp, "somebody listens there");
    run(&memory, "plan", &spec("port 8080 host=18080; state \"stopped\";"), 0).await;
    run(&memory, "plan", &spec("port 8080 host=18080;"), 1).await;
}

fn two(one: &str, two: &str) -> String {
    format!("sandbox \"one\" {{ image \"debian/12\"; {one} }}\nsandbox \"two\" {{ image \"debian/12\"; {two} }}")
}

#[tokio::test]
async fn ports_that_two_sandboxes_swap_are_let_go_of_before_all_else() {
    let memory = Memory::new();
    let ports = |first: u16, second: u16| format!("port 80 host={first}; port 81 host={second};");
    run(&memory, "apply", &two(&ports(1080, 1081), &ports(1090, 1091)), 0).await;
    let _ = memory.take_journal();
    let swapped = two(&ports(1090, 1081), &ports(1080, 1091));
    run(&memory, "apply", &swapped, 0).await;
    let attached: Vec<String> = memory
        .take_journal()
        .into_iter()
        .filter(|entry| entry.starts_with("attach"))
        .collect();
    assert_eq!(attached.len(), 3, "one of them lets go first: {attached:?}");
    run(&memory, "plan", &swapped, 0).await;
    // Within one sandbox, and where the other is made anew as well.
    run(
        &memory,
        "apply",
        &two("port 80 host=1081; port 81 host=1090;", &ports(1080, 1091)),
        0,
    )
    .await;
    let replaced = two("port 80 host=1080;", "port 80 host=1081;").replacen("debian/12", "debian/13", 1);
    let shown = program_with(&memory, &["apply", "-", "--yes", "--allow-data-loss"], &replaced).await;
    assert_eq!(shown.code, 0, "{}", shown.stderr);
    run(&memory, "plan", &replaced, 0).await;
}

#[tokio::test]
async fn a_port_that_another_sandbox_keeps_is_an_error_at_its_line() {
    let memory = Memory::new();
    let port = "port 80 host=1080;";
    run(&memory, "apply", &two(port, ""), 0).await;
    let _ = memory.take_journal();
    // It left the spec, and runs.
    let left = format!("sandbox \"three\" {{ image \"debian/12\"; {port} }}");
    let shown = program_with(&memory, &["apply", "-", "--yes"], &left).await;
    assert!(
        shown.code == 1
            && shown
                .stderr
                .contains("port 1080 of this machine is taken: `one` has it")
            && shown.stderr.contains("sbx.kdl:2")
            && shown.stderr.contains("`--prune` deletes it"),
        "{}",
        shown.stderr
    );
    // It is not among the targets.
    let moved = two("", port);
    let shown = program_with(&memory, &["apply", "-", "--yes", "--target", "two"], &moved).await;
    assert!(
        shown.code == 1 && shown.stderr.contains("apply `one` as well"),
        "{}",
        shown.stderr
    );
    assert_eq!(memory.take_journal(), Vec::<String>::new());
    program_with(&memory, &["apply", "-", "--yes", "--prune"], &left).await;
    run(&memory, "plan", &left, 0).await;
}

#[tokio::test]
async fn volumes_of_sandboxes_that_are_no_more_are_found() {
    let memory = applied("volume \"data\" path=\"/data\";").await;
    memory.delete_by_hand("demo-one").expect("is there");
    let kept = spec("volume \"data\" path=\"/data\";");
    let shown = program_with(&memory, &["show", "-"], &kept).await;
    assert!(shown.stdout.contains("data (not attached)"), "{}", shown.stdout);
    let none = "sandbox \"two\" { image \"debian/12\"; }";
    let shown = program_with(&memory, &["show", "-"], none).await;
    assert!(
        shown.stdout.contains("missing (left over)") && shown.stdout.contains("data (not attached)"),
        "{}",
        shown.stdout
    );
    run(&memory, "apply", none, 0).await;
    assert_eq!(memory.volumes().len(), 1);
    let shown = program_with(&memory, &["plan", "-", "--prune"], none).await;
    assert!(shown.stdout.contains("delete volume data"), "{}", shown.stdout);
    program_with(&memory, &["apply", "-", "--prune", "--yes"], none).await;
    assert_eq!(memory.volumes().len(), 0);
}

#[tokio::test]
async fn a_volume_grows_while_it_runs_and_never_shrinks() {
    let sized = |size: &str| format!("volume \"data\" path=\"/data\" size=\"{size}\";");
    let memory = applied("volume \"data\" path=\"/data\";").await;
    assert_eq!(
        changes(&memory, &[], &sized("10GiB")).await,
        ["volume data update spec-changed live: ->10GiB pending"]
    );
    run(&memory, "apply", &spec(&sized("10GiB")), 0).await;
    run(&memory, "plan", &spec(&sized("10240MiB")), 0).await;
    assert_eq!(memory.volumes().values().next(), Some(&Some("10GiB".to_owned())));
    let shown = program_with(&memory, &["show", "-"], &spec(&sized("10GiB"))).await;
    assert!(shown.stdout.contains("data at /data (10GiB)"), "{}", shown.stdout);
    let exported = program_with(&memory, &["export", "--environment", "demo", "--backend", "local"], "").await;
    assert!(
        exported
            .stdout
            .contains("volume \"data\" path=\"/data\" size=\"10GiB\""),
        "{}",
        exported.stdout
    );
    // Nothing less, whatever became of the sandbox.
    for _ in 0..2 {
        let shown = program_with(&memory, &["apply", "-", "--yes"], &spec(&sized("5GiB"))).await;
        assert!(
            shown.code == 1 && shown.stderr.contains("has 10GiB, and cannot shrink to 5GiB"),
            "{}",
            shown.stderr
        );
        let _ = memory.delete_by_hand("demo-one");
    }
    run(&memory, "apply", &spec(&sized("20GiB")), 0).await;
    assert_eq!(memory.volumes().values().next(), Some(&Some("20GiB".to_owned())));
    // It keeps what it has, which is told once.
    let plain = spec("volume \"data\" path=\"/data\";");
    let shown = program_with(&memory, &["apply", "-", "--yes"], &plain).await;
    assert!(
        shown.stdout.contains("the volume data keeps its size"),
        "{}{}",
        shown.stdout,
        shown.stderr
    );
    let shown = program_with(&memory, &["plan", "-", "--detailed-exitcode"], &plain).await;
    assert!(
        shown.code == 0 && !shown.stdout.contains("keeps its size"),
        "{}",
        shown.stdout
    );
    assert_eq!(
        changes(&memory, &["--prune"], "").await,
        ["volume data delete pruned data-loss: /data>- pending"]
    );
}
