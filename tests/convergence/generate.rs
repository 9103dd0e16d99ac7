//! Specs by chance: up to five sandboxes over few names, so that two of them differ in interesting ways.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use indexmap::IndexMap;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use sbx_apply::backend::ErrorKind;
use sbx_apply::backend::memory::Memory;
use sbx_apply::model::{
    BackendChoice, Bytes, Content, Desired, EgressMode, EgressRule, Entry, EnvironmentName, Field, File, FileState,
    GuestPath, GuestPort, Ignored, Kind, Memory as MemoryLimit, Mode, Mount, OnStale, Opening, Origin, Owner, Place,
    Policy, Port, Power, Protocol, Ready, Run, Sandbox, SandboxName, Script, Seconds, SecretKey, Secrets, SnapshotName,
    StepName, Tree, User, Volume, When,
};

use crate::support::fault::Fault;

/// A backend that knows the images of the generated specs.
pub(super) fn backend() -> Memory {
    Memory::new()
        .with_image("one", &[])
        .with_image("two", &[("/etc/a", "the image's")])
}

/// Whether a file's contents are held to what is declared: a hand edit of them is drift.
pub(super) fn is_checked(sandbox: &Sandbox, path: &GuestPath, file: &File) -> bool {
    let field = Field::of(Kind::File, path.as_str(), "content");
    let accepted = sandbox.ignore.iter().any(|ignored| ignored.field.covers(&field));
    !accepted && file.when == When::Always && matches!(file.state, FileState::Content(_) | FileState::Secret(_))
}

fn path(text: &str) -> GuestPath {
    GuestPath::new(text).expect(text)
}

fn file() -> impl Strategy<Value = File> {
    let state = prop_oneof![
        4 => "[a-c]{0,3}".prop_map(|text| FileState::Content(Content::inline(text.into_bytes()))),
        1 => Just(FileState::Absent),
        1 => prop_oneof![Just("ONE"), Just("TWO")].prop_map(|name| FileState::Secret(name.to_owned())),
    ];
    let when = prop_oneof![4 => Just(When::Always), 1 => Just(When::Create)];
    (state, prop_oneof![Just(0o644), Just(0o600)], 0_u32..2, when).prop_map(|(state, mode, id, when)| File {
        when: if state == FileState::Absent { When::Always } else { when },
        state,
        mode: Mode::of_bits(mode),
        owner: Owner { uid: id, gid: id },
        at: Place::nowhere(),
    })
}

fn tree() -> impl Strategy<Value = Tree> {
    let entry = prop_oneof![
        3 => ("[a-c]{0,3}", prop_oneof![Just(Mode::FILE), Just(Mode::DIRECTORY)])
            .prop_map(|(text, mode)| Entry::File { content: Content::inline(text.into_bytes()), mode }),
        1 => Just(Entry::Symlink("a".to_owned())),
    ];
    let name = prop_oneof![Just("a"), Just("b"), Just("d/c"), Just("d/e")];
    let more = (any::<bool>(), any::<bool>(), 0_u32..2);
    (btree_map(name, entry, 0..4), more).prop_map(|(entries, (delete, excludes, id))| {
        let mut entries: BTreeMap<String, Entry> = entries
            .into_iter()
            .map(|(name, entry)| (name.to_owned(), entry))
            // What is excluded is not read.
            .filter(|(name, _)| !excludes || name != "b")
            .collect();
        if entries.keys().any(|name| name.starts_with("d/")) {
            entries.insert("d".to_owned(), Entry::Directory);
        }
        Tree {
            entries,
            owner: Owner { uid: id, gid: id },
            delete,
            exclude: excludes.then(|| "b".to_owned()).into_iter().collect(),
            at: Place::nowhere(),
        }
    })
}

fn runs() -> impl Strategy<Value = Vec<Run>> {
    let waits = prop_oneof![3 => Just(None), 1 => Just(Some("/etc/a")), 1 => Just(Some("/srv/t"))];
    let step = ("[xyz]", 0_u8..3, waits).prop_map(|(name, text, waits)| Run {
        name: StepName::new(name).expect("a name"),
        script: Script::Command(format!("echo {text} >> /etc/ran")),
        user: None,
        timeout: Seconds(60),
        on_change: waits.map(path),
        at: Place::nowhere(),
    });
    vec(step, 0..4).prop_map(|mut steps| {
        let mut seen = BTreeSet::new();
        steps.retain(|step| seen.insert(step.name.clone()));
        steps
    })
}

#[derive(Debug, Clone)]
struct Parts {
    image: &'static str,
    clones: Option<(prop::sample::Index, bool, bool)>,
    cpu: Option<u32>,
    memory: Option<MemoryLimit>,
    disk: bool,
    env: BTreeMap<&'static str, String>,
    config: BTreeMap<&'static str, String>,
    files: BTreeMap<&'static str, File>,
    tree: Option<Tree>,
    run: Vec<Run>,
    snapshot: bool,
    user: bool,
    running: bool,
    ready: bool,
    depends: Option<prop::sample::Index>,
    ignored: Vec<&'static str>,
    egress: Egress,
    attached: Vec<Attached>,
}

/// Something that is attached to a sandbox.
#[derive(Debug, Clone)]
enum Attached {
    Mount(&'static str, &'static str, bool, bool),
    Volume(&'static str, &'static str),
    Port(u16, u16),
}

fn attached() -> impl Strategy<Value = Vec<Attached>> {
    let mount = (
        prop_oneof![Just("/m/one"), Just("/m/two")],
        prop_oneof![Just("/repo/a"), Just("/repo/b")],
        any::<bool>(),
        any::<bool>(),
    );
    let volume = (
        prop_oneof![Just("data"), Just("more")],
        prop_oneof![Just("/v/one"), Just("/v/two")],
    );
    let some = prop_oneof![
        mount.prop_map(|(path, source, readonly, guarded)| Attached::Mount(path, source, readonly, guarded)),
        volume.prop_map(|(name, path)| Attached::Volume(name, path)),
        (80_u16..82, 0_u16..2).prop_map(|(guest, host)| Attached::Port(guest, host)),
    ];
    prop_oneof![3 => Just(Vec::new()), 2 => vec(some, 1..4)]
}

/// Attaches something to the sandbox of an index, whose ports of the host are nobody else's.
fn attach(sandbox: &mut Sandbox, index: usize, what: Attached) {
    let at = Place::nowhere();
    match what {
        Attached::Mount(at_path, source, readonly, guarded) => {
            let guarded = guarded && !readonly;
            let mount = Mount {
                is_file: false,
                source: source.into(),
                readonly,
                guarded: guarded.then(|| "sbx.kdl".to_owned()).into_iter().collect(),
                exposed: BTreeSet::new(),
                owner: 1234,
                at,
            };
            sandbox.mounts.insert(path(at_path), mount);
        }
        Attached::Volume(name, at_path) => {
            let volume = Volume {
                path: path(at_path),
                size: None,
                at,
            };
            sandbox.volumes.insert(name.to_owned(), volume);
        }
        Attached::Port(number, host) => {
            let guest = GuestPort {
                number,
                protocol: Protocol::Tcp,
            };
            let host = 2000 + 10 * u16::try_from(index).expect("few") + 2 * (number - 80) + host;
            sandbox.ports.retain(|port| port.guest != guest);
            sandbox.ports.push(Port { guest, host, at });
        }
    }
}

/// What a sandbox says of egress.
#[derive(Debug, Clone)]
enum Egress {
    Silent,
    Shared(&'static str),
    Own(EgressMode, Vec<&'static str>),
}

fn openings() -> impl Strategy<Value = Vec<&'static str>> {
    let opening = prop_oneof![
        Just("10.0.0.0/8:443/tcp"),
        Just("192.0.2.1"),
        Just("localhost:80-81"),
        Just("192.0.2.0/24:*/udp")
    ];
    vec(opening, 0..3)
}

fn egress() -> impl Strategy<Value = Egress> {
    let own = (
        prop_oneof![
            Just(EgressMode::Allowlist),
            Just(EgressMode::None),
            Just(EgressMode::Unrestricted)
        ],
        openings(),
    );
    prop_oneof![
        4 => Just(Egress::Silent),
        1 => prop_oneof![Just("p"), Just("q")].prop_map(Egress::Shared),
        1 => own.prop_map(|(mode, open)| Egress::Own(mode, open)),
    ]
}

/// A policy that opens these.
fn policy(name: Option<&str>, mode: EgressMode, open: &[&str]) -> Policy {
    let allow = open.iter().filter(|_| mode == EgressMode::Allowlist).map(|text| {
        let opening: Opening = text.parse().expect("an opening");
        EgressRule {
            to: opening.to,
            ports: opening.ports,
            protocol: opening.protocol,
            preset: false,
            at: Place::nowhere(),
        }
    });
    Policy {
        name: name.map(str::to_owned),
        mode,
        allow: allow.collect(),
        enforce: None,
        at: Place::nowhere(),
    }
}

fn parts() -> impl Strategy<Value = Parts> {
    let memory = prop_oneof![
        (1_u64..4).prop_map(|gib| MemoryLimit::Bytes(Bytes(gib << 30))),
        Just(MemoryLimit::Percent(50)),
    ];
    // One size only: a disk that shrinks is refused.
    let limits = (option::of(1_u32..4), option::of(memory), any::<bool>());
    let maps = (
        btree_map(prop_oneof![Just("A"), Just("B")], "[a-z ]{0,4}", 0..3),
        btree_map(prop_oneof![Just("limits.processes"), Just("linux.x")], "[1-9]", 0..2),
        btree_map(
            prop_oneof![Just("/etc/a"), Just("/etc/b"), Just("/srv/t/d/c"), Just("/new/deep/f")],
            file(),
            0..4,
        ),
    );
    let rest = (
        option::weighted(0.4, tree()),
        runs(),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
    );
    let ignored = prop_oneof![
        Just("env:A"),
        Just("file:/etc/b"),
        Just("tree:/srv/t"),
        Just("file:/etc/a.mode")
    ];
    let links = (
        option::weighted(0.6, any::<(prop::sample::Index, bool, bool)>()),
        option::weighted(0.3, any::<prop::sample::Index>()),
        prop_oneof![4 => Just(Vec::new()), 1 => vec(ignored, 1..3)],
        egress(),
        attached(),
    );
    (prop_oneof![Just("one"), Just("two")], limits, maps, rest, links).prop_map(
        |(
            image,
            (cpu, memory, disk),
            (env, config, files),
            (tree, run, snapshot, user, running, ready),
            (clones, depends, ignored, egress, attached),
        )| Parts {
            image,
            clones,
            cpu,
            memory,
            disk,
            env,
            config,
            files,
            tree,
            run,
            snapshot,
            user,
            running,
            ready,
            depends,
            ignored,
            egress,
            attached,
        },
    )
}

/// A whole spec.
pub(super) fn desired() -> impl Strategy<Value = Desired> {
    (vec(parts(), 1..5), ["[x-z]{2}", "[x-z]{2}"], openings()).prop_map(|(all, values, shared)| {
        let mut sandboxes: IndexMap<SandboxName, Sandbox> = IndexMap::new();
        for (index, parts) in all.into_iter().enumerate() {
            let sandbox = sandbox(index, parts, &sandboxes, &shared);
            sandboxes.insert(sandbox.name.clone(), sandbox);
        }
        let at = Place::nowhere();
        Desired {
            files: Vec::new(),
            secrets: Secrets::new(
                ["ONE", "TWO"]
                    .map(str::to_owned)
                    .into_iter()
                    .zip(values.map(|value| Arc::from(value.into_bytes())))
                    .collect(),
                SecretKey::new([7; SecretKey::BYTES]),
            ),
            environment: EnvironmentName::new("demo").expect("a name"),
            backend: BackendChoice {
                name: "memory".to_owned(),
                settings: BTreeMap::new(),
                at,
            },
            sandboxes,
        }
    })
}

fn sandbox(index: usize, parts: Parts, before: &IndexMap<SandboxName, Sandbox>, shared: &[&str]) -> Sandbox {
    let at = Place::nowhere;
    let name = SandboxName::new(format!("s{index}")).expect("a name");
    let names: Vec<&SandboxName> = before.keys().collect();
    let ready = SnapshotName::new("ready").expect("a name");
    let origin = match parts.clones.filter(|_| !names.is_empty()) {
        None => Origin::Image {
            name: parts.image.to_owned(),
            at: at(),
        },
        Some((pick, snapshot, replace)) => {
            let source = (*pick.get(&names)).clone();
            let has = !before[&source].snapshots.is_empty();
            Origin::Clone {
                snapshot: (snapshot && has).then(|| ready.clone()),
                sandbox: source,
                on_stale: if replace { OnStale::Replace } else { OnStale::Keep },
                on_stale_explicit: replace,
                at: at(),
            }
        }
    };
    let tree_entries: BTreeSet<GuestPath> = parts
        .tree
        .iter()
        .flat_map(|tree| tree.entries.keys().map(|entry| path("/srv/t").join(entry)))
        .collect();
    // A step waits for what is declared, and is its sandbox's user's only where there is one.
    let declared = |at: &GuestPath| match at.as_str() {
        "/srv/t" => parts.tree.is_some(),
        file => parts.files.contains_key(file),
    };
    let tree_accepted = parts.ignored.contains(&"tree:/srv/t");
    let run = parts.run.into_iter().map(|step| Run {
        on_change: step.on_change.filter(declared),
        user: parts
            .user
            .then(|| "dev".to_owned())
            .filter(|_| step.name.as_str() == "z"),
        ..step
    });
    let run: Vec<Run> = run.collect();
    let attached = parts.attached;
    let mut made = Sandbox {
        sources: BTreeMap::new(),
        base: name.clone(),
        name,
        at: at(),
        origin,
        cpu: parts.cpu.map(|cpu| (cpu, at())),
        memory: parts.memory.map(|memory| (memory, at())),
        disk: parts.disk.then(|| (Bytes(20 << 30), at())),
        state: if parts.running { Power::Running } else { Power::Stopped },
        env_places: BTreeMap::new(),
        env: parts
            .env
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value))
            .collect(),
        config: parts
            .config
            .into_iter()
            .map(|(key, value)| (key.to_owned(), (value, at())))
            .collect(),
        user: parts.user.then(|| User {
            name: "dev".to_owned(),
            uid: 1234,
            at: at(),
        }),
        files: parts
            .files
            .into_iter()
            .map(|(name, file)| (path(name), file))
            // A file that is also a tree's entry is an error of the spec. One in a tree that is accepted as it is would
            // make the tree's folder.
            .filter(|(path, _)| !(tree_entries.contains(path) || tree_accepted && path.as_str().starts_with("/srv/t/")))
            .collect(),
        trees: parts.tree.into_iter().map(|tree| (path("/srv/t"), tree)).collect(),
        run,
        ready: parts.ready.then(|| Ready {
            command: Some("true".to_owned()),
            timeout: Seconds(10),
            at: at(),
        }),
        snapshots: if parts.snapshot {
            vec![(ready, at())]
        } else {
            Vec::new()
        },
        mounts: BTreeMap::new(),
        volumes: BTreeMap::new(),
        ports: Vec::new(),
        depends_on: parts
            .depends
            .filter(|_| !names.is_empty())
            .map(|pick| (*pick.get(&names)).clone())
            .into_iter()
            .collect(),
        egress: match parts.egress {
            Egress::Silent => None,
            Egress::Shared(name) => Some(policy(Some(name), EgressMode::Allowlist, shared)),
            Egress::Own(mode, open) => Some(policy(None, mode, &open)),
        },
        protect: None,
        ttl: None,
        target: None,
        ignore: parts
            .ignored
            .into_iter()
            .map(|field| Ignored {
                field: field.parse().expect("a field"),
                until: None,
                reason: None,
                at: at(),
            })
            .collect(),
    };
    for what in attached {
        attach(&mut made, index, what);
    }
    // Two volumes at one path are an error of the spec.
    let mut paths = BTreeSet::new();
    made.volumes.retain(|_, volume| paths.insert(volume.path.clone()));
    made
}

/// A path that no generated spec declares.
pub(super) const MARK: &str = "/etc/mark";

/// The spec with one more file in one sandbox.
pub(super) fn marked(desired: &Desired, name: &SandboxName) -> Desired {
    let mut marked = desired.clone();
    let mark = File {
        state: FileState::Content(Content::inline(*b"marked")),
        mode: Mode::FILE,
        owner: Owner::ROOT,
        when: When::Always,
        at: Place::nowhere(),
    };
    if let Some(sandbox) = marked.sandboxes.get_mut(name) {
        sandbox.files.insert(path(MARK), mark);
    }
    marked
}

/// A fault that may strike.
pub(super) fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        Just(Fault::Before(ErrorKind::Failed)),
        Just(Fault::Before(ErrorKind::Unreachable)),
        Just(Fault::Within),
        Just(Fault::After),
        Just(Fault::DeathBefore),
        Just(Fault::DeathWithin),
        Just(Fault::DeathAfter),
    ]
}
