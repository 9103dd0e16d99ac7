//! Changes of one sandbox → its steps, in their order: create or clone → settings → user → files → start →
//! ready → set-up steps → final power state → snapshots → the record.

use super::diff::{Diff, Fate, Subject};
use super::facts::{self, ABSENT};
use super::held::{keeping_accepted, stays_for_later};
use super::{Action, Change, Impact, Op, Reason, SecretFile, Step, StepId};
use super::{egress, workspace};
use crate::model::{
    Attach, Capability, Changes, CreateOpts, Enforcement, Entry, EnvironmentName, Facts, Field, File, FileChange,
    FileState, GuestPath, Kind, Labels, Live, Mode, Origin, Power, Run, Sandbox, SandboxName, Status, Tree, When,
};

/// What lowering one sandbox needs to know of the others.
pub(super) struct Surroundings<'a> {
    pub(super) environment: &'a EnvironmentName,
    /// The instance that a sandbox has or will have.
    pub(super) instance_of: &'a (dyn Fn(&SandboxName) -> crate::model::InstanceName + Sync),
}

/// What becomes true with a step: fields and their new values, none where a field is no more.
type NewFacts = Vec<(Field, Option<String>)>;

/// The steps of one sandbox in the making.
struct Lowering<'a> {
    subject: &'a Subject<'a>,
    steps: Vec<Step>,
}

/// The name of a step.
pub(super) fn id(sandbox: &SandboxName, op: &Op) -> StepId {
    StepId(match op {
        Op::Run(run) => format!("{sandbox}/run:{}", run.name),
        Op::Snapshot(name) => format!("{sandbox}/snapshot:{name}"),
        Op::DeleteVolume(key) => format!("{sandbox}/delete-volume:{}", key.name),
        Op::DeleteSnapshot(name) => format!("{sandbox}/delete-snapshot:{name}"),
        op => format!("{sandbox}/{}", op.as_str()),
    })
}

impl Lowering<'_> {
    /// Adds a step after all the others.
    fn push(&mut self, op: Op, title: impl Into<String>, facts: NewFacts) -> &mut Step {
        let needs: Vec<StepId> = self.steps.last().map(|step| step.id.clone()).into_iter().collect();
        let sandbox = self.subject.sandbox.name.clone();
        let mut step = Step {
            id: id(&sandbox, &op),
            sandbox,
            instance: self.subject.name.clone(),
            op,
            title: title.into(),
            needs,
            facts,
        };
        // A restart stops twice only if the final state is stopped; the two are told apart by their place.
        if self.steps.iter().any(|other| other.id == step.id) {
            step.id = StepId(format!("{}:last", step.id));
        }
        let index = self.steps.len();
        self.steps.push(step);
        &mut self.steps[index]
    }
}

/// The steps of one sandbox. Needs on other sandboxes name steps that may not be in the plan; they then count
/// as met.
pub(super) fn lower(subject: &Subject<'_>, diff: &Diff, around: &Surroundings<'_>, live: &Live) -> Vec<Step> {
    let sandbox = subject.sandbox;
    let mut lowering = Lowering {
        subject,
        steps: Vec::new(),
    };
    let made = diff.fate != Fate::Keep;
    let mut running = !made
        && subject
            .instance
            .is_some_and(|instance| instance.status == Status::Running);
    let mut stopped = made
        || subject
            .instance
            .is_some_and(|instance| instance.status == Status::Stopped);

    if diff.fate == Fate::Replace {
        lowering.push(Op::Delete, "delete", Vec::new());
    }
    if made {
        make(&mut lowering, diff, around);
    } else {
        let restart = |kind| of_kind(diff, kind).any(|change| change.impact == Impact::Restart);
        let why = match (restart(Kind::Sandbox), restart(Kind::Egress)) {
            (true, _) => Some("stop, for settings that take hold with a start"),
            (_, true) => Some("stop, to put it on another network"),
            _ if workspace::any_restarts(subject, diff) => Some("stop, to attach what takes hold with a start"),
            _ => None,
        };
        if let Some(why) = why.filter(|_| !stopped) {
            lowering.push(Op::Stop, why, power_is(Power::Stopped));
            (running, stopped) = (false, true);
        }
        if let Some(change) = of_kind(diff, Kind::Sandbox).find(|change| change.counts()) {
            configure(&mut lowering, change);
        }
    }
    // Where files are reached in running sandboxes only, it has to run before the first of them is written.
    let early = !running
        && !subject.capabilities.can(Capability::FilesWhenStopped)
        && (touches_disk(sandbox, diff, made) || touches_rules_inside(subject, diff, around.environment));
    // It runs open until then, so that nothing else comes first but what the rules themselves need.
    let at_once = early && !egress::brings_program(sandbox);
    if early {
        let waits = sandbox
            .depends_on
            .iter()
            .map(|name| id(name, &Op::Record))
            .collect::<Vec<_>>();
        let start = lowering.push(Op::Start, "start, to reach its files", power_is(Power::Running));
        start.needs.extend(waits);
        (running, stopped) = (true, false);
        if at_once {
            policy(&mut lowering, diff, around.environment);
        }
        if !made && of_kind(diff, Kind::Egress).next().is_none() {
            loaded(&mut lowering, diff, around.environment);
        }
    }
    if let Some(user) = &sandbox.user
        && (made || changes_user(diff))
    {
        let facts = vec![(
            Field::sandbox("user"),
            diff.desired.get(&Field::sandbox("user")).map(str::to_owned),
        )];
        lowering.push(
            Op::Account(user.clone()),
            format!("make the user {} when there is none", user.name),
            facts,
        );
    }
    files(&mut lowering, diff, made);
    attachments(&mut lowering, diff, live);
    if !at_once {
        policy(&mut lowering, diff, around.environment);
    }

    let runs: Vec<(&Run, &Change)> = of_kind(diff, Kind::Run)
        .filter_map(|change| {
            let run = sandbox.run.iter().find(|run| run.name.as_str() == change.name)?;
            Some((run, change))
        })
        .collect();
    // What is accepted as it is, is left as it is.
    let power_accepted = diff.accepted.iter().any(|field| field.field.kind == Kind::Power);
    let was_up = !made
        && subject
            .instance
            .is_some_and(|instance| instance.status != Status::Stopped);
    let wants_up = sandbox.state == Power::Running && (!power_accepted || was_up);
    let from = lowering.steps.len();
    let starts = !running && (wants_up || !runs.is_empty());
    if starts {
        lowering.push(Op::Start, "start", power_is(Power::Running));
        (running, stopped) = (true, false);
        loaded(&mut lowering, diff, around.environment);
    }
    // Readiness that was waited for in vain is waited for again.
    let unproven = starts || early || (running && !diff.complete);
    if (unproven && sandbox.ready.is_some()) || !runs.is_empty() {
        lowering.push(Op::Ready(sandbox.ready.clone()), "wait until it is ready", Vec::new());
    }
    for (run, change) in runs {
        let fact = Field::of(Kind::Run, run.name.as_str(), "digest");
        let digest = change.fields.iter().find_map(|field| field.after.clone());
        lowering.push(Op::Run(run.clone()), format!("run {}", run.name), vec![(fact, digest)]);
    }
    if let Some(first) = lowering.steps.get_mut(from) {
        first
            .needs
            .extend(sandbox.depends_on.iter().map(|name| id(name, &Op::Record)));
    }
    let wants_stop = sandbox.state == Power::Stopped && !power_accepted;
    if wants_stop && (running || !stopped) {
        lowering.push(Op::Stop, "stop", power_is(Power::Stopped));
    }
    // Before the snapshots: what is put back to one of them finds a finished record.
    let record = record_facts(subject, diff, made);
    let snapshots = snapshots(sandbox, diff);
    if !lowering.steps.is_empty() || !snapshots.is_empty() || !record.is_empty() || !diff.complete {
        lowering.push(Op::Record, "write down what was applied", record);
    }
    for (op, title, facts) in snapshots {
        lowering.push(op, title, facts);
    }
    lowering.steps
}

/// The fact that a start or a stop makes.
fn power_is(power: Power) -> NewFacts {
    vec![(facts::power(), Some(power.as_str().to_owned()))]
}

/// The snapshots to take and to delete.
fn snapshots(sandbox: &Sandbox, diff: &Diff) -> Vec<(Op, String, NewFacts)> {
    let of = |change: &Change, value| vec![(Field::of(Kind::Snapshot, change.name.as_str(), "exists"), value)];
    let mut snapshots = Vec::new();
    let (deleted, taken): (Vec<_>, Vec<_>) =
        of_kind(diff, Kind::Snapshot).partition(|change| change.action == Action::Delete);
    // Removals before adds.
    for change in deleted.into_iter().chain(taken) {
        if change.action == Action::Delete {
            let op = Op::DeleteSnapshot(change.name.clone());
            snapshots.push((op, format!("delete the snapshot {}", change.name), of(change, None)));
        } else if let Some((name, _)) = sandbox.snapshots.iter().find(|(name, _)| name.as_str() == change.name) {
            if change.reason == Reason::Stale {
                let op = Op::DeleteSnapshot(change.name.clone());
                snapshots.push((op, format!("delete the stale snapshot {name}"), of(change, None)));
            }
            let facts = of(change, Some("true".to_owned()));
            snapshots.push((Op::Snapshot(name.clone()), format!("snapshot {name}"), facts));
        }
    }
    snapshots
}

fn of_kind(diff: &Diff, kind: Kind) -> impl Iterator<Item = &Change> {
    diff.changes.iter().filter(move |change| change.kind == kind)
}

fn changes_user(diff: &Diff) -> bool {
    diff.fate == Fate::Keep
        && of_kind(diff, Kind::Sandbox).any(|change| change.fields.iter().any(|field| field.field.field == "user"))
}

/// Whether the disk is written to by a way that leads through the running sandbox.
fn touches_disk(sandbox: &Sandbox, diff: &Diff, made: bool) -> bool {
    let files = diff
        .changes
        .iter()
        .any(|change| matches!(change.kind, Kind::File | Kind::Tree) && change.counts());
    let user = sandbox.user.is_some() && (made || changes_user(diff));
    files || user || (made && !sandbox.trees.is_empty())
}

/// Whether egress rules inside are put in, changed or taken off.
fn touches_rules_inside(subject: &Subject<'_>, diff: &Diff, environment: &EnvironmentName) -> bool {
    if diff.fate != Fate::Keep && subject.inherits_rules {
        return true;
    }
    let policy = egress::pinned(subject, diff, environment);
    let is_inside = policy.is_some_and(|policy| policy.enforce == Enforcement::Guest);
    let was_inside = subject.instance.is_some_and(egress::is_inside);
    of_kind(diff, Kind::Egress).next().is_some() && (is_inside || was_inside)
}

/// Creation from an image or a clone.
fn make(lowering: &mut Lowering<'_>, diff: &Diff, around: &Surroundings<'_>) {
    let sandbox = lowering.subject.sandbox;
    let mut facts: Vec<(Field, Option<String>)> = diff
        .desired
        .iter()
        .filter(|(field, _)| field.kind == Kind::Sandbox && field.field != "user")
        .map(|(field, value)| (field.clone(), Some(value.to_owned())))
        .collect();
    facts.push((facts::power(), Some(Power::Stopped.as_str().to_owned())));
    let mut applied = Facts::new();
    applied.extend(
        facts
            .iter()
            .filter_map(|(field, value)| Some((field.clone(), value.clone()?))),
    );

    let mut labels = Labels::owned(around.environment, &sandbox.name, &lowering.subject.name);
    labels.set_applied(&applied);
    if sandbox.protect.is_some() {
        labels.0.insert(Labels::PROTECT.to_owned(), "true".to_owned());
    }
    if let Some((ttl, _)) = &sandbox.ttl {
        labels.0.insert(Labels::TTL.to_owned(), ttl.to_string());
    }
    let opts = CreateOpts {
        name: lowering.subject.name.to_string(),
        image: match &sandbox.origin {
            Origin::Image { name, .. } => Some(name.clone()),
            Origin::Clone { .. } => None,
        },
        cpu: sandbox.cpu.as_ref().map(|(cpu, _)| *cpu),
        memory: sandbox.memory.as_ref().map(|(memory, _)| *memory),
        disk: sandbox.disk.as_ref().map(|(disk, _)| *disk),
        env: sandbox.env.clone(),
        config: sandbox
            .config
            .iter()
            .map(|(key, (value, _))| (key.clone(), value.clone()))
            .collect(),
        labels,
        target: sandbox.target.as_ref().map(|(target, _)| target.clone()),
        bare: true,
    };
    match &sandbox.origin {
        Origin::Image { name, .. } => {
            lowering.push(Op::Create(opts), format!("create from image {name}"), facts);
        }
        Origin::Clone {
            sandbox: source,
            snapshot,
            ..
        } => {
            let at = snapshot.as_ref().map(|name| format!("@{name}")).unwrap_or_default();
            let op = Op::Clone {
                source: (around.instance_of)(source),
                snapshot: snapshot.clone(),
                opts,
            };
            let step = lowering.push(op, format!("clone from {source}{at}"), facts);
            step.needs
                .extend(snapshot.as_ref().map(|name| id(source, &Op::Snapshot(name.clone()))));
        }
    }
}

fn configure(lowering: &mut Lowering<'_>, change: &Change) {
    let sandbox = lowering.subject.sandbox;
    let mut changes = Changes::default();
    let mut facts = Vec::new();
    for field in change.fields.iter().filter(|field| field.field.field != "user") {
        let after = field.after.clone();
        match field.field.field.as_str() {
            "cpu" => changes.cpu = Some(sandbox.cpu.as_ref().map(|(cpu, _)| *cpu)),
            "memory" => changes.memory = Some(sandbox.memory.as_ref().map(|(memory, _)| *memory)),
            "disk" => changes.disk = Some(sandbox.disk.as_ref().map(|(disk, _)| *disk)),
            "protect" => drop(changes.labels.insert(Labels::PROTECT.to_owned(), after.clone())),
            "ttl" => drop(changes.labels.insert(Labels::TTL.to_owned(), after.clone())),
            name => match name.split_once(':') {
                Some(("env", name)) => drop(changes.env.insert(name.to_owned(), after.clone())),
                Some((_, key)) => drop(changes.config.insert(key.to_owned(), after.clone())),
                None => {}
            },
        }
        facts.push((field.field.clone(), after));
    }
    if !changes.is_empty() {
        let names: Vec<_> = facts.iter().map(|(field, _)| field.to_string()).collect();
        lowering.push(Op::Configure(changes), format!("set {}", names.join(", ")), facts);
    }
}

/// What is attached before anything runs that may need it, and the volumes that go.
fn attachments(lowering: &mut Lowering<'_>, diff: &Diff, live: &Live) {
    let attach = workspace::attach(lowering.subject, diff);
    if attach != Attach::default() {
        let named = |kind: Kind, some: usize| (some > 0).then(|| counted_objects(kind, some));
        let names: Vec<String> = [
            named(Kind::Mount, attach.mounts.len()),
            named(Kind::Volume, attach.volumes.len()),
            named(Kind::Port, attach.ports.len()),
        ]
        .into_iter()
        .flatten()
        .collect();
        let title = format!("see to {}", names.join(", "));
        lowering.push(Op::Attach(attach), title, workspace::facts(diff));
    }
    for key in workspace::pruned(lowering.subject, live) {
        let title = format!("delete the volume {}", key.name);
        lowering.push(Op::DeleteVolume(key.clone()), title, Vec::new());
    }
}

fn counted_objects(kind: Kind, number: usize) -> String {
    match number {
        1 => format!("1 {kind}"),
        number => format!("{number} {kind}s"),
    }
}

/// The policy is in force before anything that starts it.
fn policy(lowering: &mut Lowering<'_>, diff: &Diff, environment: &EnvironmentName) {
    let changes = of_kind(diff, Kind::Egress).next().is_some();
    let policy = egress::pinned(lowering.subject, diff, environment);
    let stays_inside = policy
        .as_ref()
        .is_some_and(|policy| policy.enforce == Enforcement::Guest);
    let inside = match diff.fate {
        Fate::Keep => changes && policy.is_some() && lowering.subject.instance.is_some_and(egress::is_inside),
        Fate::Create | Fate::Replace => lowering.subject.inherits_rules,
    };
    if inside && !stays_inside {
        lowering.push(Op::Egress(None), "take off the egress rules inside", Vec::new());
    }
    if !changes {
        return;
    }
    // Nothing is on what has just been made.
    if policy.is_none() && diff.fate != Fate::Keep {
        return;
    }
    let title = match &policy {
        Some(policy) => format!("put the egress policy {} in force", policy.key.name),
        None => "lift the egress policy".to_owned(),
    };
    lowering.push(Op::Egress(policy.map(egress::known)), title, egress::facts(diff));
}

/// Rules inside are seen to be in force before anything is run that the spec brings.
fn loaded(lowering: &mut Lowering<'_>, diff: &Diff, environment: &EnvironmentName) {
    // What is accepted as it is, is left as it is.
    let accepted = diff.accepted.iter().any(|change| change.field.kind == Kind::Egress);
    let policy = egress::pinned(lowering.subject, diff, environment).filter(|_| !accepted);
    if let Some(policy) = policy.filter(|policy| policy.enforce == Enforcement::Guest) {
        let title = "see that the egress rules inside are in force";
        lowering.push(Op::Egress(Some(egress::known(policy))), title, Vec::new());
    }
}

/// One step for all files and trees: what goes first, then folders and files by their paths.
fn files(lowering: &mut Lowering<'_>, diff: &Diff, made: bool) {
    let sandbox = lowering.subject.sandbox;
    let (mut removals, mut writes, mut facts) = (Vec::new(), Vec::new(), Vec::new());
    let mut secrets: Vec<SecretFile> = Vec::new();
    for change in diff
        .changes
        .iter()
        .filter(|change| matches!(change.kind, Kind::File | Kind::Tree))
    {
        for field in &change.fields {
            facts.push((
                field.field.clone(),
                field
                    .after
                    .clone()
                    .filter(|after| after != ABSENT || change.kind == Kind::File),
            ));
        }
        let Ok(path) = GuestPath::new(change.name.clone()) else {
            continue;
        };
        if change.kind == Kind::Tree {
            let Some(tree) = sandbox.trees.get(&path) else { continue };
            for field in &change.fields {
                if field.field.field == facts::ROOT {
                    // Of a sandbox that is new, nobody knows yet what stands there: apply looks.
                    if !made {
                        removals.extend(
                            field
                                .before
                                .is_some()
                                .then(|| FileChange::Remove { path: path.clone() }),
                        );
                        let mode = Mode::DIRECTORY;
                        writes.push(FileChange::Directory {
                            path: path.clone(),
                            mode,
                            owner: tree.owner,
                        });
                    }
                    continue;
                }
                let at = path.join(&field.field.field);
                match tree.entries.get(&field.field.field) {
                    Some(entry) => writes.push(tree_change(at, tree, entry)),
                    None => removals.push(FileChange::Remove { path: at }),
                }
            }
            continue;
        }
        let content_moved = made
            || change
                .fields
                .iter()
                .any(|field| matches!(field.field.field.as_str(), "content" | "seed"));
        match sandbox.files.get(&path) {
            Some(file) => {
                let file = keeping_accepted(diff, &path, file);
                match &file.state {
                    FileState::Secret(variable) if content_moved => secrets.push(SecretFile {
                        path,
                        variable: variable.clone(),
                        mode: file.mode,
                        owner: file.owner,
                    }),
                    _ => file_change(path, &file, content_moved, &mut removals, &mut writes),
                }
            }
            None => removals.push(FileChange::Remove { path }),
        }
    }
    if removals.is_empty() && writes.is_empty() && secrets.is_empty() && (!made || sandbox.trees.is_empty()) {
        return;
    }
    // What lies in a removed folder goes with it.
    removals.sort_by(|a, b| a.path().cmp(b.path()));
    removals.dedup_by(|next, kept| next.path().below(kept.path()).is_some());
    writes.sort_by(|a, b| a.path().cmp(b.path()));
    let (gone, written) = (removals.len(), writes.len() + secrets.len());
    removals.append(&mut writes);
    let title = match (written, gone) {
        (0, gone) => format!("remove {}", counted(gone)),
        (written, 0) => format!("write {}", counted(written)),
        (written, gone) => format!("write {}, remove {gone}", counted(written)),
    };
    let unseen = if made {
        sandbox.trees.keys().cloned().collect()
    } else {
        Vec::new()
    };
    lowering.push(
        Op::Files {
            unseen,
            changes: removals,
            secrets,
        },
        title,
        facts,
    );
}

fn counted(files: usize) -> String {
    if files == 1 {
        "1 file".to_owned()
    } else {
        format!("{files} files")
    }
}

fn tree_change(path: GuestPath, tree: &Tree, entry: &Entry) -> FileChange {
    match entry {
        Entry::File { content, mode } => FileChange::Write {
            path,
            content: content.clone(),
            mode: *mode,
            owner: Some(tree.owner),
        },
        Entry::Directory => FileChange::Directory {
            path,
            mode: Mode::DIRECTORY,
            owner: tree.owner,
        },
        Entry::Symlink(target) => FileChange::Symlink {
            path,
            target: target.clone(),
            owner: tree.owner,
        },
    }
}

fn file_change(
    path: GuestPath,
    file: &File,
    content_moved: bool,
    removals: &mut Vec<FileChange>,
    writes: &mut Vec<FileChange>,
) {
    match &file.state {
        FileState::Absent => removals.push(FileChange::Remove { path }),
        FileState::Content(content) if content_moved => {
            writes.push(FileChange::Write {
                path,
                content: content.clone(),
                mode: file.mode,
                owner: Some(file.owner),
            });
        }
        FileState::Content(_) | FileState::Secret(_) => {
            writes.push(FileChange::Attributes {
                path,
                mode: file.mode,
                owner: file.owner,
            });
        }
    }
}

/// What the last step writes down: all that is declared and not in the record, and nothing that no longer is.
fn record_facts(subject: &Subject<'_>, diff: &Diff, made: bool) -> Vec<(Field, Option<String>)> {
    let before = if made { &Facts::new() } else { &diff.applied };
    let accepted = |field: &Field| diff.accepted.iter().any(|change| change.field == *field);
    Facts::side_by_side([&diff.desired, before])
        .filter(|(field, [wanted, before])| !(field.kind == Kind::Tree && wanted.or(*before) == Some(ABSENT)))
        .filter(|(field, [wanted, before])| match wanted {
            Some(_) => wanted != before && !accepted(field),
            None => !stays_recorded(subject, field) && !stays_for_later(&diff.accepted, field),
        })
        .map(|(field, [wanted, _])| (field.clone(), wanted.map(str::to_owned)))
        .collect()
}

/// Whether a fact that no spec states stays in the record: that we made a file which is still declared, and
/// that we took a snapshot which is still there.
fn stays_recorded(subject: &Subject<'_>, field: &Field) -> bool {
    match field.kind {
        Kind::File if field.field == facts::SECRET => true,
        Kind::File if field.field == "made" => subject
            .sandbox
            .files
            .iter()
            .any(|(path, file)| path.as_str() == field.name && file.when == When::Always),
        Kind::Volume if workspace::is_size(subject.sandbox, field) => false,
        Kind::Volume => {
            !subject.prune
                && subject
                    .instance
                    .is_some_and(|i| i.workspace.volumes.contains_key(&field.name))
        }
        Kind::Snapshot => !subject.prune && subject.instance.is_some_and(|i| i.snapshots.contains_key(&field.name)),
        _ => false,
    }
}
