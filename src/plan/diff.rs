//! Desired × last-applied × live of one sandbox → what differs, and from which side.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::extras::Extra;
use super::facts::{self, ABSENT, Look};
use super::held::hold_back;
use super::recipe::{Recipe, SOURCE_RECIPE};
use super::stale::{Recipes, kept_stale, record_to_be, stale_clone, stale_snapshots};
use super::{Action, Change, FieldChange, Impact, Origin, Reason, TextChange};
use super::{egress, workspace};
use crate::model::{
    Capabilities, Data, Facts, Field, FileState, GuestPath, Ignored, Inspection, InstanceName, Kind, Labels,
    LiveInstance, OnStale, Origin as Source, Resolved, Sandbox, SandboxName, SecretHashes, Shape, Status,
};

/// What becomes of a sandbox's instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// There is none yet.
    Create,
    /// It is deleted and made again.
    Replace,
    /// It stays.
    Keep,
}

/// What is known of one sandbox when it is compared.
pub(super) struct Subject<'a> {
    pub(super) sandbox: &'a Sandbox,
    pub(super) name: InstanceName,
    pub(super) instance: Option<&'a LiveInstance>,
    /// What looking at its files came to.
    pub(super) look: Look<'a>,
    pub(super) capabilities: &'a Capabilities,
    /// What is accepted, expired entries already left out.
    pub(super) ignored: Vec<&'a Ignored>,
    pub(super) prune: bool,
    pub(super) only_compared: bool,
    /// The moment, in seconds since 1970-01-01T00:00:00Z.
    pub(super) now: u64,
    /// Of a clone: the recipe that its source is going to have.
    pub(super) source: Option<Recipe>,
    /// Whether another sandbox is cloned from it.
    pub(super) is_cloned: bool,
    /// What names resolve to.
    pub(super) names: &'a BTreeMap<String, Resolved>,
    /// Hashes of secrets.
    pub(super) secrets: &'a SecretHashes,
    /// The files in it whose contents are, or were, secret.
    pub(super) secret_paths: &'a BTreeSet<GuestPath>,
    /// Whether, made as a clone, it comes with the egress rules of its source on its disk.
    pub(super) inherits_rules: bool,
    /// The sandboxes that the spec wants stopped.
    pub(super) dormant: &'a BTreeSet<SandboxName>,
    /// The addresses of the machine that plans.
    pub(super) machine: &'a BTreeSet<IpAddr>,
}

impl Subject<'_> {
    fn accepts(&self, field: &Field) -> bool {
        // Nothing can be done with what has no disk, whatever may differ in it.
        let lost = self.look.diskless && field.kind == Kind::Sandbox && facts::is_source(&field.field);
        !lost && self.ignored.iter().any(|ignored| ignored.field.covers(field))
    }
}

/// One sandbox compared.
pub(super) struct Diff {
    pub(super) fate: Fate,
    pub(super) changes: Vec<Change>,
    /// Differences that are accepted: not counted, not repaired.
    pub(super) accepted: Vec<FieldChange>,
    /// Things worth a line: what is released and stays as it is.
    pub(super) notices: Vec<String>,
    pub(super) desired: Facts,
    pub(super) applied: Facts,
    /// Whether the first apply has finished.
    pub(super) complete: bool,
    /// What clones of it and of its snapshots are going to be made from.
    pub(super) recipes: Recipes,
}

/// The three-way rule for one field; none where it is as it should be.
fn origin(desired: Option<&str>, applied: Option<&str>, live: Option<&str>) -> Option<Origin> {
    if desired == live {
        return None;
    }
    let spec_moved = desired != applied;
    let live_moved = live != applied;
    match (spec_moved, live_moved) {
        (true, true) if applied.is_some() => Some(Origin::Conflict),
        // Never applied: whatever is live was there before us.
        (true, _) => Some(Origin::Pending),
        (false, _) => Some(Origin::Drift),
    }
}

/// Compares one sandbox.
pub(super) fn diff(subject: &Subject<'_>) -> Diff {
    let labels = subject.instance.map(|instance| &instance.labels);
    let mut applied = labels.map(Labels::applied).unwrap_or_default();
    let mut desired = facts::desired(subject.sandbox, &subject.secrets.sources, &applied);
    for path in subject.secret_paths {
        desired.set(facts::of_file(path, facts::SECRET), "true");
    }
    if let Some(recipe) = &subject.source {
        desired.set(Field::sandbox(SOURCE_RECIPE), recipe.to_string());
    }
    egress::settle(subject, &mut desired, &applied);
    let mut notices = Vec::new();
    let Some(instance) = subject.instance else {
        return Diff {
            fate: Fate::Create,
            changes: created(subject, &desired, Fate::Create, Vec::new()),
            accepted: Vec::new(),
            notices,
            recipes: Recipes::new(&record_to_be(subject, &desired, &Facts::new(), &[])),
            desired,
            applied: Facts::new(),
            complete: false,
        };
    };
    let complete = instance.labels.is_true(Labels::COMPLETE);
    let mut live = facts::live(
        instance,
        subject.look,
        (subject.secrets, subject.secret_paths),
        &desired,
        &applied,
    );
    settle_seeds(subject, complete, &desired, &mut live);
    let going = settle_extras(subject, &mut desired, &mut applied, &mut live);

    let mut accepted = Vec::new();
    let mut fields = Vec::new();
    for (field, [wanted, before, now]) in differing(&desired, &applied, &live) {
        let Some(origin) = origin(wanted, before, now) else {
            continue;
        };
        let origin = egress::origin(field, [wanted, before, now], origin);
        // What an apply that did not finish has left is nobody's doing but ours.
        let origin = if complete { origin } else { Origin::Pending };
        if wanted.is_none() && !undone(subject, field, [&desired, &applied, &live], &going, &mut notices) {
            continue;
        }
        let file_gone = field.kind == Kind::File
            && matches!(field.field.as_str(), "mode" | "owner")
            && !live
                .get(&Field::of(Kind::File, &*field.name, "content"))
                .is_some_and(|content| content.starts_with("sha256:") || content.starts_with("secret:"));
        if file_gone {
            continue;
        }
        let after = wanted.map(str::to_owned);
        let change = FieldChange {
            before: now.map(str::to_owned),
            after,
            origin,
            field: field.clone(),
        };
        if subject.accepts(&change.field) {
            accepted.push(change);
        } else {
            fields.push(change);
        }
    }
    hold_back(subject, &mut fields, &mut accepted);
    let is_origin = |change: &&FieldChange| change.field.kind == Kind::Sandbox && facts::is_source(&change.field.field);
    let mut origin_moved: Vec<FieldChange> = fields.iter().filter(is_origin).cloned().collect();
    let origin_accepted = accepted.iter().any(|change| is_origin(&change));
    let mut stale = stale_clone(&applied, subject.source.as_ref()).filter(|_| !origin_accepted);
    if let Some(change) = stale.take_if(|change| origin_moved.is_empty() && is_made_anew(subject, change)) {
        origin_moved.push(change);
    }
    if !origin_moved.is_empty() {
        return Diff {
            fate: Fate::Replace,
            changes: created(subject, &desired, Fate::Replace, origin_moved),
            // Nothing of what is there now stays.
            accepted: Vec::new(),
            notices,
            recipes: Recipes::new(&record_to_be(subject, &desired, &Facts::new(), &[])),
            desired,
            applied,
            complete,
        };
    }
    if origin_accepted || stale.is_some() {
        let source_recipe = Field::sandbox(SOURCE_RECIPE);
        match applied.get(&source_recipe) {
            Some(recipe) => desired.set(source_recipe, recipe),
            None => drop(desired.unset(&source_recipe)),
        }
    }
    let record = record_to_be(subject, &desired, &applied, &accepted);
    let mut recipes = Recipes::new(&record);
    let mut ingredients = BTreeMap::new();
    for snapshot in stale_snapshots(subject, &record) {
        let name = snapshot.recipe.field.name.clone();
        if subject.accepts(&snapshot.recipe.field) {
            accepted.push(snapshot.recipe);
            recipes.kept.insert(name, snapshot.was);
        } else {
            fields.push(snapshot.recipe);
            ingredients.insert(name, snapshot.ingredients);
        }
    }
    let mut changes = kept(subject, instance, complete, &applied, fields);
    for change in changes.iter_mut().filter(|change| change.reason == Reason::Stale) {
        change
            .fields
            .extend(ingredients.remove(&change.name).unwrap_or_default());
    }
    match stale {
        Some(change) if subject.accepts(&change.field) => accepted.push(change),
        Some(change) => {
            let settings = changes.iter().take_while(|change| change.kind == Kind::Sandbox).count();
            changes.insert(settings, kept_stale(subject, change));
        }
        None => {}
    }
    Diff {
        fate: Fate::Keep,
        changes,
        accepted,
        notices,
        desired,
        applied,
        complete,
        recipes,
    }
}

/// Whether a stale clone is to be made anew.
fn is_made_anew(subject: &Subject<'_>, recipe: &FieldChange) -> bool {
    let replace = matches!(
        subject.sandbox.origin,
        Source::Clone {
            on_stale: OnStale::Replace,
            ..
        }
    );
    replace && !subject.accepts(&recipe.field)
}

/// Whether the three-way rule is for it. The others are recorded for what else they are needed for.
fn is_compared(field: &Field) -> bool {
    let secret = field.kind == Kind::File && field.field == facts::SECRET;
    !secret && ![facts::DELETE, facts::DEPENDS_ON, SOURCE_RECIPE].contains(&&*field.field)
}

/// The fields that are declared, or were, and are not as they should be: each with what is wanted, what was
/// last applied and what is there.
fn differing<'a>(
    desired: &'a Facts,
    applied: &'a Facts,
    live: &'a Facts,
) -> impl Iterator<Item = (&'a Field, [Option<&'a str>; 3])> {
    Facts::side_by_side([desired, applied, live])
        .filter(|(field, [wanted, before, now])| {
            // What is closed is not written down: all else is open by somebody's hand.
            let declared = wanted.is_some() || before.is_some() || field.kind == Kind::Egress;
            wanted != now && declared
        })
        .filter(|(field, _)| is_compared(field))
}

/// A seed that a finished sandbox has never had is written only where nothing stands: what does is its user's. So is
/// what stands in the place of one that is accepted as it is, in any sandbox.
fn settle_seeds(subject: &Subject<'_>, complete: bool, desired: &Facts, live: &mut Facts) {
    let Some(inspection) = subject.look.inspection else {
        return;
    };
    for path in facts::paths(desired, &Facts::new(), Kind::File) {
        let seed = facts::of_file(&path, "seed");
        if let Some(value) = desired.get(&seed)
            && inspection.get(&path).is_some()
            && (complete || subject.accepts(&seed))
        {
            live.set(seed, value);
        }
    }
}

/// With `delete=true`, what lies in a tree beside its entries is wanted absent, and was when that was applied.
/// Gives the paths that go for that.
fn settle_extras(
    subject: &Subject<'_>,
    desired: &mut Facts,
    applied: &mut Facts,
    live: &mut Facts,
) -> BTreeSet<GuestPath> {
    let nowhere = BTreeSet::new();
    let mut going = BTreeSet::new();
    for (path, tree) in &subject.sandbox.trees {
        let mounted = subject.instance.map_or(&nowhere, |instance| &instance.mounted);
        let Some(extra) = Extra::of(subject.sandbox, path, mounted).filter(|_| tree.delete) else {
            continue;
        };
        let was_deleting = applied.get(&facts::of_tree(path, facts::DELETE)).is_some();
        let entries = live
            .iter()
            .filter(|(field, _)| field.kind == Kind::Tree && ![facts::ROOT, facts::DELETE].contains(&&*field.field));
        // What another tree or file of the record put there lies in this one's folder since that left the spec.
        let found: Vec<String> = entries
            .filter_map(|(field, _)| Some(GuestPath::new(&*field.name).ok()?.join(&field.field)))
            .filter_map(|at| at.below(path).map(str::to_owned))
            .collect();
        for entry in extra.among(found.iter().map(String::as_str)) {
            let at = path.join(entry);
            let field = facts::of_tree(path, entry);
            if live.get(&field).is_none() {
                live.set(field.clone(), "released");
            }
            if was_deleting && applied.get(&field).is_none() && !is_recorded(applied, path, &at) {
                applied.set(field.clone(), ABSENT);
            }
            desired.set(field, ABSENT);
            going.insert(at);
        }
    }
    going
}

/// Whether the record says that something else in this tree's folder put a path there.
fn is_recorded(applied: &Facts, tree: &GuestPath, at: &GuestPath) -> bool {
    let inner = |name: &&str| GuestPath::new(*name).is_ok_and(|root| root.below(tree).is_some() && at.lies_in(&root));
    applied.names(Kind::File).any(|name| name == at.as_str()) || applied.names(Kind::Tree).any(|name| inner(&name))
}

/// Whether a field that left the spec is undone; what is only released gets a notice instead.
fn undone(
    subject: &Subject<'_>,
    field: &Field,
    [desired, applied, live]: [&Facts; 3],
    going: &BTreeSet<GuestPath>,
    notices: &mut Vec<String>,
) -> bool {
    match field.kind {
        // It goes with all else that lies beside a tree's entries.
        Kind::File | Kind::Tree if GuestPath::new(&*field.name).is_ok_and(|path| going.contains(&path)) => false,
        Kind::Sandbox if matches!(field.field.as_str(), "user" | facts::DEPENDS_ON) => false,
        Kind::Sandbox if field.field == "disk" => {
            notices.push("the disk keeps its size: it left the spec, and disks never shrink".to_owned());
            false
        }
        // A source that another one takes the place of shows as the new one's change.
        Kind::Sandbox => true,
        Kind::File if field.field == "content" => {
            let path = &field.name;
            let wanted = [
                Field::of(Kind::File, &**path, "seed"),
                Field::of(Kind::File, &**path, "content"),
            ];
            let covered = wanted.iter().any(|field| desired.get(field).is_some())
                || GuestPath::new(&**path).is_ok_and(|path| subject.sandbox.files.contains_key(&path))
                || in_tree(desired, path);
            if covered || applied.get(field) == Some(ABSENT) {
                return false;
            }
            let made = applied.get(&Field::of(Kind::File, &**path, "made")).is_some();
            if !made {
                notices.push(format!("{path} is released: it left the spec, and it was there before"));
            }
            made
        }
        Kind::Tree if field.field == facts::ROOT => {
            notices.push(format!(
                "the tree {} is released: it left the spec; its files stay",
                field.name
            ));
            false
        }
        Kind::Snapshot => {
            if !subject.prune {
                let name = &field.name;
                notices.push(format!("the snapshot {name} left the spec; it stays until --prune"));
            }
            subject.prune
        }
        Kind::Volume if workspace::is_size(subject.sandbox, field) => {
            let name = &field.name;
            notices.push(format!(
                "the volume {name} keeps its size: it left the spec, and volumes never shrink"
            ));
            false
        }
        Kind::Volume if field.field != "path" => subject.prune,
        Kind::Volume => {
            if !subject.prune {
                let name = &field.name;
                notices.push(format!(
                    "the volume {name} left the spec; it stays, attached, until --prune"
                ));
            }
            subject.prune
        }
        Kind::Mount | Kind::Port => true,
        Kind::Egress => egress::is_undone(subject, field, live),
        _ => false,
    }
}

fn in_tree(desired: &Facts, path: &str) -> bool {
    desired.iter().any(|(field, _)| {
        field.kind == Kind::Tree
            && path.strip_prefix(&*field.name).and_then(|rest| rest.strip_prefix('/')) == Some(&*field.field)
    })
}

/// The changes of a sandbox that is made, or made anew: everything that it declares.
fn created(subject: &Subject<'_>, desired: &Facts, fate: Fate, moved: Vec<FieldChange>) -> Vec<Change> {
    let complete = subject
        .instance
        .is_some_and(|instance| instance.labels.is_true(Labels::COMPLETE));
    let shown = desired.iter().filter(|(field, _)| is_compared(field));
    let fields = shown.map(|(field, value)| FieldChange {
        field: field.clone(),
        before: None,
        after: Some(value.to_owned()),
        origin: Origin::Pending,
    });
    let mut changes = Vec::new();
    for ((kind, name), fields) in ordered_runs(subject.sandbox, grouped(fields.collect())) {
        let (action, reason) = match kind {
            Kind::Sandbox if fate == Fate::Replace => (Action::Replace, replaced_because(subject, &moved)),
            Kind::Sandbox => (Action::Create, Reason::New),
            Kind::Power if fields.iter().any(|field| field.after.as_deref() == Some("running")) => {
                (Action::Start, Reason::New)
            }
            Kind::Power => continue,
            // What goes is nobody's: the image or the source brings it.
            Kind::File if fields.iter().any(|field| field.after.as_deref() == Some(ABSENT)) => {
                (Action::Update, Reason::New)
            }
            Kind::Run => (Action::Run, Reason::NeverRun),
            Kind::Snapshot => (Action::Snapshot, Reason::New),
            _ => (Action::Create, Reason::New),
        };
        let reason = if fate == Fate::Replace && kind != Kind::Sandbox {
            Reason::Recreated
        } else {
            reason
        };
        let impact = match action {
            Action::Replace if complete => Impact::DataLoss,
            Action::Replace => Impact::Restart,
            _ => Impact::Live,
        };
        let fields = if action == Action::Replace {
            moved.clone()
        } else {
            fields
        };
        changes.push(change(subject, kind, name, action, impact, reason, fields));
    }
    changes
}

fn replaced_because(subject: &Subject<'_>, moved: &[FieldChange]) -> Reason {
    if subject.look.diskless {
        return Reason::DiskGone;
    }
    if moved.iter().all(|field| field.field.field == SOURCE_RECIPE) {
        return Reason::Stale;
    }
    let image = moved
        .iter()
        .any(|field| field.field.field == "image" && field.after.is_some());
    if image {
        Reason::ImageChanged
    } else {
        Reason::SourceChanged
    }
}

/// The changes of a sandbox that stays.
fn kept(
    subject: &Subject<'_>,
    instance: &LiveInstance,
    complete: bool,
    applied: &Facts,
    fields: Vec<FieldChange>,
) -> Vec<Change> {
    let mut changes: Vec<Change> = Vec::new();
    let mut ran = false;
    let groups = ordered_runs(subject.sandbox, grouped(fields));
    for ((kind, name), fields) in groups {
        let now = fields.iter().find_map(|field| field.before.as_deref());
        let wanted = fields.iter().find_map(|field| field.after.as_deref());
        let known = applied.names(kind).any(|known| known == name);
        let action = match kind {
            Kind::Power if wanted == Some("running") => Action::Start,
            Kind::Power => Action::Stop,
            Kind::Run => Action::Run,
            Kind::Snapshot if wanted.is_none() => Action::Delete,
            Kind::Snapshot => Action::Snapshot,
            Kind::File if wanted.is_none() || wanted == Some(ABSENT) => Action::Delete,
            Kind::File if now.is_none() || now == Some(ABSENT) => Action::Create,
            Kind::Tree | Kind::Egress if !known => Action::Create,
            kind if workspace::is(kind) => workspace::action(subject, instance, kind, &name),
            _ => Action::Update,
        };
        let reason = match (kind, action) {
            (Kind::Egress, Action::Update) if egress::has_moved(&fields) => Reason::AddressesMoved,
            (Kind::Egress, Action::Update) if subject.sandbox.egress.is_some() => reason(&fields),
            (Kind::Run, _) if ran => Reason::StepBefore,
            (Kind::Run, _) if !known => Reason::NeverRun,
            (Kind::Snapshot, Action::Snapshot) if now.is_some() => Reason::Stale,
            (Kind::Snapshot, Action::Snapshot) | (Kind::File, Action::Create) if known && complete => Reason::Missing,
            (kind, Action::Create) if workspace::is(kind) && known && complete => Reason::Missing,
            (_, Action::Create | Action::Snapshot) => Reason::New,
            (Kind::Power, _) if !complete => Reason::Unfinished,
            (Kind::Snapshot | Kind::Volume, Action::Delete) => Reason::Pruned,
            // `protect false` says just what no word of it says.
            (kind, Action::Update) if workspace::is(kind) => reason(&fields),
            _ if wanted.is_none() && fields.iter().any(|field| field.field.field != "protect") => Reason::LeftSpec,
            _ => reason(&fields),
        };
        ran |= kind == Kind::Run;
        let impact = impact(subject, instance, (kind, &name), action, &fields);
        changes.push(change(subject, kind, name, action, impact, reason, fields));
    }
    changes
}

/// Groups by object, the objects in the order of their kinds and names.
fn grouped(fields: Vec<FieldChange>) -> Vec<((Kind, String), Vec<FieldChange>)> {
    let mut groups: BTreeMap<(Kind, String), Vec<FieldChange>> = BTreeMap::new();
    for field in fields {
        groups
            .entry((field.field.kind, field.field.name.clone()))
            .or_default()
            .push(field);
    }
    groups.into_iter().collect()
}

/// The same with set-up steps in the order in which they run.
fn ordered_runs(
    sandbox: &Sandbox,
    mut groups: Vec<((Kind, String), Vec<FieldChange>)>,
) -> Vec<((Kind, String), Vec<FieldChange>)> {
    let place = |name: &str| {
        sandbox
            .run
            .iter()
            .position(|run| run.name.as_str() == name)
            .unwrap_or(usize::MAX)
    };
    groups.sort_by_key(|((kind, name), _)| (*kind, if *kind == Kind::Run { place(name) } else { 0 }));
    groups
}

fn reason(fields: &[FieldChange]) -> Reason {
    let has = |origin| fields.iter().any(|field| field.origin == origin);
    match (has(Origin::Conflict), has(Origin::Pending), has(Origin::Drift)) {
        (false, true, false) => Reason::SpecChanged,
        (false, false, _) => Reason::LiveChanged,
        _ => Reason::BothChanged,
    }
}

fn impact(
    subject: &Subject<'_>,
    instance: &LiveInstance,
    (kind, name): (Kind, &str),
    action: Action,
    fields: &[FieldChange],
) -> Impact {
    if kind == Kind::Volume && action == Action::Delete {
        return Impact::DataLoss;
    }
    // A folder in a file's place goes with all that is in it.
    let folder = |field: &FieldChange| match kind {
        Kind::File => field.field.field == "content" && field.before.as_deref() == Some(facts::FOLDER),
        Kind::Tree => facts::is_folder(field.before.as_deref()) && facts::is_other(field.after.as_deref()),
        _ => false,
    };
    if instance.labels.is_true(Labels::COMPLETE) && fields.iter().any(folder) {
        return Impact::DataLoss;
    }
    let restart = match kind {
        Kind::Power => action == Action::Stop,
        Kind::Egress => egress::restarts(subject, instance, fields),
        kind if workspace::is(kind) => workspace::restarts(subject, instance, kind, name),
        Kind::Sandbox => fields.iter().any(|field| {
            field
                .field
                .field
                .strip_prefix("config:")
                .is_some_and(|key| subject.capabilities.needs_restart(key))
        }),
        _ => false,
    };
    if restart && instance.status != Status::Stopped {
        Impact::Restart
    } else {
        Impact::Live
    }
}

fn change(
    subject: &Subject<'_>,
    kind: Kind,
    name: String,
    action: Action,
    impact: Impact,
    reason: Reason,
    fields: Vec<FieldChange>,
) -> Change {
    let text = if kind == Kind::File {
        text_change(subject, &name, &fields)
    } else {
        None
    };
    Change {
        sandbox: subject.sandbox.name.clone(),
        instance: subject.name.clone(),
        kind,
        name,
        action,
        impact,
        reason,
        fields,
        text,
    }
}

/// Both texts of a declared file whose contents differ.
fn text_change(subject: &Subject<'_>, name: &str, fields: &[FieldChange]) -> Option<TextChange> {
    fields.iter().find(|field| field.field.field == "content")?;
    let path = GuestPath::new(name).ok()?;
    if subject.secret_paths.contains(&path) {
        return None;
    }
    let before = match subject.look.inspection?.get(&path).map(|found| &found.shape) {
        Some(Shape::File { content, .. }) => content.clone()?,
        _ => return None,
    };
    match &subject.sandbox.files.get(&path)?.state {
        FileState::Content(content) if content.size <= Inspection::KEPT => match &content.data {
            Data::Bytes(after) => Some(TextChange {
                before,
                after: after.clone(),
            }),
            Data::Path(_) => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_side_that_moved_gives_the_origin() {
        use Origin::{Conflict, Drift, Pending};
        for (desired, applied, live, expected) in [
            (Some("a"), Some("a"), Some("a"), None),
            (Some("b"), Some("a"), Some("a"), Some(Pending)),
            (Some("a"), Some("a"), Some("b"), Some(Drift)),
            (Some("b"), Some("a"), Some("c"), Some(Conflict)),
            (Some("b"), Some("a"), Some("b"), None),
            (Some("a"), None, None, Some(Pending)),
            (Some("a"), None, Some("b"), Some(Pending)),
            (Some("a"), Some("a"), None, Some(Drift)),
            (Some("b"), Some("a"), None, Some(Conflict)),
            (None, Some("a"), Some("a"), Some(Pending)),
            (None, Some("a"), Some("b"), Some(Conflict)),
            (None, Some("a"), None, None),
        ] {
            assert_eq!(
                origin(desired, applied, live),
                expected,
                "{desired:?} {applied:?} {live:?}"
            );
        }
    }
}
