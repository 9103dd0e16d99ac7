//! What seldom happens: makers that are stopped in the middle, images without an SSH server, names instead of addresses,
//! snapshots that hold each other, and instances that somebody else made.

use std::time::Duration;

use sbx_apply::backend::{ConsoleOpts, Registry, Terminal};
use sbx_apply::model::InstanceName;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
use tokio::sync::watch;

use super::plain::Plain;
use super::shared::settings;
use super::sim::{Dialect, Knobs, Sim};
use super::whole::Program;

const ONE: &str = "environment \"NAME\"\nbackend \"truenas\"\nsandbox \"one\" { image \"debian/bookworm\"; BODY }\n";

fn one(body: &str) -> String {
    ONE.replace("BODY", body)
}

/// Whoever was stopped while a clone was made leaves something half done: the next apply makes it whole, and does not take
/// it for a clone.
#[tokio::test]
async fn half_a_clone_is_made_anew() {
    if !Sim::has_containers().await {
        return;
    }
    let spec = r#"
environment "NAME"
backend "truenas"
sandbox "base" { image "debian/bookworm"; state "stopped"; file "/etc/of-base" content="yes\n"; snapshot "ready"; }
sandbox "task" { clone-from "base" snapshot="ready"; run "check" command="grep -q yes /etc/of-base"; }
"#;
    for dialect in Dialect::ALL {
        let sim = Sim::start(dialect, Knobs::default()).await;
        let program = Program::new(&sim, spec);
        let failing = match dialect {
            Dialect::V25_04 => ["zfs.snapshot.clone", "virt.instance.delete"],
            Dialect::V25_10 => ["pool.snapshot.clone", "virt.instance.delete"],
            Dialect::V26 => ["container.create_with_dataset", "pool.dataset.delete"],
        };
        sim.turn(|knobs| knobs.failing = failing.to_vec());
        program.does(&["apply", "--yes"], 1).await;
        sim.turn(|knobs| knobs.failing.clear());
        program.does(&["apply", "--yes"], 0).await;
        program.does(&["plan", "--detailed-exitcode"], 0).await;
        program.does(&["destroy", "--yes", "--allow-data-loss"], 0).await;
        assert_eq!(sim.violations(), Vec::<String>::new());
    }
}

/// A snapshot that has clones is set aside where the version can, and goes with the last of them.
#[tokio::test]
async fn a_snapshot_with_clones_is_taken_anew() {
    if !Sim::has_containers().await {
        return;
    }
    let spec = r#"
environment "NAME"
backend "truenas"
sandbox "base" { image "debian/bookworm"; state "stopped"; file "/etc/motd" content="1\n"; snapshot "ready"; }
sandbox "task" { clone-from "base" snapshot="ready"; state "stopped"; }
"#;
    for (dialect, method) in [
        (Dialect::V25_10, "pool.snapshot.rename"),
        (Dialect::V26, "zfs.resource.snapshot.rename"),
    ] {
        let sim = Sim::start(dialect, Knobs::default()).await;
        let program = Program::new(&sim, spec);
        program.does(&["apply", "--yes"], 0).await;
        program.write(&spec.replace("1\\n", "2\\n"));
        program.does(&["apply", "--yes", "--allow-data-loss"], 0).await;
        program.does(&["plan", "--detailed-exitcode"], 0).await;
        let asked = sim.requests();
        assert!(asked.iter().any(|request| request.method == method), "{method}");
        let list = program.does(&["snapshot", "list", "base"], 0).await;
        assert!(list.contains("ready") && !list.contains("sbx-apply-"), "{list}");
        program.does(&["destroy", "--yes", "--allow-data-loss"], 0).await;
        let left = sim.snapshots_with(program.environment()).await;
        assert_eq!(left, Vec::<String>::new(), "{dialect:?}");
        assert_eq!(sim.violations(), Vec::<String>::new());
    }
}

/// What somebody else has put below an environment's notes stays.
#[tokio::test]
async fn only_notes_go_with_their_environment() {
    if !Sim::has_containers().await {
        return;
    }
    let sim = Sim::start(Dialect::V25_10, Knobs::default()).await;
    let program = Program::new(&sim, &one("file \"/etc/motd\" content=\"1\\n\";"));
    program.does(&["apply", "--yes"], 0).await;
    let folder = format!("{}/sbx-apply/{}", sim.pool(), program.environment());
    let theirs = format!("{folder}/theirs");
    let mut plain = Plain::connect(&sim).await;
    let made = json!([{ "name": theirs, "type": "FILESYSTEM" }]);
    plain.call("pool.dataset.create", made).await;
    program.does(&["destroy", "--yes", "--allow-data-loss"], 0).await;
    assert_eq!(sim.datasets_with(&folder).await, [folder.clone(), theirs]);
}

/// A dataset that is not a clone's rest stays, and is told of.
#[tokio::test]
async fn a_dataset_in_the_way_is_left_alone() {
    if !Sim::has_containers().await {
        return;
    }
    let sim = Sim::start(Dialect::V26, Knobs::default()).await;
    let spec = "environment \"NAME\"\nbackend \"truenas\"\nsandbox \"base\" { image \"debian/bookworm\"; state \"stopped\"; }\n\
                sandbox \"task\" { clone-from \"base\"; }\n";
    let program = Program::new(&sim, spec);
    let dataset = format!(
        "{}/.truenas_containers/containers/{}",
        sim.pool(),
        program.instance("task")
    );
    let mut plain = Plain::connect(&sim).await;
    plain
        .call(
            "pool.dataset.create",
            json!([{ "name": dataset, "type": "FILESYSTEM" }]),
        )
        .await;
    let said = program.does(&["apply", "--yes"], 1).await;
    assert!(said.contains("stands in the way"), "{said}");
    let there = plain.call("pool.dataset.query", json!([[["id", "=", dataset]]])).await;
    assert_eq!(there.as_array().map(Vec::len), Some(1));
    program.does(&["destroy", "--yes", "--allow-data-loss"], 0).await;
}

/// 26 lets go of a container first, and says nothing where its dataset is not deleted then: that is told, and whoever comes next finishes it,
/// snapshots that were taken meanwhile included.
#[tokio::test]
async fn a_disk_that_stays_is_told_and_goes_later() {
    if !Sim::has_containers().await {
        return;
    }
    let spec = one("file \"/etc/motd\" content=\"1\\n\"; snapshot \"ready\";");
    let containers = "/.truenas_containers/containers/";
    for next in ["apply", "destroy"] {
        let sim = Sim::start(Dialect::V26, Knobs::default()).await;
        let program = Program::new(&sim, &spec);
        program.does(&["apply", "--yes"], 0).await;
        let disk = format!("{}{containers}{}", sim.pool(), program.instance("one"));

        // Once is no trouble: it is looked at, and tried again.
        sim.turn(|knobs| knobs.staying = vec![containers]);
        program.does(&["destroy", "--yes", "--allow-data-loss"], 0).await;
        assert_eq!(sim.datasets_with(&disk).await, Vec::<String>::new());

        program.does(&["apply", "--yes"], 0).await;
        sim.turn(|knobs| knobs.staying = vec![containers; 100]);
        let said = program.does(&["destroy", "--yes", "--allow-data-loss"], 1).await;
        assert!(said.contains("is deleted, and it is still there"), "{said}");
        assert_eq!(sim.datasets_with(&disk).await, std::slice::from_ref(&disk));
        sim.snapshot_all("auto-1").await;
        sim.turn(|knobs| knobs.staying.clear());
        match next {
            "apply" => {
                program.does(&["apply", "--yes"], 0).await;
                program.does(&["plan", "--detailed-exitcode"], 0).await;
                program.does(&["file", "read", "one", "/etc/motd"], 0).await;
                let list = program.does(&["snapshot", "list", "one"], 0).await;
                assert!(list.contains("ready") && !list.contains("auto-1"), "{list}");
                program.does(&["destroy", "--yes", "--allow-data-loss"], 0).await;
            }
            _ => drop(program.does(&["destroy", "--yes", "--allow-data-loss"], 0).await),
        }
        assert_eq!(sim.datasets_with(&disk).await, Vec::<String>::new(), "after {next}");
        assert_eq!(sim.violations(), Vec::<String>::new());
    }
}

/// The same where the mark is somebody else's, as one has that was renamed, or that stands below a marked one: it stays.
#[tokio::test]
async fn a_disk_with_the_mark_of_another_is_left_alone() {
    if !Sim::has_containers().await {
        return;
    }
    let sim = Sim::start(Dialect::V26, Knobs::default()).await;
    let program = Program::new(&sim, &one(""));
    let folder = format!("{}/.truenas_containers/containers", sim.pool());
    let disk = format!("{folder}/{}", program.instance("one"));
    let mark = json!([{ "key": "sbx-apply:deleting", "value": format!("{folder}/another") }]);
    let mut plain = Plain::connect(&sim).await;
    let made = json!([{ "name": disk, "type": "FILESYSTEM", "user_properties": mark }]);
    plain.call("pool.dataset.create", made).await;
    let said = program.does(&["apply", "--yes"], 1).await;
    assert!(said.contains("stands in the way"), "{said}");
    program.does(&["destroy", "--yes", "--allow-data-loss"], 0).await;
    assert_eq!(sim.datasets_with(&disk).await, [disk]);
    assert_eq!(sim.violations(), Vec::<String>::new());
}

/// An image without an SSH server gets one by the web shell; and where none answers any more, so does a console.
#[tokio::test]
async fn the_web_shell_is_there_where_ssh_is_not() {
    if !Sim::has_containers().await {
        return;
    }
    for dialect in [Dialect::V25_10, Dialect::V26] {
        let knobs = Knobs {
            no_server: true,
            ..Knobs::default()
        };
        let sim = Sim::start(dialect, knobs).await;
        let program = Program::new(&sim, &one("run \"a\" command=\"true\";"));
        program.does(&["apply", "--yes"], 0).await;
        program.does(&["check"], 0).await;
        // It ends what it came by.
        let gone = "sed -i /sshd/d /etc/inittab; kill -HUP 1; (sleep 1; killall sshd) >/dev/null 2>&1 </dev/null &";
        program
            .does(&["exec", "one", "--root", "--", "sh", "-c", gone], 0)
            .await;
        tokio::time::sleep(Duration::from_secs(2)).await;

        let backend = Registry::standard()
            .open("truenas", &settings(&sim))
            .await
            .expect("opens");
        let (mut typed, input) = duplex(4096);
        let (output, mut shown) = duplex(1 << 20);
        let (_size, sizes) = watch::channel((100, 30));
        let terminal = Terminal {
            input: Box::new(input),
            output: Box::new(output),
            size: sizes,
            until: None,
        };
        let opts = console();
        let name = InstanceName::observed(program.instance("one"));
        let talk = async {
            typed
                .write_all(b"echo $((40 + 2))-$(id -u)\nexit\n")
                .await
                .expect("types");
            let mut said = Vec::new();
            shown.read_to_end(&mut said).await.expect("is read");
            String::from_utf8_lossy(&said).into_owned()
        };
        let (code, said) = tokio::join!(backend.console(&name, &opts, terminal), talk);
        assert!(said.contains("tells no exit code"), "{said:?}");
        assert!(said.contains("42-0"), "{said:?}");
        assert_eq!(code.expect("a session"), 125, "it tells no exit code");
        backend.close().await.expect("closes");
        program.does(&["destroy", "--yes", "--allow-data-loss"], 0).await;
    }
}

fn console() -> ConsoleOpts {
    ConsoleOpts {
        command: Vec::new(),
        account: sbx_apply::backend::Account::root(),
        env: Default::default(),
    }
}

/// Sandboxes whose addresses the system does not tell are found by their names in a domain.
#[tokio::test]
async fn sandboxes_are_found_by_name() {
    if !Sim::has_containers().await {
        return;
    }
    let knobs = Knobs {
        addresses: false,
        ..Knobs::default()
    };
    let sim = Sim::start(Dialect::V25_04, knobs).await;
    let body = "file \"/etc/motd\" content=\"hello\\n\";";
    let spec = one(body).replace(
        "backend \"truenas\"",
        "backend \"truenas\" { domain \"sandboxes.test\"; }",
    );
    let program = Program::new(&sim, &spec).with_hosts();
    let name = program.instance("one");
    let naming = async {
        // It has an address once it runs; whoever looks for it looks again.
        loop {
            if let Some(address) = sim.address(&name).await {
                program.name(&address, &format!("{name}.sandboxes.test"));
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::select! {
        _ = program.does(&["apply", "--yes"], 0) => {}
        () = naming => {}
    }
    program.does(&["check"], 0).await;
    program.does(&["destroy", "--yes", "--allow-data-loss"], 0).await;
}

/// What goes with a restore is named before anybody consents; and a snapshot that cannot go because of its clones is an
/// error of the plan where the version cannot set it aside.
#[tokio::test]
async fn snapshots_that_hold_each_other() {
    if !Sim::has_containers().await {
        return;
    }
    let sim = Sim::start(Dialect::V25_04, Knobs::default()).await;
    let spec = r#"
environment "NAME"
backend "truenas"
sandbox "base" { image "debian/bookworm"; state "stopped"; file "/etc/motd" content="1\n"; snapshot "ready"; }
sandbox "task" { clone-from "base" snapshot="ready"; state "stopped"; }
"#;
    let program = Program::new(&sim, spec);
    program.does(&["apply", "--yes"], 0).await;
    program.write(&spec.replace("1\\n", "2\\n"));
    let said = program.does(&["plan"], 1).await;
    assert!(
        said.contains("would have to be deleted")
            && said.contains("sbx.kdl:4")
            && said.contains("-task` is a clone of"),
        "{said}"
    );
    program.write(spec);

    for label in ["first", "second"] {
        program.does(&["snapshot", "create", "task", label], 0).await;
    }
    let said = program.does(&["snapshot", "restore", "task", "first"], 4).await;
    assert!(said.contains("its newer snapshots are deleted: `second`"), "{said}");
    program
        .does(&["snapshot", "restore", "task", "first", "--allow-data-loss"], 0)
        .await;
    let left = program.does(&["snapshot", "list", "task"], 0).await;
    assert!(left.contains("first") && !left.contains("second"), "{left}");
    program.does(&["destroy", "--yes", "--allow-data-loss"], 0).await;
}

/// What somebody else made can be adopted, and cannot be entered: there is no key of ours in it.
#[tokio::test]
async fn adopted_ones_cannot_be_entered() {
    if !Sim::has_containers().await {
        return;
    }
    let sim = Sim::start(Dialect::V25_10, Knobs::default()).await;
    let program = Program::new(&sim, &one(""));
    let name = program.instance("theirs");
    let mut plain = Plain::connect(&sim).await;
    let made = json!([{ "name": name, "image": "debian/bookworm", "autostart": true }]);
    plain.done("virt.instance.create", made).await;
    program.does(&["adopt", "one", &name], 0).await;
    program.does(&["plan"], 0).await;
    let said = program.does(&["exec", "one", "--", "true"], 125).await;
    assert!(
        said.contains("it was not made by it") && said.contains("make it anew"),
        "{said}"
    );
    program.does(&["destroy", "--yes", "--allow-data-loss"], 0).await;
}
