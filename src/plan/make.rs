//! The plan itself.

use std::collections::{BTreeMap, BTreeSet};

use super::capability::enforcement;
use super::diff::{Fate, Subject, diff};
use super::facts::{DEPENDS_ON, Look};
use super::gc::overdue;
use super::guard::guard;
use super::lower::{Surroundings, id, lower};
use super::match_up::Matched;
use super::mounted;
use super::stale::{Recipes, generations, weigh};
use super::{
    Action, Change, FieldChange, Graph, Impact, Op, Reason, Refusal, SpecChange, Step, StepId, Summary, UnknownTarget,
    capability, cores, egress, holes, peers, ports, secret, select, sources, spec_files, workspace,
};
use crate::model::{
    Capabilities, Date, Desired, Enforcement, EnvironmentName, Field, Ignored, InstanceName, Kind, Labels, Live,
    LiveInstance, Origin, Ownership, PinnedPolicy, Place, Power, Sandbox, SandboxName, VolumeKey,
};

/// How to plan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Whether what left the spec is deleted.
    pub prune: bool,
    /// Whether nobody is going to carry it out: then what an apply alone would need, such as a secret's value, may be
    /// missing, which is told.
    pub only_compared: bool,
    /// The sandboxes to plan for, by name or by a count's base name; all when empty.
    pub targets: Vec<String>,
    /// Drift accepted on the command line, by name or base name of the sandbox.
    pub ignore: Vec<(String, Field)>,
    /// The moment, in seconds since 1970-01-01T00:00:00Z.
    pub now: u64,
}

/// An owned sandbox that the spec no longer names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    /// Its name when it was in the spec.
    pub sandbox: SandboxName,
    /// Its instance.
    pub instance: InstanceName,
    /// Whether its disk is guarded.
    pub protected: bool,
}

/// A difference that is accepted: shown, not counted, left as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The sandbox.
    pub sandbox: SandboxName,
    /// What differs.
    pub field: FieldChange,
    /// The last day, UTC, on which it is accepted; always when none.
    pub until: Option<Date>,
    /// Why, as the spec says.
    pub reason: Option<String>,
}

/// A line worth reading that is no change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The sandbox that it is about.
    pub sandbox: SandboxName,
    /// What there is to say.
    pub text: String,
}

/// What has to be done, why, and in which order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The environment.
    pub environment: EnvironmentName,
    /// The backend's name.
    pub backend: String,
    /// Files of the spec that sandboxes may have written since they were applied. Whoever applies this has to say yes
    /// to them.
    pub spec_changes: Vec<SpecChange>,
    /// What differs, by sandbox in the spec's order, then by kind.
    pub changes: Vec<Change>,
    /// Differences that are accepted, by sandbox.
    pub accepted: Vec<Accepted>,
    /// Owned sandboxes that the spec no longer names; with `prune` they are among the changes instead.
    pub leftovers: Vec<Leftover>,
    /// Lines worth reading.
    pub notices: Vec<Notice>,
    /// What stands in its way. While there is anything here, nothing is applied.
    pub refusals: Vec<Refusal>,
    /// The work. Empty changes can come with steps: records to bring up to date, which nobody sees.
    pub steps: Vec<Step>,
    /// The sandboxes that it is about.
    pub selected: BTreeSet<SandboxName>,
}

impl Plan {
    /// Whether everything is as it should be.
    #[must_use]
    pub fn in_sync(&self) -> bool {
        !self.changes.iter().any(Change::counts)
    }

    /// How many changes there are of each sort.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary::of(&self.changes)
    }

    /// The order of its steps.
    #[must_use]
    pub fn graph(&self) -> Graph {
        Graph::of(&self.steps)
    }

    /// The changes that lose what is on a disk and were not consented to by `--prune` or `gc`.
    pub fn data_loss(&self) -> impl Iterator<Item = &Change> {
        self.changes
            .iter()
            .filter(|change| change.impact == Impact::DataLoss)
            .filter(|change| !matches!(change.reason, Reason::Pruned | Reason::Expired))
    }
}

/// Plans: compares what is desired with what was last applied and what is live.
///
/// `live` must hold every instance of the environment and of the names that the spec wants, and the files that
/// [`super::query`] asks for.
///
/// # Errors
/// When a target names no sandbox. All else that stands in the way is in [`Plan::refusals`].
pub fn plan(
    desired: &Desired,
    live: &Live,
    capabilities: &Capabilities,
    options: &Options,
) -> Result<Plan, UnknownTarget> {
    let selected = select(desired, &options.targets)?;
    let matched = Matched::of(desired, live);
    let instance_of = |name: &SandboxName| matched.name_of(&desired.environment, name);
    let around = Surroundings {
        environment: &desired.environment,
        instance_of: &instance_of,
    };
    let today = Date::of_unix(options.now);
    let command_line = ignored_on_command_line(options);
    let mut plan = Plan {
        environment: desired.environment.clone(),
        backend: capabilities.backend.to_owned(),
        spec_changes: spec_files::changed(desired, live, capabilities),
        changes: Vec::new(),
        accepted: Vec::new(),
        leftovers: Vec::new(),
        notices: Vec::new(),
        refusals: Vec::new(),
        steps: Vec::new(),
        selected,
    };
    plan.notices.extend(expired(desired, &plan.selected, today));
    let cloned: BTreeSet<&SandboxName> = desired.sandboxes.values().filter_map(Sandbox::source).collect();
    let dormant: BTreeSet<SandboxName> = desired
        .sandboxes
        .values()
        .filter(|sandbox| sandbox.state == Power::Stopped)
        .map(|sandbox| sandbox.name.clone())
        .collect();
    let mut opening: BTreeMap<SandboxName, PinnedPolicy> = BTreeMap::new();
    let mut parts: BTreeMap<&SandboxName, Part> = BTreeMap::new();
    for generation in generations(desired, &plan.selected) {
        let compared = cores::each(&generation, |sandbox| {
            let mut ignored: Vec<&Ignored> = sandbox
                .ignore
                .iter()
                .filter(|ignored| ignored.until.is_none_or(|until| until >= today))
                .collect();
            let named = |name: &String| name == sandbox.name.as_str() || name == sandbox.base.as_str();
            ignored.extend(
                command_line
                    .iter()
                    .filter(|(name, _)| named(name))
                    .map(|(_, ignored)| ignored),
            );
            let instance = matched.owned.get(&sandbox.name).copied();
            let source = match &sandbox.origin {
                Origin::Clone { sandbox, snapshot, .. } => parts
                    .get(sandbox)
                    .map(|source| source.recipes.of(snapshot.as_ref()).clone()),
                Origin::Image { .. } => None,
            };
            let secret_paths = secret::secret_paths(desired, &matched, sandbox);
            let subject = Subject {
                sandbox,
                look: instance.map_or_else(Look::default, |instance| Look::at(&instance.name, live)),
                name: instance_of(&sandbox.name),
                instance,
                capabilities,
                ignored,
                prune: options.prune,
                only_compared: options.only_compared,
                now: options.now,
                source,
                is_cloned: cloned.contains(&sandbox.name),
                names: &live.names,
                secrets: &live.secrets,
                secret_paths: &secret_paths,
                dormant: &dormant,
                machine: &live.machine,
                inherits_rules: egress::inherits(
                    sandbox,
                    desired,
                    capabilities,
                    sandbox.source().and_then(|source| matched.owned.get(source).copied()),
                ),
            };
            Part::of(&subject, &around, &matched, live)
        });
        parts.extend(generation.iter().map(|sandbox| &sandbox.name).zip(compared));
    }
    for (sandbox, part) in desired
        .sandboxes
        .keys()
        .filter_map(|name| Some((name, parts.remove(name)?)))
    {
        opening.extend(part.opens.map(|policy| (sandbox.clone(), policy)));
        plan.refusals.extend(part.refusals);
        plan.steps.extend(part.steps);
        plan.changes.extend(part.changes);
        plan.accepted.extend(part.accepted);
        plan.notices.extend(part.notices.into_iter().map(|text| Notice {
            sandbox: sandbox.clone(),
            text,
        }));
    }
    plan.notices.extend(remarks(&plan.changes, desired, capabilities));
    plan.notices.extend(workspace::fed(&plan.changes, desired));
    if options.targets.is_empty() {
        leftovers(&mut plan, matched.left_over(desired), options.prune);
        match options.prune {
            true => prune_volumes(&mut plan, desired, live),
            false => plan.notices.extend(kept_volumes(&matched, desired, live)),
        }
    }
    plan.refusals.extend(matched.refusals.iter().cloned());
    wait_for_sources(&mut plan.steps);
    plan.refusals
        .extend(sources::out_of_reach(&mut plan.steps, desired, live));
    plan.refusals.extend(ports::pass_on(&mut plan.steps, desired, live));
    once_each(&mut plan.refusals);
    peers::open(&mut plan.steps, opening, &instance_of);
    drop_met_needs(&mut plan.steps);
    secret::mask(&desired.secrets.mask_with(&live.secrets.applied), &mut plan);
    Ok(plan)
}

/// What one sandbox adds to the plan.
struct Part {
    recipes: Recipes,
    refusals: Vec<Refusal>,
    steps: Vec<Step>,
    changes: Vec<Change>,
    accepted: Vec<Accepted>,
    notices: Vec<String>,
    /// Its policy, where that opens other sandboxes.
    opens: Option<PinnedPolicy>,
}

impl Part {
    fn of(subject: &Subject<'_>, around: &Surroundings<'_>, matched: &Matched<'_>, live: &Live) -> Self {
        let mut diff = diff(subject);
        weigh(&mut diff.changes, matched);
        let mut refusals = capability::lacking(subject.sandbox, subject.capabilities);
        refusals.extend(egress::unresolved(subject));
        refusals.extend(egress::refusals(subject, diff.fate, live));
        refusals.extend(guard(subject, &diff, live));
        refusals.extend(workspace::refusals(subject, &diff, live));
        let mut notices = std::mem::take(&mut diff.notices);
        if subject.only_compared {
            notices.extend(secret::needed(subject, &diff.changes, diff.fate));
        } else {
            refusals.extend(secret::missing(subject, &diff.changes, diff.fate));
        }
        let ttl = Field::sandbox("ttl");
        if diff
            .changes
            .iter()
            .flat_map(|change| &change.fields)
            .any(|change| change.field == ttl)
        {
            let kept = subject.instance.filter(|_| diff.fate == Fate::Keep);
            notices.extend(kept.and_then(|instance| overdue(subject.sandbox, instance, subject.now)));
        }
        notices.extend(secret::notices(subject, &diff.changes, diff.fate));
        notices.extend(holes::notices(subject, &diff.changes));
        notices.extend(workspace::notices(subject, &diff.changes));
        if subject.look.unseen && diff.fate == Fate::Keep {
            let what = match egress::is_recorded_inside(&diff.applied) {
                true => "its files and its egress rules were not looked at: this backend reaches those",
                false => "its files were not looked at: this backend reaches those",
            };
            notices.push(format!("{what} of sandboxes only that run and were entered before"));
        }
        let steps = lower(subject, &diff, around, live);
        let policy = egress::pinned(subject, &diff, around.environment);
        let opens = policy.filter(|policy| !policy.sandboxes().is_empty());
        refusals.extend(mounted::guard(subject, diff.fate, &steps));
        notices.extend(mounted::notices(subject, diff.fate));
        secret::hide(diff.changes.iter_mut().flat_map(|change| &mut change.fields));
        secret::hide(diff.accepted.iter_mut());
        Self {
            refusals,
            steps,
            opens,
            recipes: diff.recipes,
            changes: diff.changes,
            accepted: accepted(subject, diff.accepted).collect(),
            notices,
        }
    }
}

/// What is accepted in one sandbox, with the words of the entry that accepts it.
fn accepted(subject: &Subject<'_>, changes: Vec<FieldChange>) -> impl Iterator<Item = Accepted> {
    changes.into_iter().map(|field| {
        let entry = subject.ignored.iter().find(|entry| entry.field.covers(&field.field));
        Accepted {
            sandbox: subject.sandbox.name.clone(),
            until: entry.and_then(|entry| entry.until),
            reason: match entry {
                Some(entry) => entry.reason.clone(),
                None => Some("it waits for contents that are accepted as they are".to_owned()),
            },
            field,
        }
    })
}

/// What the backend says to whoever has sandboxes made, and policies put in force: once, with the first.
fn remarks<'a>(
    changes: &'a [Change],
    desired: &'a Desired,
    capabilities: &'a Capabilities,
) -> impl Iterator<Item = Notice> + 'a {
    let is_made =
        |change: &&Change| change.kind == Kind::Sandbox && matches!(change.action, Action::Create | Action::Replace);
    // What there is to say is of the host.
    let by_host = |change: &&Change| {
        let sandbox = desired.sandboxes.get(&change.sandbox);
        let policy = sandbox.and_then(|sandbox| sandbox.egress.as_ref());
        policy.is_some_and(|policy| enforcement(policy, capabilities) == Enforcement::Host)
    };
    let is_closed = |change: &&Change| {
        change.kind == Kind::Egress && change.fields.iter().any(|field| field.after.is_some()) && by_host(change)
    };
    let made = changes.iter().find(is_made).into_iter();
    let made = made.flat_map(|first| capabilities.remarks.iter().map(move |text| (first, text)));
    let closed = changes.iter().find(is_closed).into_iter();
    let closed = closed.flat_map(|first| capabilities.egress_remarks.iter().map(move |text| (first, text)));
    made.chain(closed).map(|(first, text)| Notice {
        sandbox: first.sandbox.clone(),
        text: text.clone(),
    })
}

/// The entries of the spec that accept nothing any more, each once for all of a count.
fn expired(desired: &Desired, selected: &BTreeSet<SandboxName>, today: Date) -> Vec<Notice> {
    let mut notices: Vec<Notice> = Vec::new();
    let mut said = BTreeSet::new();
    for sandbox in desired
        .sandboxes
        .values()
        .filter(|sandbox| selected.contains(&sandbox.name))
    {
        for entry in &sandbox.ignore {
            let Some(until) = entry.until.filter(|until| *until < today) else {
                continue;
            };
            if said.insert((&sandbox.base, entry.field.clone(), until)) {
                notices.push(Notice {
                    sandbox: sandbox.name.clone(),
                    text: format!(
                        "`ignore \"{}\"` expired: it held until {until}; take it out of the spec, or give it another day",
                        entry.field
                    ),
                });
            }
        }
    }
    notices
}

fn ignored_on_command_line(options: &Options) -> Vec<(String, Ignored)> {
    let ignored = |field: &Field| Ignored {
        field: field.clone(),
        until: None,
        reason: None,
        at: Place::nowhere(),
    };
    options
        .ignore
        .iter()
        .map(|(sandbox, field)| (sandbox.clone(), ignored(field)))
        .collect()
}

/// What holds for all of a count is said once.
fn once_each(refusals: &mut Vec<Refusal>) {
    let mut said = Vec::new();
    refusals.retain(|refusal| {
        let one = (
            refusal.diagnostic.code,
            refusal.diagnostic.message.clone(),
            refusal.diagnostic.marks.clone(),
        );
        let fresh = !said.contains(&one);
        if fresh {
            said.push(one);
        }
        fresh
    });
}

/// Shows what the spec no longer names, or, to prune, deletes it: clones before what they were made from.
fn leftovers(plan: &mut Plan, left: Vec<(&SandboxName, &LiveInstance)>, prune: bool) {
    if !prune {
        plan.leftovers
            .extend(left.into_iter().map(|(sandbox, instance)| Leftover {
                sandbox: sandbox.clone(),
                instance: instance.name.clone(),
                protected: instance.labels.is_true(Labels::PROTECT),
            }));
        return;
    }
    let (changes, steps, refusals) = deletions(&left, Reason::Pruned);
    plan.changes.extend(changes);
    plan.steps.extend(steps);
    plan.refusals.extend(refusals);
}

/// Tells of volumes whose sandboxes are in no spec, and no more.
fn kept_volumes<'a>(matched: &Matched<'_>, desired: &Desired, live: &'a Live) -> impl Iterator<Item = Notice> + 'a {
    let gone =
        |key: &&VolumeKey| !desired.sandboxes.contains_key(&key.sandbox) && !matched.owned.contains_key(&key.sandbox);
    let gone: Vec<&VolumeKey> = live.volumes.keys().filter(gone).collect();
    gone.into_iter().map(|key| Notice {
        sandbox: key.sandbox.clone(),
        text: format!(
            "its volume {} is still there, and nothing else of it; --prune deletes it",
            key.name
        ),
    })
}

/// Deletes the volumes of sandboxes that the spec no longer names.
fn prune_volumes(plan: &mut Plan, desired: &Desired, live: &Live) {
    let left: Vec<&VolumeKey> = live
        .volumes
        .keys()
        .filter(|key| !desired.sandboxes.contains_key(&key.sandbox))
        .collect();
    let (changes, steps) = volume_deletions(&left, live, Reason::Pruned, &plan.steps);
    plan.changes.extend(changes);
    plan.steps.extend(steps);
}

/// Deletes volumes, each after the sandbox that has it.
pub(super) fn volume_deletions(
    left: &[&VolumeKey],
    live: &Live,
    reason: Reason,
    before: &[Step],
) -> (Vec<Change>, Vec<Step>) {
    let parts = left.iter().map(|key| {
        let of_it = |instance: &&LiveInstance| {
            instance.labels.ownership(&instance.name)
                == (Ownership::Owned {
                    environment: key.environment.clone(),
                    sandbox: key.sandbox.clone(),
                })
        };
        let name = live
            .instances
            .values()
            .find(of_it)
            .map(|instance| instance.name.clone());
        let name = name.or_else(|| InstanceName::of(&key.environment, &key.sandbox).ok());
        let instance = name.unwrap_or_else(|| InstanceName::observed(key.sandbox.as_str()));
        let delete = id(&key.sandbox, &Op::Delete);
        let op = Op::DeleteVolume((*key).clone());
        let change = Change {
            sandbox: key.sandbox.clone(),
            instance: instance.clone(),
            kind: Kind::Volume,
            name: key.name.clone(),
            action: Action::Delete,
            impact: Impact::DataLoss,
            reason,
            fields: Vec::new(),
            text: None,
        };
        let step = Step {
            id: id(&key.sandbox, &op),
            sandbox: key.sandbox.clone(),
            instance,
            title: format!("delete the volume {}", key.name),
            op,
            needs: before
                .iter()
                .map(|step| step.id.clone())
                .filter(|id| *id == delete)
                .collect(),
            facts: Vec::new(),
        };
        (change, step)
    });
    parts.unzip()
}

/// Deletes instances, clones before what they were made from.
pub(super) fn deletions(
    left: &[(&SandboxName, &LiveInstance)],
    reason: Reason,
) -> (Vec<Change>, Vec<Step>, Vec<Refusal>) {
    let (mut changes, mut steps, mut refusals) = (Vec::new(), Vec::new(), Vec::new());
    // What each is needed by, as the records say.
    let needs: Vec<(Vec<String>, &SandboxName)> = left
        .iter()
        .map(|(sandbox, instance)| (recorded_needs(instance), *sandbox))
        .collect();
    for (sandbox, instance) in left {
        if instance.labels.is_true(Labels::PROTECT) {
            refusals.push(Refusal::refused(
                "plan::protected",
                format!("`{sandbox}` is protected, and this would delete it"),
                &Place::nowhere(),
                "",
                format!("apply once with `protect false` for `{sandbox}`, then try again"),
            ));
        }
        changes.push(Change {
            sandbox: (*sandbox).clone(),
            instance: instance.name.clone(),
            kind: Kind::Sandbox,
            name: String::new(),
            action: Action::Delete,
            impact: Impact::DataLoss,
            reason,
            fields: Vec::new(),
            text: None,
        });
        let needed_by = needs
            .iter()
            .filter(|(names, of)| of != sandbox && names.iter().any(|name| name == sandbox.as_str()));
        steps.push(Step {
            id: id(sandbox, &Op::Delete),
            sandbox: (*sandbox).clone(),
            instance: instance.name.clone(),
            op: Op::Delete,
            title: "delete".to_owned(),
            needs: needed_by.map(|(_, of)| id(of, &Op::Delete)).collect(),
            facts: Vec::new(),
        });
    }
    if Graph::of(&steps).order().is_err() {
        // Labels that contradict each other must not keep an environment alive.
        steps.iter_mut().for_each(|step| step.needs.clear());
    }
    (changes, steps, refusals)
}

/// The sandboxes that one was made from or depends on, as its record says.
fn recorded_needs(instance: &LiveInstance) -> Vec<String> {
    let applied = instance.labels.applied();
    let source = applied
        .get(&Field::sandbox("clone-from"))
        .and_then(|source| source.split('@').next());
    let depends_on = applied
        .get(&Field::sandbox(DEPENDS_ON))
        .into_iter()
        .flat_map(|names| names.split(','));
    source.into_iter().chain(depends_on).map(str::to_owned).collect()
}

/// A clone of a disk waits for all that is done to its source, a clone of a snapshot for other snapshots' deletion:
/// a copy under way would stand in its way. One that is made anew waits for the same before it is deleted.
fn wait_for_sources(steps: &mut [Step]) {
    let mut last: BTreeMap<InstanceName, StepId> = BTreeMap::new();
    let mut sources: BTreeMap<SandboxName, Vec<StepId>> = BTreeMap::new();
    let mut deletions: BTreeMap<InstanceName, Vec<StepId>> = BTreeMap::new();
    for step in steps.iter() {
        last.insert(step.instance.clone(), step.id.clone());
        if let Op::DeleteSnapshot(_) = step.op {
            deletions
                .entry(step.instance.clone())
                .or_default()
                .push(step.id.clone());
        }
    }
    for step in steps.iter_mut() {
        let Op::Clone { source, snapshot, .. } = &step.op else {
            continue;
        };
        let more = match snapshot {
            Some(_) => deletions.get(source).cloned().unwrap_or_default(),
            None => last.get(source).cloned().into_iter().collect(),
        };
        step.needs.extend(more);
        sources.insert(step.sandbox.clone(), step.needs.clone());
    }
    // What is to be cloned anew is not given up before there is what to clone.
    for step in steps.iter_mut().filter(|step| step.op == Op::Delete) {
        let needs = sources.remove(&step.sandbox).unwrap_or_default();
        step.needs.extend(needs.into_iter().filter(|need| *need != step.id));
    }
}

/// A need that no step of the plan meets is met already.
fn drop_met_needs(steps: &mut [Step]) {
    let known: BTreeSet<_> = steps.iter().map(|step| step.id.clone()).collect();
    for step in steps {
        step.needs.retain(|need| known.contains(need));
        step.needs.sort_unstable();
        step.needs.dedup();
    }
}
