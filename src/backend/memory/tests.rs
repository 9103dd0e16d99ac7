//! Where the simulation is strict, and what a test's handle can do. What it shares with every backend is in
//! the conformance suite.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::backend::{
    Account, Backend as _, Changes, CreateOpts, ErrorKind, Exec as _, ExecOpts, FileChange, Files as _, Observe as _,
    Output, ReadFiles as _, Result, Scope, Stop,
};
use crate::model::{
    Bytes, Capabilities, Capability, Content, GuestPath, InstanceName, Labels, Mode, Owner, Query, Status,
};

use super::Memory;

fn opts(name: &str) -> CreateOpts {
    CreateOpts {
        name: name.to_owned(),
        image: Some("debian/12".to_owned()),
        bare: true,
        ..CreateOpts::default()
    }
}

async fn with(names: &[&str]) -> Memory {
    let memory = Memory::new();
    for name in names {
        memory.create(&opts(name)).await.expect("creates");
    }
    memory
}

fn named(name: &str) -> InstanceName {
    InstanceName::observed(name)
}

fn shell(script: &str) -> ExecOpts {
    ExecOpts {
        command: ["/bin/sh", "-ec", script].map(str::to_owned).to_vec(),
        account: Account::root(),
        env: BTreeMap::new(),
        timeout: None,
    }
}

#[track_caller]
fn kind<T>(result: Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

#[tokio::test]
async fn two_operations_on_one_instance_are_busy() {
    let memory = with(&["a"]).await;
    let a = &named("a");
    let changes = Changes::default();
    let (first, second) = tokio::join!(memory.start(a), memory.configure(a, &changes));
    assert_eq!((kind(first), kind(second)), (None, Some(ErrorKind::Busy)));
    let (first, second) = tokio::join!(memory.restore_snapshot(a, "none"), memory.read_motd(a));
    assert_eq!(
        (kind(first), kind(second)),
        (Some(ErrorKind::NotFound), Some(ErrorKind::Busy))
    );
    assert_eq!(kind(memory.start(a).await), None, "nothing is held afterwards");
}

#[tokio::test]
async fn copies_hold_the_disk_and_not_the_power() {
    let memory = with(&["a"]).await;
    let a = &named("a");
    let (b, c) = (opts("b"), opts("c"));
    let (one, two, start, delete) = tokio::join!(
        memory.clone_from(a, None, &b),
        memory.clone_from(a, None, &c),
        memory.start(a),
        memory.delete(a)
    );
    assert_eq!((kind(one), kind(two), kind(start)), (None, None, None));
    assert_eq!(kind(delete), Some(ErrorKind::Busy));
}

#[tokio::test]
async fn what_is_given_up_holds_nothing_and_changes_nothing() {
    let memory = with(&["a"]).await;
    let slow = memory.clone().with_latency(Duration::from_secs(3600));
    let a = named("a");
    let given_up = tokio::time::timeout(Duration::from_millis(1), slow.delete(&a)).await;
    assert!(given_up.is_err());
    assert_eq!(memory.names(), ["a"]);
    assert_eq!(kind(memory.delete(&a).await), None);
}

#[tokio::test]
async fn the_journal_has_every_change_and_no_reading() {
    let memory = with(&["a"]).await;
    let a = &named("a");
    let scope = Scope {
        environment: None,
        names: [a.clone()].into(),
    };
    memory.observe(&scope).await.expect("observes");
    memory.inspect(a, &Query::default()).await.expect("inspects");
    let changes = Changes {
        cpu: Some(None),
        env: BTreeMap::from([("TOKEN".to_owned(), Some("s3cret".to_owned()))]),
        labels: BTreeMap::from([(Labels::TTL.to_owned(), None)]),
        ..Changes::default()
    };
    memory.configure(a, &changes).await.expect("configures");
    let write = FileChange::Write {
        path: GuestPath::new("/token").expect("a path"),
        content: Content::inline(&b"s3cret"[..]),
        mode: Mode::SECRET,
        owner: Some(Owner::ROOT),
    };
    memory.change_files(a, &[write]).await.expect("writes");
    memory.start(a).await.expect("starts");
    memory.output(a, &shell("true")).await.expect("runs");
    memory.create_snapshot(a, "ready").await.expect("snapshots");
    memory.clone_from(a, Some("ready"), &opts("b")).await.expect("clones");
    memory.stop(a, Stop::Force).await.expect("stops");
    assert_eq!(kind(memory.delete(&named("none")).await), Some(ErrorKind::NotFound));
    let expected = [
        "create a from image debian/12",
        "configure a -cpu env.TOKEN -label.ttl",
        "write a /token 0600 0:0",
        "start a",
        "exec a 0:0 /bin/sh -ec true",
        "snapshot a/ready",
        "clone b from a/ready",
        "stop a at once",
        "delete none",
    ];
    assert_eq!(memory.journal(), expected);
    assert_eq!((memory.reads(), memory.calls()["observe"]), (2, 1));
    assert_eq!(memory.take_journal().len(), expected.len());
    assert_eq!(memory.journal(), [""; 0]);
}

#[tokio::test]
async fn a_disk_never_shrinks() {
    let memory = with(&["a"]).await;
    let disk = |gib: u64| Changes {
        disk: Some(Some(Bytes(gib << 30))),
        ..Changes::default()
    };
    assert_eq!(kind(memory.configure(&named("a"), &disk(10)).await), None);
    assert_eq!(
        kind(memory.configure(&named("a"), &disk(9)).await),
        Some(ErrorKind::Invalid)
    );
}

#[tokio::test]
async fn settings_with_a_word_of_their_own_are_refused() {
    let memory = with(&["a"]).await;
    for key in [
        "limits.cpu",
        "limits.memory",
        "user.sbx-apply.environment",
        "volatile.x",
        "image.os",
        "limits.",
    ] {
        let changes = Changes {
            config: BTreeMap::from([(key.to_owned(), Some("1".to_owned()))]),
            ..Changes::default()
        };
        assert_eq!(
            kind(memory.configure(&named("a"), &changes).await),
            Some(ErrorKind::Invalid),
            "{key}"
        );
    }
}

#[tokio::test]
async fn targets_are_members_and_groups() {
    let at = |target: &str| CreateOpts {
        target: Some(target.to_owned()),
        ..opts("a")
    };
    assert_eq!(kind(Memory::new().create(&at("one")).await), Some(ErrorKind::Invalid));
    let cluster = Memory::new().with_member("one", &[]).with_member("two", &["fast"]);
    assert_eq!(kind(cluster.create(&at("three")).await), Some(ErrorKind::NotFound));
    assert_eq!(kind(cluster.create(&at("@slow")).await), Some(ErrorKind::NotFound));
    assert_eq!(cluster.names(), [""; 0]);
    cluster.create(&at("@fast")).await.expect("creates");
    let machine = cluster.machine("a").expect("is there");
    assert_eq!(machine.location.as_deref(), Some("two"));
}

#[tokio::test]
async fn a_capability_that_is_missing_is_missed() {
    let memory = with(&["a"]).await;
    let able = memory.capabilities().able.clone();
    let without = |capability: Capability| {
        let mut able = able.clone();
        able.remove(&capability);
        memory.clone().with_capabilities(Capabilities {
            able,
            ..memory.capabilities().clone()
        })
    };
    let a = &named("a");
    let unsupported = Some(ErrorKind::Unsupported);
    assert_eq!(
        kind(without(Capability::Snapshots).create_snapshot(a, "x").await),
        unsupported
    );
    assert_eq!(
        kind(without(Capability::CloneFromDisk).clone_from(a, None, &opts("b")).await),
        unsupported
    );
    assert_eq!(
        kind(without(Capability::Exec).output(a, &shell("true")).await),
        unsupported
    );
    let stopped = without(Capability::FilesWhenStopped);
    assert_eq!(kind(stopped.read_motd(a).await), unsupported);
    memory.start(a).await.expect("starts");
    assert_eq!(
        kind(stopped.read_motd(a).await),
        Some(ErrorKind::NotFound),
        "it runs, and has no such file"
    );
}

#[tokio::test]
async fn a_hook_answers_first_and_may_change_the_machine() {
    let memory = with(&["a"]).await;
    memory.on_exec(|machine, opts| {
        let text = opts.command.last()?;
        text.starts_with("apt-get").then(|| Output {
            code: i32::from(machine.write("/usr/bin/git", "installed").is_err()),
            stdout: b"done\n".to_vec(),
            stderr: Vec::new(),
        })
    });
    memory.start(&named("a")).await.expect("starts");
    let output = memory.output(&named("a"), &shell("apt-get install -y git")).await;
    assert_eq!(output.expect("runs").stdout, b"done\n");
    let machine = memory.machine("a").expect("is there");
    assert_eq!(machine.read("/usr/bin/git").as_deref(), Some(&b"installed"[..]));
    let output = memory
        .output(&named("a"), &shell("make -j | tee log"))
        .await
        .expect("runs");
    assert_eq!(output.code, 127);
    assert_eq!(output.stderr, b"memory backend does not know `|`\n");
}

#[tokio::test]
async fn a_stop_ends_what_runs() {
    let memory = with(&["a"]).await;
    let a = &named("a");
    memory.start(a).await.expect("starts");
    let script = shell("sleep 0.05\necho late > /late");
    let stop = async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        memory.stop(a, Stop::Force).await
    };
    let (output, stop) = tokio::join!(memory.output(a, &script), stop);
    assert_eq!((kind(output), kind(stop)), (Some(ErrorKind::Failed), None));
    assert_eq!(memory.machine("a").and_then(|machine| machine.read("/late")), None);
}

#[tokio::test]
async fn hands_may_do_anything() {
    let memory = with(&["a"]).await;
    memory.set_time(7);
    memory.make_foreign("foreign").expect("makes");
    memory
        .edit("a", |machine| {
            machine.cpu = Some("0-3".to_owned());
            machine.labels.0.insert("instance".to_owned(), "a".to_owned());
            machine.write("/etc/motd", "by hand")
        })
        .expect("edits");
    memory.copy_by_hand("a", "copy").expect("copies");
    memory.delete_by_hand("a").expect("deletes");
    assert_eq!(memory.names(), ["copy", "foreign"]);
    let (copy, foreign) = (memory.machine("copy"), memory.machine("foreign"));
    let (copy, foreign) = (copy.expect("is there"), foreign.expect("is there"));
    assert_eq!(
        (copy.name.as_str(), copy.cpu.as_deref(), copy.created_at),
        ("copy", Some("0-3"), 8)
    );
    assert_eq!(copy.read("/etc/motd").as_deref(), Some(&b"by hand"[..]));
    assert_eq!((copy.labels.get("instance"), copy.status), (Some("a"), Status::Stopped));
    assert_eq!((foreign.status, foreign.created_at), (Status::Running, 7));
    assert_eq!(kind(memory.delete_by_hand("a")), Some(ErrorKind::NotFound));
}

impl Memory {
    async fn read_motd(&self, name: &InstanceName) -> Result<()> {
        let motd = GuestPath::new("/etc/motd").expect("a path");
        self.read(name, &motd, 1).await.map(drop)
    }
}
