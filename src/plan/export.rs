//! From what is live back to what a spec would say of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::account::Account;
use super::facts::{ABSENT, DELETE, DEPENDS_ON, PASSWD, ROOT, of_file};
use super::{Adoption, Change, Options, Reason, adopt, egress, plan, workspace};
use crate::model::{
    Bytes, Capabilities, Content, Desired, EgressMode, EgressRule, Enforcement, Facts, Field, File, FileState, Found,
    GuestPath, Ignored, Inspection, Kind, Labels, Lifetime, Live, LiveInstance, Memory, Mode, Mount, OnStale, Opening,
    Origin, Ownership, Place, Policy, PolicyKey, Port, Power, Query, Sandbox, SandboxName, Seconds, Shape,
    SnapshotName, Status, User, Volume, When,
};

/// Stands for an image that nobody knows.
const UNKNOWN_IMAGE: &str = "unknown";

/// An instance as a spec would say it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// What can be said.
    pub sandbox: Sandbox,
    /// What cannot, in words.
    pub left_out: Vec<String>,
}

/// Which files of an instance to look at: those that its record names. The contents of secret ones do not come along.
#[must_use]
pub fn export_query(instance: &LiveInstance) -> Query {
    let applied = record_of(instance);
    let mut query = Query::default();
    let contents = applied
        .iter()
        .filter(|(field, _)| field.kind == Kind::File && field.field == "content");
    for (field, value) in contents {
        let set = if is_secret(value) {
            &mut query.opaque
        } else {
            &mut query.paths
        };
        set.extend(GuestPath::new(&*field.name));
    }
    if applied.get(&Field::sandbox("user")).is_some() {
        query.paths.insert(GuestPath::trusted(PASSWD.to_owned()));
    }
    query
}

/// The record of an owned instance; none of somebody else's, whatever its labels say.
fn record_of(instance: &LiveInstance) -> Facts {
    match instance.labels.ownership(&instance.name) {
        Ownership::Owned { .. } => instance.labels.applied(),
        Ownership::Foreign => Facts::new(),
    }
}

fn is_secret(value: &str) -> bool {
    value.starts_with("secret:")
}

/// Reads an instance back. `found` is what [`export_query`] asked for; contents are taken as long as there is `room`, in
/// bytes.
#[must_use]
pub fn read_back(name: &SandboxName, instance: &LiveInstance, found: &Inspection, room: &mut u64) -> Exported {
    let record = record_of(instance);
    let mut left_out = Vec::new();
    let mut sandbox = bare(name, origin(instance, &record, &mut left_out));
    let at = Place::nowhere;
    let mut number = |what: &str, text: &Option<String>, good: &mut dyn FnMut(&str) -> bool| {
        if let Some(text) = text.as_deref().filter(|text| !good(text)) {
            left_out.push(format!("its {what} is {text}, which a spec cannot say"));
        }
    };
    number("cpu", &instance.cpu, &mut |text| {
        sandbox.cpu = text.parse().ok().map(|cpu| (cpu, at()));
        sandbox.cpu.is_some()
    });
    number("memory", &instance.memory, &mut |text| {
        sandbox.memory = text.parse::<Memory>().ok().map(|memory| (memory, at()));
        sandbox.memory.is_some()
    });
    number("disk", &instance.disk, &mut |text| {
        sandbox.disk = text.parse::<Bytes>().ok().map(|disk| (disk, at()));
        sandbox.disk.is_some()
    });
    sandbox.env = instance.env.clone();
    sandbox.config = instance
        .config
        .iter()
        .map(|(key, value)| (key.clone(), (value.clone(), at())))
        .collect();
    match instance.status {
        Status::Stopped => sandbox.state = Power::Stopped,
        Status::Running => {}
        other => left_out.push(format!("it is {}, which a spec cannot say", other.as_str())),
    }
    if let Some(location) = &instance.location {
        left_out.push(format!("it lives on {location}"));
    }
    let owned = matches!(instance.labels.ownership(&instance.name), Ownership::Owned { .. });
    if owned {
        sandbox.protect = instance.labels.is_true(Labels::PROTECT).then(at);
        match instance.labels.get(Labels::TTL).map(str::parse::<Seconds>) {
            Some(Ok(ttl)) if instance.lifetime(0) != Lifetime::Unknown => sandbox.ttl = Some((ttl, at())),
            Some(_) => left_out.push("it has a ttl that says nothing".to_owned()),
            None => {}
        }
    }
    snapshots(&mut sandbox, instance, &mut left_out);
    attached(&mut sandbox, instance, &mut left_out);
    policy(&mut sandbox, instance, &record, &mut left_out);
    user(&mut sandbox, &record, found, &mut left_out);
    files(&mut sandbox, &record, found, room, &mut left_out);
    recorded(&mut sandbox, &record, &mut left_out);
    Exported { sandbox, left_out }
}

fn bare(name: &SandboxName, origin: Origin) -> Sandbox {
    Sandbox {
        name: name.clone(),
        base: name.clone(),
        at: Place::nowhere(),
        origin,
        cpu: None,
        memory: None,
        disk: None,
        state: Power::Running,
        env: Default::default(),
        env_places: Default::default(),
        config: Default::default(),
        user: None,
        files: Default::default(),
        trees: Default::default(),
        run: Vec::new(),
        ready: None,
        snapshots: Vec::new(),
        mounts: Default::default(),
        volumes: Default::default(),
        ports: Vec::new(),
        depends_on: BTreeSet::new(),
        egress: None,
        protect: None,
        ttl: None,
        target: None,
        ignore: Vec::new(),
        sources: Default::default(),
    }
}

fn image(name: impl Into<String>) -> Origin {
    Origin::Image {
        name: name.into(),
        at: Place::nowhere(),
    }
}

fn origin(instance: &LiveInstance, record: &Facts, left_out: &mut Vec<String>) -> Origin {
    let source = record
        .get(&Field::sandbox("clone-from"))
        .and_then(|text| match text.split_once('@') {
            Some((sandbox, snapshot)) => {
                Some((SandboxName::new(sandbox).ok()?, Some(SnapshotName::new(snapshot).ok()?)))
            }
            None => Some((SandboxName::new(text).ok()?, None)),
        });
    if let Some((sandbox, snapshot)) = source {
        return Origin::Clone {
            sandbox,
            snapshot,
            on_stale: OnStale::Keep,
            on_stale_explicit: false,
            at: Place::nowhere(),
        };
    }
    if let Some(name) = record.get(&Field::sandbox("image")) {
        return image(name);
    }
    match &instance.image {
        Some(name) => image(name),
        None => {
            left_out.push("nobody knows what image it was made from; name one, if it is to be made again".to_owned());
            image(UNKNOWN_IMAGE)
        }
    }
}

/// A snapshot of a record's sandbox is declared; one that somebody took by hand cannot be.
fn snapshots(sandbox: &mut Sandbox, instance: &LiveInstance, left_out: &mut Vec<String>) {
    for (label, snapshot) in &instance.snapshots {
        let ours = snapshot.labels.ownership(&instance.name);
        let is_ours = matches!(ours, Ownership::Owned { sandbox: of, .. } if of == sandbox.name);
        match SnapshotName::new(label.as_str()) {
            Ok(name) if is_ours => sandbox.snapshots.push((name, Place::nowhere())),
            _ => left_out.push(format!("the snapshot {label} was taken by hand")),
        }
    }
}

/// Volumes and ports, where they are as a spec can say it. Mounts are of a repository that nobody knows here.
fn attached(sandbox: &mut Sandbox, instance: &LiveInstance, left_out: &mut Vec<String>) {
    let found = &instance.workspace;
    for (path, mount) in &found.mounts {
        let mount = Mount {
            source: PathBuf::from(&mount.source),
            is_file: false,
            readonly: mount.readonly,
            guarded: mount.guarded.clone(),
            exposed: BTreeSet::new(),
            owner: 0,
            at: Place::nowhere(),
        };
        sandbox.mounts.insert(path.clone(), mount);
    }
    let theirs = instance
        .mounted
        .iter()
        .filter(|path| !workspace::is_ours(instance, path));
    left_out.extend(theirs.map(|path| format!("what was attached by hand at {path} is not in here")));
    for (name, path) in &found.volumes {
        let is_odd = [" with ", ", which "].iter().any(|words| path.contains(words));
        match GuestPath::new(path.as_str()) {
            Ok(path) if !is_odd => {
                let at = Place::nowhere();
                let size = found.volume_sizes.get(name).and_then(|size| size.parse().ok());
                let size = size.map(|size| (size, at.clone()));
                sandbox.volumes.insert(name.clone(), Volume { path, size, at });
            }
            _ => left_out.push(format!("the volume {name} is at {path}, which a spec cannot say")),
        }
    }
    for (guest, host) in &found.ports {
        match host.parse() {
            Ok(host) => sandbox.ports.push(Port {
                guest: *guest,
                host,
                at: Place::nowhere(),
            }),
            Err(_) => left_out.push(format!("the port {guest} is {host}, which a spec cannot say")),
        }
    }
    for path in &instance.mounted {
        let is_said = sandbox.mounts.contains_key(path) || sandbox.volumes.values().any(|volume| volume.path == *path);
        if !is_said {
            left_out.push(format!("what somebody has attached at {path} is not in here"));
        }
    }
}

/// What is in force, by what it opens. The preset is a word of the record alone, and stays one.
fn policy(sandbox: &mut Sandbox, instance: &LiveInstance, record: &Facts, left_out: &mut Vec<String>) {
    let Some(live) = &instance.egress else { return };
    let recorded = record.get(&egress::field(egress::MODE));
    if recorded == Some(EgressMode::Agent.as_str()) {
        left_out.push("its egress policy opens what the agent preset does".to_owned());
        return;
    }
    let key = &live.policy.key;
    let by_pixels = key.name == PolicyKey::LEFT_BY_PIXELS;
    if by_pixels {
        left_out.push("its egress policy was left by pixels; taken out of `ignore`, it is put in its place".to_owned());
        sandbox.ignore.push(Ignored {
            field: Field::of(Kind::Egress, "", ""),
            until: None,
            reason: Some("left by pixels".to_owned()),
            at: Place::nowhere(),
        });
    }
    let shared = !by_pixels && key.name != PolicyKey::name_of(&sandbox.name, None);
    let rule = |opening: &Opening| EgressRule {
        to: opening.to.clone(),
        ports: opening.ports,
        protocol: opening.protocol,
        preset: false,
        at: Place::nowhere(),
    };
    let mut policy = Policy {
        name: shared.then(|| key.name.clone()),
        mode: EgressMode::Allowlist,
        allow: live.policy.open.iter().map(rule).collect(),
        enforce: (live.policy.enforce == Enforcement::Guest).then_some(Enforcement::Guest),
        at: Place::nowhere(),
    };
    policy.settle();
    sandbox.egress = Some(policy);
}

/// A policy opens sandboxes of the same spec.
fn cut_openings(desired: &mut Desired, left_out: &mut impl FnMut(&SandboxName, String)) {
    let there: BTreeSet<SandboxName> = desired.sandboxes.keys().cloned().collect();
    for (name, sandbox) in &mut desired.sandboxes {
        let Some(policy) = &mut sandbox.egress else { continue };
        policy.allow.retain(|rule| {
            let stranger = rule.to.sandbox().filter(|peer| !there.contains(*peer));
            if let Some(peer) = stranger {
                left_out(name, format!("its egress policy opens {peer}, which is not exported"));
            }
            stranger.is_none()
        });
        policy.settle();
    }
}

/// A shared policy stands in a spec once: where sandboxes that share one are under different rules by now, none has it.
fn unite_policies(desired: &mut Desired, left_out: &mut impl FnMut(&SandboxName, String)) {
    let mut first: BTreeMap<String, Policy> = BTreeMap::new();
    let mut torn: BTreeSet<String> = BTreeSet::new();
    for policy in desired.sandboxes.values().filter_map(|sandbox| sandbox.egress.as_ref()) {
        let Some(name) = &policy.name else { continue };
        if SandboxName::new(name.as_str()).is_err()
            || first.entry(name.clone()).or_insert_with(|| policy.clone()) != policy
        {
            torn.insert(name.clone());
        }
    }
    for sandbox in desired.sandboxes.values_mut() {
        let name = sandbox.egress.as_ref().and_then(|policy| policy.name.clone());
        if let Some(name) = name.filter(|name| torn.contains(name)) {
            left_out(
                &sandbox.name,
                format!("the egress policy {name} is not the same everywhere"),
            );
            sandbox.egress = None;
        }
    }
}

fn user(sandbox: &mut Sandbox, record: &Facts, found: &Inspection, left_out: &mut Vec<String>) {
    let Some(recorded) = record.get(&Field::sandbox("user")) else {
        return;
    };
    let name = recorded.split(':').next().unwrap_or_default();
    let passwd = found.get(&GuestPath::trusted(PASSWD.to_owned()));
    let account = match passwd.map(|found| &found.shape) {
        Some(Shape::File {
            content: Some(bytes), ..
        }) => Account::read(bytes).find(|account| account.name == name),
        _ => None,
    };
    match account {
        Some(account) => {
            sandbox.user = Some(User {
                name: account.name,
                uid: account.owner.uid,
                at: Place::nowhere(),
            });
        }
        None => left_out.push(format!("its user {name} is gone")),
    }
}

fn files(sandbox: &mut Sandbox, record: &Facts, found: &Inspection, room: &mut u64, left_out: &mut Vec<String>) {
    for name in record.names(Kind::File) {
        let Ok(path) = GuestPath::new(name) else { continue };
        let file = |state, mode, owner| File {
            state,
            mode,
            owner,
            when: When::Always,
            at: Place::nowhere(),
        };
        let Some(content) = record.get(&of_file(&path, "content")) else {
            // By now its contents are its user's, and may have been secret from the beginning.
            let is_seed = record.get(&of_file(&path, "seed")).is_some();
            left_out.push(match is_seed {
                true => format!("the file {path} was written once and then left to its user"),
                false => format!("the file {path} came with its source or has left the spec, and may be secret"),
            });
            continue;
        };
        if is_secret(content) {
            left_out.push(format!(
                "the file {path} is secret; say from which variable, file {path} secret=…"
            ));
            continue;
        }
        match found.get(&path) {
            None if content == ABSENT => {
                let absent = file(FileState::Absent, Mode::FILE, crate::model::Owner::ROOT);
                sandbox.files.insert(path, absent);
            }
            Some(Found {
                shape: Shape::File {
                    content: Some(bytes), ..
                },
                mode,
                owner,
            }) if content != ABSENT => {
                let size = bytes.len() as u64;
                if mode.bits() > 0o777 {
                    left_out.push(format!("the file {path} has mode {mode}, which a spec cannot say"));
                } else if size > *room {
                    left_out.push(format!("the file {path} is too much for this spec: {size} bytes"));
                } else {
                    *room -= size;
                    let content = FileState::Content(Content::inline(bytes.clone()));
                    sandbox.files.insert(path, file(content, *mode, *owner));
                }
            }
            Some(Found {
                shape: Shape::File { size, .. },
                ..
            }) => left_out.push(format!("the file {path} is not as a spec could have it: {size} bytes")),
            Some(_) => left_out.push(format!("what stands at {path} is no file any more")),
            None => left_out.push(format!("the file {path} is gone")),
        }
    }
}

/// What the record tells of trees, set-up steps and the order.
fn recorded(sandbox: &mut Sandbox, record: &Facts, left_out: &mut Vec<String>) {
    for path in record.names(Kind::Tree) {
        let is_entry = |field: &Field| field.kind == Kind::Tree && field.name == path;
        let entries = record
            .iter()
            .filter(|(field, _)| is_entry(field) && ![ROOT, DELETE].contains(&&*field.field));
        left_out.push(format!(
            "the tree {path} has {} entries, whose source is not known",
            entries.count()
        ));
    }
    for step in record.names(Kind::Run) {
        left_out.push(format!("the set-up step {step} has run; what it was is not known"));
    }
    let names = record.get(&Field::sandbox(DEPENDS_ON)).unwrap_or_default();
    let names = names.split(',').filter(|name| !name.is_empty());
    sandbox
        .depends_on
        .extend(names.filter_map(|name| SandboxName::new(name).ok()));
}

/// Makes a whole of instances that were read back: what they refer to and is not among them is left out, and what a plan
/// would still find is accepted by an `ignore` entry. `live` is what they were read from; those of it that nobody owns
/// count as adopted.
#[must_use]
pub fn make_whole(
    mut desired: Desired,
    left_out: &mut impl FnMut(&SandboxName, String),
    live: &Live,
    instances: &[(SandboxName, crate::model::InstanceName)],
    capabilities: &Capabilities,
    now: u64,
) -> Desired {
    cut_references(&mut desired, left_out);
    cut_openings(&mut desired, left_out);
    unite_policies(&mut desired, left_out);
    inherit_users(&mut desired);
    let mut live = live.clone();
    let before = live.clone();
    for (sandbox, name) in instances {
        let adopted = match (desired.sandboxes.get(sandbox), before.instances.get(name)) {
            (Some(sandbox), Some(instance)) => adopt(&desired, sandbox, instance, &live).ok(),
            _ => None,
        };
        if let (Some(Adoption::Labels(labels)), Some(instance)) = (adopted, live.instances.get_mut(name)) {
            instance.labels = labels;
        }
    }
    let options = Options {
        now,
        ..Options::default()
    };
    // What is accepted may hold back something else, which is then found in the next round.
    for _ in 0..4 {
        let Ok(plan) = plan(&desired, &live, capabilities, &options) else {
            break;
        };
        if plan.in_sync() {
            break;
        }
        for change in plan.changes.iter().filter(|change| change.counts()) {
            let Some(sandbox) = desired.sandboxes.get_mut(&change.sandbox) else {
                continue;
            };
            for field in accepted(change) {
                if !sandbox.ignore.iter().any(|known| known.field == field) {
                    sandbox.ignore.push(Ignored {
                        field,
                        until: None,
                        reason: Some("could not be exported".to_owned()),
                        at: Place::nowhere(),
                    });
                }
            }
        }
    }
    desired
}

/// A clone that names no user has its source's, as the language has it.
fn inherit_users(desired: &mut Desired) {
    // As many rounds as a chain of clones may be long.
    for _ in 0..desired.sandboxes.len() {
        let heirs: Vec<(SandboxName, User)> = desired
            .sandboxes
            .values()
            .filter(|sandbox| sandbox.user.is_none())
            .filter_map(|sandbox| {
                let source = desired.sandboxes.get(sandbox.source()?)?;
                Some((sandbox.name.clone(), source.user.clone()?))
            })
            .collect();
        if heirs.is_empty() {
            return;
        }
        for (name, user) in heirs {
            if let Some(sandbox) = desired.sandboxes.get_mut(&name) {
                sandbox.user = Some(user);
            }
        }
    }
}

/// The fields to accept for a change not to be made.
fn accepted(change: &Change) -> Vec<Field> {
    match change.kind {
        Kind::Sandbox => change.fields.iter().map(|field| field.field.clone()).collect(),
        Kind::Snapshot if change.reason == Reason::Stale => {
            vec![Field::of(Kind::Snapshot, change.name.as_str(), "recipe")]
        }
        kind => vec![Field::of(kind, change.name.as_str(), "")],
    }
}

fn cut_references(desired: &mut Desired, left_out: &mut impl FnMut(&SandboxName, String)) {
    let known: BTreeSet<SandboxName> = desired.sandboxes.keys().cloned().collect();
    let taken: BTreeSet<(SandboxName, SnapshotName)> = desired
        .sandboxes
        .values()
        .flat_map(|sandbox| {
            sandbox
                .snapshots
                .iter()
                .map(|(name, _)| (sandbox.name.clone(), name.clone()))
        })
        .collect();
    for sandbox in desired.sandboxes.values_mut() {
        let name = sandbox.name.clone();
        sandbox.depends_on.retain(|other| {
            let is_known = known.contains(other);
            if !is_known {
                left_out(&name, format!("it depends on {other}, which is not in here"));
            }
            is_known
        });
        if let Origin::Clone {
            sandbox: source,
            snapshot,
            ..
        } = &sandbox.origin
        {
            let there = match snapshot {
                Some(snapshot) => taken.contains(&(source.clone(), snapshot.clone())),
                None => known.contains(source),
            };
            if !there {
                let snapshot = snapshot.as_ref().map(|name| format!("@{name}")).unwrap_or_default();
                left_out(
                    &name,
                    format!("it is a clone of {source}{snapshot}, which is not in here; name an image instead"),
                );
                sandbox.origin = image(UNKNOWN_IMAGE);
            }
        }
    }
}
