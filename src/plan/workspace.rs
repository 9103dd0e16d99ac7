//! Mounts, volumes and ports: their facts, what stands in their way, and what is attached.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::diff::{Diff, Fate, Subject};
use super::spec_files::paths;
use super::{Action, Change, Notice, Refusal};
use crate::model::{
    Attach, AttachedMount, AttachedVolume, Bytes, Capability, Desired, Facts, Field, GuestPath, GuestPort, HotPlug,
    Kind, Labels, Live, LiveInstance, Mount, Owner, Port, Protocol, Sandbox, SandboxName, Status, VolumeKey,
};

const SOURCE: &str = "source";
const READONLY: &str = "readonly";
const GUARDED: &str = "guarded";
const PATH: &str = "path";
const SIZE: &str = "size";
const HOST: &str = "host";

/// Whether fields of this kind are about what is attached.
pub(super) fn is(kind: Kind) -> bool {
    matches!(kind, Kind::Mount | Kind::Volume | Kind::Port)
}

/// What a spec says of them.
pub(super) fn desired(facts: &mut Facts, sandbox: &Sandbox) {
    for (path, mount) in &sandbox.mounts {
        set_mount(facts, path, &wanted(mount));
    }
    for (name, volume) in &sandbox.volumes {
        facts.set(Field::of(Kind::Volume, name.as_str(), PATH), volume.path.as_str());
        if let Some((size, _)) = &volume.size {
            facts.set(size_of(name), size.to_string());
        }
    }
    for port in &sandbox.ports {
        let field = Field::of(Kind::Port, port.guest.to_string(), HOST);
        facts.set(field, port.host.to_string());
    }
}

/// What is attached.
pub(super) fn live(facts: &mut Facts, instance: &LiveInstance) {
    let found = &instance.workspace;
    for (path, mount) in &found.mounts {
        set_mount(facts, path, mount);
    }
    for (name, path) in &found.volumes {
        facts.set(Field::of(Kind::Volume, name.as_str(), PATH), path.as_str());
    }
    for (name, size) in &found.volume_sizes {
        facts.set(size_of(name), size.as_str());
    }
    for (guest, host) in &found.ports {
        facts.set(Field::of(Kind::Port, guest.to_string(), HOST), host.as_str());
    }
}

fn set_mount(facts: &mut Facts, path: &GuestPath, mount: &AttachedMount) {
    let field = |field| Field::of(Kind::Mount, path.as_str(), field);
    facts.set(field(SOURCE), mount.source.as_str());
    facts.set(field(READONLY), mount.readonly.to_string());
    if !mount.guarded.is_empty() {
        let paths: Vec<&str> = mount.guarded.iter().map(String::as_str).collect();
        facts.set(field(GUARDED), paths.join(","));
    }
}

fn wanted(mount: &Mount) -> AttachedMount {
    AttachedMount {
        source: mount.source.to_string_lossy().into_owned(),
        readonly: mount.readonly,
        guarded: mount.guarded.clone(),
    }
}

/// How much a volume may hold.
fn size_of(name: &str) -> Field {
    Field::of(Kind::Volume, name, SIZE)
}

/// Whether a field is the size of a volume that the spec still has.
pub(super) fn is_size(sandbox: &Sandbox, field: &Field) -> bool {
    field.kind == Kind::Volume && field.field == SIZE && sandbox.volumes.contains_key(&field.name)
}

/// Whether the spec has it.
pub(super) fn is_declared(sandbox: &Sandbox, kind: Kind, name: &str) -> bool {
    match kind {
        Kind::Mount => sandbox.mounts.keys().any(|path| path.as_str() == name),
        Kind::Volume => sandbox.volumes.contains_key(name),
        Kind::Port => sandbox.ports.iter().any(|port| port.guest.to_string() == name),
        _ => false,
    }
}

/// What is done about one of them in a sandbox that stays.
pub(super) fn action(subject: &Subject<'_>, instance: &LiveInstance, kind: Kind, name: &str) -> Action {
    let found = &instance.workspace;
    let there = match kind {
        Kind::Mount => found.mounts.keys().any(|path| path.as_str() == name),
        Kind::Volume => found.volumes.contains_key(name),
        _ => found.ports.keys().any(|guest| guest.to_string() == name),
    };
    match (is_declared(subject.sandbox, kind, name), there) {
        (false, _) => Action::Delete,
        (true, true) => Action::Update,
        (true, false) => Action::Create,
    }
}

/// Whether a running sandbox is restarted for it.
pub(super) fn restarts(subject: &Subject<'_>, instance: &LiveInstance, kind: Kind, name: &str) -> bool {
    let HotPlug {
        mounts,
        readonly_mounts,
        volumes,
        ports,
    } = subject.capabilities.hot_plug;
    let sandbox = subject.sandbox;
    let found = &instance.workspace;
    let live = match kind {
        Kind::Mount => {
            let wanted = sandbox.mounts.iter().find(|(path, _)| path.as_str() == name);
            let attached = found.mounts.iter().find(|(path, _)| path.as_str() == name);
            // A process could open what is to be guarded before it is; and what is guarded is not uncovered while it runs.
            let closed = wanted.is_some_and(|(_, mount)| mount.readonly || !mount.guarded.is_empty())
                || attached.is_some_and(|(_, mount)| !mount.guarded.is_empty());
            // Who can write to a folder could put a link in the place of something in it, while it runs.
            let narrowed = wanted.is_some_and(|(_, mount)| {
                let mut writable = found.mounts.values().filter(|mount| !mount.readonly);
                writable.any(|outer| {
                    let outer = Path::new(&outer.source);
                    mount.source != outer && mount.source.starts_with(outer)
                })
            });
            if closed || narrowed { readonly_mounts } else { mounts }
        }
        Kind::Volume => volumes,
        _ => ports,
    };
    // What lies over something else is not put there or taken away while it runs.
    let paths = match kind {
        Kind::Mount => vec![name],
        Kind::Volume => {
            let wanted = sandbox.volumes.get(name).map(|volume| volume.path.as_str());
            wanted
                .into_iter()
                .chain(found.volumes.get(name).map(String::as_str))
                .collect()
        }
        _ => Vec::new(),
    };
    let covers = |path: &&str| {
        let mut outer = sandbox.mounts.keys().chain(found.mounts.keys());
        GuestPath::new(*path).is_ok_and(|path| outer.any(|outer| path.below(outer).is_some()))
    };
    let live = live && (readonly_mounts || !paths.iter().any(covers));
    !live && instance.status != Status::Stopped
}

/// Whether a running sandbox is restarted for any of the changes, those that lose a volume too.
pub(super) fn any_restarts(subject: &Subject<'_>, diff: &Diff) -> bool {
    let changes = diff.changes.iter().filter(|change| is(change.kind));
    subject.instance.is_some_and(|instance| {
        let mut restarts = changes.map(|change| restarts(subject, instance, change.kind, &change.name));
        restarts.any(|restarts| restarts)
    })
}

/// What has to be attached and taken away when these changes are carried out: each object as the spec wants it, but for
/// those of which anything is accepted as it is.
pub(super) fn attach(subject: &Subject<'_>, diff: &Diff) -> Attach {
    let mut attach = Attach::default();
    let sandbox = subject.sandbox;
    let owner = sandbox.user.as_ref().map_or(Owner::ROOT, |user| user.owner());
    for change in diff.changes.iter().filter(|change| is(change.kind)) {
        match change.kind {
            Kind::Mount => {
                let Ok(path) = GuestPath::new(change.name.as_str()) else {
                    continue;
                };
                let mount = sandbox.mounts.get(&path).map(|mount| kept(diff, change, wanted(mount)));
                attach.mounts.insert(path, mount);
            }
            Kind::Volume => {
                let sized = !diff
                    .accepted
                    .iter()
                    .any(|accepted| accepted.field == size_of(&change.name));
                let volume = sandbox.volumes.get(&change.name).map(|volume| AttachedVolume {
                    path: volume.path.clone(),
                    owner,
                    size: volume.size.as_ref().filter(|_| sized).map(|(size, _)| *size),
                });
                attach.volumes.insert(change.name.clone(), volume);
            }
            _ => {
                let Ok(guest) = change.name.parse::<GuestPort>() else {
                    continue;
                };
                let port = sandbox.ports.iter().find(|port| port.guest == guest);
                attach.ports.insert(guest, port.map(|port| port.host));
            }
        }
    }
    attach
}

/// A mount with the live values of what is accepted.
fn kept(diff: &Diff, change: &Change, mut mount: AttachedMount) -> AttachedMount {
    for accepted in &diff.accepted {
        let field = &accepted.field;
        if field.kind != Kind::Mount || field.name != change.name {
            continue;
        }
        let before = accepted.before.clone();
        match field.field.as_str() {
            SOURCE => mount.source = before.unwrap_or(mount.source),
            READONLY => mount.readonly = before.as_deref() == Some("true"),
            _ => {
                mount.guarded = before
                    .iter()
                    .flat_map(|all| all.split(','))
                    .map(str::to_owned)
                    .collect();
            }
        }
    }
    mount
}

/// What becomes true when they are attached.
pub(super) fn facts(diff: &Diff) -> Vec<(Field, Option<String>)> {
    let changes = diff.changes.iter().filter(|change| is(change.kind));
    let names: BTreeSet<(Kind, &str)> = changes.map(|change| (change.kind, change.name.as_str())).collect();
    let accepted = |field: &Field| diff.accepted.iter().any(|change| change.field == *field);
    Facts::side_by_side([&diff.desired, &diff.applied])
        .filter(|(field, _)| names.contains(&(field.kind, field.name.as_str())) && !accepted(field))
        .map(|(field, [wanted, _])| (field.clone(), wanted.map(str::to_owned)))
        .collect()
}

/// The volumes of a sandbox that go for good: those that left the spec, with `--prune`.
pub(super) fn pruned<'a>(subject: &Subject<'a>, live: &'a Live) -> impl Iterator<Item = &'a VolumeKey> {
    let sandbox = subject.sandbox;
    let prune = subject.prune;
    let left = move |key: &&VolumeKey| prune && key.sandbox == sandbox.name && !sandbox.volumes.contains_key(&key.name);
    live.volumes.keys().filter(left)
}

/// What must not be done, and what cannot be.
pub(super) fn refusals(subject: &Subject<'_>, diff: &Diff, live: &Live) -> Vec<Refusal> {
    let sandbox = subject.sandbox;
    let mut refusals = Vec::new();
    for mount in sandbox.mounts.values().filter(|_| !subject.capabilities.guards_folders) {
        let Some(deep) = mount.guarded.iter().find(|path| path.contains('/')) else {
            continue;
        };
        refusals.push(Refusal::invalid(
            "plan::unguarded-spec",
            format!("the spec's own file {deep} could be put aside from inside, with the folder that it lies in"),
            &mount.at,
            "can be written to",
            "put it right into what is mounted, mount a folder without it, or say `readonly=true`".to_owned(),
        ));
    }
    refusals.extend(shrinking(subject, diff, live));
    refusals.extend(occupied(subject, diff));
    for mount in sandbox.mounts.values() {
        let Some(own) = subject.capabilities.own_path_in(&mount.source) else {
            continue;
        };
        refusals.push(Refusal::invalid(
            "plan::own-path",
            format!(
                "a sandbox would get at {}, and whoever does can have `{}` do anything on this machine",
                own.display(),
                subject.capabilities.backend
            ),
            &mount.at,
            "what is mounted here holds it, or lies in it",
            "mount a folder without it, or keep it elsewhere (the state folder is where `SBX_LOCAL_STATE` says)"
                .to_owned(),
        ));
    }
    // What is not done is in nobody's way.
    let starts = diff
        .changes
        .iter()
        .any(|change| change.kind == Kind::Power && change.action == Action::Start);
    let opens = |port: &&Port| {
        let name = port.guest.to_string();
        let changed = |change: &Change| change.kind == Kind::Port && change.name == name;
        starts || diff.changes.iter().any(changed)
    };
    for port in new_ports(sandbox, subject.instance.filter(|_| diff.fate == Fate::Keep)).filter(opens) {
        let Some(why) = live.taken_ports.get(&(port.host, port.guest.protocol)) else {
            continue;
        };
        refusals.push(Refusal::invalid(
            "plan::taken-port",
            format!("port {} of this machine {why}", port.host),
            &port.at,
            "needed here",
            match why.starts_with("is taken") {
                true => "choose another one with `host`, or end what listens there".to_owned(),
                false => "choose another one with `host`".to_owned(),
            },
        ));
    }
    let protected = subject
        .instance
        .is_some_and(|instance| instance.labels.is_true(Labels::PROTECT));
    if (protected || sandbox.protect.is_some())
        && let Some(key) = pruned(subject, live).next()
    {
        refusals.push(Refusal::refused(
            "plan::protected",
            format!("`{}` is protected, and its volume {} would go", sandbox.name, key.name),
            sandbox.protect.as_ref().unwrap_or(&sandbox.at),
            "its disk is guarded",
            "leave `--prune` out, or apply once with `protect false`".to_owned(),
        ));
    }
    refusals
}

/// Whether what is mounted there is attached as we do it.
pub(super) fn is_ours(instance: &LiveInstance, path: &GuestPath) -> bool {
    let found = &instance.workspace;
    let mut mounts = found.mounts.iter();
    let mut volumes = found.volumes.values();
    mounts.any(|(at, mount)| at == path || path.below(at).is_some_and(|below| mount.guarded.contains(below)))
        || volumes.any(|text| paths(text).any(|volume| volume == path.as_str()))
}

/// Places where hands have mounted something else, which is theirs.
fn occupied(subject: &Subject<'_>, diff: &Diff) -> Vec<Refusal> {
    let Some(instance) = subject.instance.filter(|_| diff.fate == Fate::Keep) else {
        return Vec::new();
    };
    let sandbox = subject.sandbox;
    let is_new = |kind: Kind, name: &str| {
        let created = |change: &Change| change.kind == kind && change.name == name && change.action == Action::Create;
        diff.changes.iter().any(created) && !diff.applied.names(kind).any(|applied| applied == name)
    };
    let mounts = sandbox.mounts.iter();
    let mounts = mounts.filter(|(path, _)| is_new(Kind::Mount, path.as_str()));
    let volumes = sandbox.volumes.iter().filter(|(name, _)| is_new(Kind::Volume, name));
    let wanted = mounts
        .map(|(path, mount)| (path, &mount.at))
        .chain(volumes.map(|(_, volume)| (&volume.path, &volume.at)));
    let occupied = wanted.filter(|(path, _)| instance.mounted.contains(*path) && !is_ours(instance, path));
    let refused = occupied.map(|(path, at)| {
        Refusal::invalid(
            "plan::mounted",
            format!(
                "something that is not ours is mounted at `{path}` in `{}`",
                sandbox.name
            ),
            at,
            "to be mounted there",
            "detach that first, or choose another path".to_owned(),
        )
    });
    refused.collect()
}

/// Volumes that hold more than they are to hold, whatever became of their sandbox.
fn shrinking(subject: &Subject<'_>, diff: &Diff, live: &Live) -> Vec<Refusal> {
    let sandbox = subject.sandbox;
    let accepted = |name: &str| diff.accepted.iter().any(|change| change.field == size_of(name));
    let there = live
        .volumes
        .iter()
        .filter(|(key, _)| key.sandbox == sandbox.name && !accepted(&key.name));
    let shrinks = there.filter_map(|(key, size)| {
        let (wanted, at) = sandbox.volumes.get(&key.name)?.size.as_ref()?;
        let size: Bytes = size.as_ref()?.parse().ok()?;
        (*wanted < size).then(|| {
            Refusal::invalid(
                "plan::volume-shrinks",
                format!(
                    "the volume {} of `{}` has {size}, and cannot shrink to {wanted}",
                    key.name, sandbox.name
                ),
                at,
                "smaller than it is",
                format!("say `size=\"{size}\"`, or give the volume another name"),
            )
        })
    });
    shrinks.collect()
}

/// The ports of a sandbox that are not open yet, or are while nothing of it runs.
fn new_ports<'a>(sandbox: &'a Sandbox, instance: Option<&'a LiveInstance>) -> impl Iterator<Item = &'a Port> {
    let is_open = move |port: &Port| {
        instance.is_some_and(|instance| {
            let found = instance.workspace.ports.get(&port.guest);
            instance.status == Status::Running && found == Some(&port.host.to_string())
        })
    };
    sandbox.ports.iter().filter(move |port| !is_open(port))
}

/// The ports of the host that have to be free: those that sandboxes want and no instance of the environment has.
#[must_use]
pub fn wanted_ports<'a>(
    sandboxes: impl Iterator<Item = &'a Sandbox>,
    instances: &BTreeMap<crate::model::InstanceName, LiveInstance>,
) -> BTreeSet<(u16, Protocol)> {
    let running = instances.values().filter(|instance| instance.status == Status::Running);
    let held: BTreeSet<(u16, Protocol)> = running
        .flat_map(|instance| &instance.workspace.listening)
        .copied()
        .collect();
    let wanted = sandboxes.flat_map(|sandbox| &sandbox.ports);
    wanted
        .map(|port| (port.host, port.guest.protocol))
        .filter(|port| !held.contains(port))
        .collect()
}

/// What is worth knowing of what is about to be attached: what a guest could do with it.
pub(super) fn notices(subject: &Subject<'_>, changes: &[Change]) -> Vec<String> {
    let mut notices = Vec::new();
    let attached = |kind: Kind| {
        let changes = changes.iter();
        changes.filter(move |change| change.kind == kind && change.action != Action::Delete)
    };
    let sandbox = subject.sandbox;
    for change in attached(Kind::Mount) {
        let Some((path, mount)) = sandbox.mounts.iter().find(|(path, _)| path.as_str() == change.name) else {
            continue;
        };
        for what in &mount.exposed {
            let why = match what.ends_with(".git") {
                true => "hooks in it are programs that git runs on this machine",
                false => "what is in it is run or trusted on this machine",
            };
            notices.push(format!("mount {path}: the sandbox can write to {what}, and {why}"));
        }
        if mount.is_file {
            notices.push(format!(
                "mount {path}: a file that is saved by a renaming, as many editors do, stays in the sandbox as it was, until \
                 the next start; a folder's files do not"
            ));
        }
        let user = sandbox.user.as_ref().map_or(0, |user| user.uid);
        if !mount.readonly && user != 0 && user != mount.owner {
            let help = match mount.owner {
                0 => format!("`chown -R {user}` of the source makes them one"),
                owner => format!("`uid={owner}` makes them one"),
            };
            notices.push(format!(
                "mount {path}: it belongs to the user {} of this machine, and the sandbox's user is {user}, \
                 so they may not be able to write to each other's files; {help}",
                mount.owner
            ));
        }
    }
    for (capability, text) in &subject.capabilities.workspace_remarks {
        let about = match capability {
            Capability::Volumes => attached(Kind::Volume).next().is_some(),
            Capability::Ports => attached(Kind::Port).next().is_some(),
            _ => attached(Kind::Mount).any(|change| guarded(sandbox, &change.name)),
        };
        if about {
            notices.push(text.clone());
        }
    }
    notices
}

/// Whose files, trees and set-up steps are about to come from where another sandbox can write.
pub(super) fn fed(changes: &[Change], desired: &Desired) -> Vec<Notice> {
    // There may be thousands of sandboxes, and few folders.
    let mut writers: BTreeMap<&Path, Vec<&SandboxName>> = BTreeMap::new();
    for sandbox in desired.sandboxes.values() {
        for mount in sandbox.mounts.values().filter(|mount| !mount.readonly) {
            writers.entry(&mount.source).or_default().push(&sandbox.name);
        }
    }
    let mut notices: Vec<Notice> = Vec::new();
    let mut said = BTreeSet::new();
    for change in changes.iter().filter(|change| change.action != Action::Delete) {
        let Some(sandbox) = desired.sandboxes.get(&change.sandbox) else {
            continue;
        };
        let Some(from) = sandbox.sources.get(&(change.kind, change.name.clone())) else {
            continue;
        };
        // Said once for all of a count.
        if said.contains(&from.at) {
            continue;
        }
        let near = |folder: &Path| from.path.starts_with(folder) || folder.starts_with(&from.path);
        let able: BTreeSet<&SandboxName> = writers
            .iter()
            .filter(|(folder, _)| near(folder))
            .flat_map(|(_, names)| names)
            .copied()
            .filter(|name| **name != sandbox.name)
            .collect();
        let Some(writer) = able.first() else { continue };
        let others = match able.len() - 1 {
            0 => String::new(),
            others => format!(" and {others} more"),
        };
        said.insert(from.at.clone());
        let what = match change.kind {
            Kind::Run => "runs in the set-up step",
            _ => "is put at",
        };
        notices.push(Notice {
            sandbox: sandbox.name.clone(),
            text: format!(
                "`{writer}`{others} can change what {what} {} ({}:{}): it comes from a folder that is mounted there to be \
                 written to",
                change.name, from.at.file, from.at.line
            ),
        });
    }
    notices
}

fn guarded(sandbox: &Sandbox, path: &str) -> bool {
    let mut mounts = sandbox.mounts.iter();
    mounts.any(|(at, mount)| at.as_str() == path && !mount.guarded.is_empty())
}
