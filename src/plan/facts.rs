//! The normal form of what is desired and of what is live.

use std::collections::{BTreeMap, BTreeSet};

use super::account::Account;
use super::run_digest::run_digests;
use super::{egress, secret, workspace};
use crate::model::{
    Digest, Entry, Facts, Field, File, FileState, Found, GuestPath, Inspection, InstanceName, Kind, Labels, Live,
    LiveInstance, Mode, Origin, Owner, Power, Sandbox, SandboxName, SecretHashes, Shape, Status, Tree, When,
};

/// Where accounts stand.
pub(super) const PASSWD: &str = "/etc/passwd";

/// What the record says of a file that is not there.
pub const ABSENT: &str = "absent";

/// The field of a tree that is its folder itself. Only that it is one counts: a folder that was there before keeps
/// its mode and owner.
pub(super) const ROOT: &str = "";

/// What a tree's folder is.
pub(super) const FOLDER: &str = "a folder";

/// The field of a file that says that its contents are, or were, secret. It stays in the record, and is never
/// compared.
pub(super) const SECRET: &str = "secret";

/// The field of a tree that says that nothing else lies in it. No entry's path starts with `/`.
pub(super) const DELETE: &str = "/delete";

/// The field of the sandbox that names what it depends on. Recorded for the order of deletes, and never compared.
pub(super) const DEPENDS_ON: &str = "depends-on";

/// What the record says of a seed that has been written.
const WRITTEN: &str = "written";

/// The fields that say what a disk was made from.
const SOURCES: [&str; 2] = ["image", "clone-from"];

/// What an instance without a disk was made from: nothing that a spec can say.
const NO_DISK: &str = "no disk";

/// Whether a field of the sandbox says what its disk was made from.
pub(super) fn is_source(field: &str) -> bool {
    SOURCES.contains(&field)
}

/// What looking into an instance came to.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Look<'a> {
    /// Its files, where they were looked at.
    pub(super) inspection: Option<&'a Inspection>,
    /// Whether nobody could look at them.
    pub(super) unseen: bool,
    /// Whether there is no disk for them to be on.
    pub(super) diskless: bool,
}

impl<'a> Look<'a> {
    /// What is known of an instance.
    pub(super) fn at(name: &InstanceName, live: &'a Live) -> Self {
        Self {
            inspection: live.files.get(name),
            unseen: live.unseen.contains(name),
            diskless: live.diskless.contains(name),
        }
    }
}

/// A field of a file.
pub(super) fn of_file(path: &GuestPath, field: &str) -> Field {
    Field::of(Kind::File, path.as_str(), field)
}

/// An entry of a tree; the tree's own mark when `entry` is empty.
pub(super) fn of_tree(path: &GuestPath, entry: &str) -> Field {
    Field::of(Kind::Tree, path.as_str(), entry)
}

/// Whether a sandbox runs.
pub(super) fn power() -> Field {
    Field::of(Kind::Power, "", "state")
}

/// All that a spec says of a sandbox, field by field.
/// `sources` are the hashes of the caller's secrets, by variable.
pub(super) fn desired(sandbox: &Sandbox, sources: &BTreeMap<String, String>, applied: &Facts) -> Facts {
    let mut facts = Facts::new();
    let mut set = |field: &str, value: Option<String>| {
        if let Some(value) = value {
            facts.set(Field::sandbox(field), value);
        }
    };
    match &sandbox.origin {
        Origin::Image { name, .. } => set("image", Some(name.clone())),
        Origin::Clone { sandbox, snapshot, .. } => {
            let snapshot = snapshot.as_ref().map(|name| format!("@{name}")).unwrap_or_default();
            set("clone-from", Some(format!("{sandbox}{snapshot}")));
        }
    }
    set("cpu", sandbox.cpu.as_ref().map(|(cpu, _)| cpu.to_string()));
    set("memory", sandbox.memory.as_ref().map(|(memory, _)| memory.to_string()));
    set("disk", sandbox.disk.as_ref().map(|(disk, _)| disk.to_string()));
    set("protect", sandbox.protect.as_ref().map(|_| "true".to_owned()));
    set("ttl", sandbox.ttl.as_ref().map(|(ttl, _)| ttl.to_string()));
    let depends_on: Vec<&str> = sandbox.depends_on.iter().map(SandboxName::as_str).collect();
    set(DEPENDS_ON, Some(depends_on.join(",")).filter(|names| !names.is_empty()));
    set(
        "user",
        sandbox.user.as_ref().map(|user| format!("{}:{}", user.name, user.uid)),
    );
    for (name, value) in &sandbox.env {
        set(&format!("env:{name}"), Some(value.clone()));
    }
    for (key, (value, _)) in &sandbox.config {
        set(&format!("config:{key}"), Some(value.clone()));
    }
    sandbox
        .files
        .iter()
        .for_each(|(path, file)| desired_file(&mut facts, path, file, sources, applied));
    sandbox
        .trees
        .iter()
        .for_each(|(path, tree)| desired_tree(&mut facts, path, tree));
    for (run, digest) in sandbox.run.iter().zip(run_digests(sandbox, &facts)) {
        facts.set(Field::of(Kind::Run, run.name.as_str(), "digest"), digest.as_str());
    }
    for (name, _) in &sandbox.snapshots {
        facts.set(Field::of(Kind::Snapshot, name.as_str(), "exists"), "true");
    }
    workspace::desired(&mut facts, sandbox);
    egress::desired(&mut facts, sandbox);
    facts.set(power(), sandbox.state.as_str());
    facts
}

fn desired_file(facts: &mut Facts, path: &GuestPath, file: &File, sources: &BTreeMap<String, String>, applied: &Facts) {
    if file.when == When::Create {
        facts.set(of_file(path, "seed"), WRITTEN);
        return;
    }
    match &file.state {
        FileState::Content(content) => facts.set(of_file(path, "content"), content_value(&content.digest)),
        FileState::Absent => {
            facts.set(of_file(path, "content"), ABSENT);
            return;
        }
        FileState::Secret(variable) => {
            facts.set(
                of_file(path, "content"),
                secret::desired(path, variable, sources, applied),
            );
        }
    }
    facts.set(of_file(path, "mode"), file.mode.to_string());
    facts.set(of_file(path, "owner"), file.owner.to_string());
}

fn desired_tree(facts: &mut Facts, path: &GuestPath, tree: &Tree) {
    facts.set(of_tree(path, ROOT), FOLDER);
    if tree.delete {
        facts.set(of_tree(path, DELETE), "true");
    }
    for (entry, what) in &tree.entries {
        let value = match what {
            Entry::File { content, mode } => entry_file(*mode, tree.owner, &content.digest),
            Entry::Directory => entry_directory(Mode::DIRECTORY, tree.owner),
            Entry::Symlink(target) => entry_symlink(target),
        };
        facts.set(of_tree(path, entry), value);
    }
}

fn content_value(digest: &Digest) -> String {
    format!("sha256:{digest}")
}

/// A tree's records can be many, so a content stands in them by 96 bits of its digest.
fn entry_file(mode: Mode, owner: Owner, digest: &Digest) -> String {
    format!("file {mode} {owner} {}", digest.as_str().get(..24).unwrap_or_default())
}

fn entry_directory(mode: Mode, owner: Owner) -> String {
    format!("directory {mode} {owner}")
}

/// Whether an entry of a tree is a folder.
pub(super) fn is_folder(value: Option<&str>) -> bool {
    value.is_some_and(|value| value.starts_with("directory "))
}

/// Whether an entry of a tree is anything but a folder; what is to go is nothing.
pub(super) fn is_other(value: Option<&str>) -> bool {
    value.is_some_and(|value| value != ABSENT && !is_folder(Some(value)))
}

fn entry_symlink(target: &str) -> String {
    format!("link to {target}")
}

/// All that the live system says about the fields that a spec declares or declared.
pub(super) fn live(
    instance: &LiveInstance,
    look: Look<'_>,
    (hashes, secret_paths): (&SecretHashes, &BTreeSet<GuestPath>),
    desired: &Facts,
    applied: &Facts,
) -> Facts {
    let mut facts = Facts::new();
    // What a disk was made from cannot be read back: the record is the live state, as it is of set-up steps
    // and seeds.
    for (field, value) in applied.iter() {
        let recorded = match field.kind {
            Kind::Run => true,
            Kind::Sandbox => is_source(&field.field),
            Kind::File => field.field == "seed",
            Kind::Tree => field.field == DELETE,
            _ => false,
        };
        if recorded {
            facts.set(field.clone(), value);
        }
    }
    // Without a record of where a disk came from, as after an adoption, it came from where it should.
    let sources = SOURCES.map(Field::sandbox);
    let known = sources.iter().any(|field| applied.get(field).is_some());
    for field in sources
        .into_iter()
        .filter(|_| !known)
        .chain([Field::sandbox(DEPENDS_ON)])
    {
        if let Some(value) = desired.get(&field) {
            facts.set(field, value);
        }
    }
    if look.diskless {
        for field in SOURCES.map(Field::sandbox) {
            if facts.get(&field).is_some() {
                facts.set(field, NO_DISK);
            }
        }
    }
    let mut set = |field: String, value: Option<&String>| {
        if let Some(value) = value {
            facts.set(Field::sandbox(field), value.clone());
        }
    };
    set("cpu".to_owned(), instance.cpu.as_ref());
    set("memory".to_owned(), instance.memory.as_ref());
    set("disk".to_owned(), instance.disk.as_ref());
    instance
        .env
        .iter()
        .for_each(|(name, value)| set(format!("env:{name}"), Some(value)));
    instance
        .config
        .iter()
        .for_each(|(key, value)| set(format!("config:{key}"), Some(value)));
    set("protect".to_owned(), instance.labels.0.get(Labels::PROTECT));
    set("ttl".to_owned(), instance.labels.0.get(Labels::TTL));
    workspace::live(&mut facts, instance);
    egress::live(&mut facts, instance, desired, applied);
    facts.set(power(), status(instance.status));
    for label in instance.snapshots.keys() {
        facts.set(Field::of(Kind::Snapshot, label.as_str(), "exists"), "true");
    }
    if let Some(inspection) = look.inspection {
        live_user(&mut facts, inspection, desired, applied);
        let hashes = hashes.files.get(&instance.name);
        live_files(&mut facts, inspection, (hashes, secret_paths), desired, applied);
        live_trees(&mut facts, inspection, secret_paths, desired, applied);
    } else if look.unseen {
        let of_disk = |field: &Field| match field.kind {
            Kind::File | Kind::Tree => true,
            Kind::Sandbox => field.field == "user",
            _ => false,
        };
        for (field, value) in applied.iter().filter(|(field, _)| of_disk(field)) {
            facts.set(field.clone(), value);
        }
    }
    facts
}

fn status(status: Status) -> &'static str {
    match status {
        Status::Running => Power::Running.as_str(),
        Status::Stopped => Power::Stopped.as_str(),
        Status::Frozen | Status::Other => status.as_str(),
    }
}

fn live_user(facts: &mut Facts, inspection: &Inspection, desired: &Facts, applied: &Facts) {
    let field = Field::sandbox("user");
    let Some(wanted) = desired.get(&field).or_else(|| applied.get(&field)) else {
        return;
    };
    let name = wanted.split(':').next().unwrap_or_default();
    let passwd = inspection.get(&GuestPath::trusted(PASSWD.to_owned()));
    if let Some(Found {
        shape: Shape::File {
            content: Some(bytes), ..
        },
        ..
    }) = passwd
        && let Some(account) = Account::read(bytes).find(|account| account.name == name)
    {
        facts.set(field, format!("{}:{}", account.name, account.owner.uid));
    }
}

fn live_files(
    facts: &mut Facts,
    inspection: &Inspection,
    (hashes, secret_paths): (Option<&BTreeMap<GuestPath, String>>, &BTreeSet<GuestPath>),
    desired: &Facts,
    applied: &Facts,
) {
    for path in paths(desired, applied, Kind::File) {
        let found = inspection.get(&path).filter(|_| is_reached(&path, inspection));
        let value = found.map_or_else(
            || ABSENT.to_owned(),
            |found| {
                let plain = content_or_kind(found);
                let hash = hashes.and_then(|hashes| hashes.get(&path));
                if secret_paths.contains(&path) {
                    secret::live(&path, found, plain, hash, applied)
                } else {
                    plain
                }
            },
        );
        facts.set(of_file(&path, "content"), value);
        if let Some(Found {
            shape: Shape::File { .. },
            mode,
            owner,
        }) = found
        {
            facts.set(of_file(&path, "mode"), mode.to_string());
            facts.set(of_file(&path, "owner"), owner.to_string());
        }
    }
}

/// A file's content, or what stands there instead.
fn content_or_kind(found: &Found) -> String {
    match &found.shape {
        Shape::File {
            digest: Some(digest), ..
        } => content_value(digest),
        Shape::File { size, .. } => format!("a file of {size} bytes"),
        Shape::Directory => FOLDER.to_owned(),
        Shape::Symlink(target) => format!("a link to {target}"),
        Shape::Special => "a special file".to_owned(),
    }
}

/// Whether a path leads through folders only, as far as they were looked at. What a link in a declared folder's
/// place leads to does not count as there: the link goes when the folder is put back.
fn is_reached(path: &GuestPath, inspection: &Inspection) -> bool {
    let mut next = path.parent();
    while let Some(folder) = next {
        if inspection
            .get(&folder)
            .is_some_and(|found| found.shape != Shape::Directory)
        {
            return false;
        }
        next = folder.parent();
    }
    true
}

fn live_trees(
    facts: &mut Facts,
    inspection: &Inspection,
    secret_paths: &BTreeSet<GuestPath>,
    desired: &Facts,
    applied: &Facts,
) {
    let roots: BTreeSet<GuestPath> = paths(desired, applied, Kind::Tree).collect();
    for root in &roots {
        if let Some(found) = inspection.get(root).filter(|_| is_reached(root, inspection)) {
            facts.set(of_tree(root, ROOT), content_or_kind(found));
        }
    }
    for (path, found) in &inspection.0 {
        if !is_reached(path, inspection) {
            continue;
        }
        let Some((root, entry)) = roots.iter().rev().find_map(|root| Some((root, path.below(root)?))) else {
            continue;
        };
        let value = match &found.shape {
            Shape::File {
                digest: Some(digest), ..
            } => {
                let value = entry_file(found.mode, found.owner, digest);
                let field = of_tree(root, entry);
                let known = [desired, applied]
                    .iter()
                    .any(|facts| facts.get(&field) == Some(&*value));
                if known || !secret_paths.contains(path) {
                    value
                } else {
                    format!("file {} {} a secret", found.mode, found.owner)
                }
            }
            Shape::File { size, .. } => format!("file {} {} of {size} bytes", found.mode, found.owner),
            Shape::Directory => entry_directory(found.mode, found.owner),
            Shape::Symlink(target) => entry_symlink(target),
            Shape::Special => "a special file".to_owned(),
        };
        facts.set(of_tree(root, entry), value);
    }
}

/// The paths of the files or trees that are declared, or were when last applied. A record that no longer reads
/// as a path is passed over.
pub(super) fn paths<'a>(desired: &'a Facts, applied: &'a Facts, kind: Kind) -> impl Iterator<Item = GuestPath> {
    let mut names: Vec<&str> = desired.names(kind).chain(applied.names(kind)).collect();
    names.sort_unstable();
    names.dedup();
    names.into_iter().filter_map(|name| GuestPath::new(name).ok())
}
