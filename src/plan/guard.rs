//! What must not be done to a sandbox, whatever the consent.

use super::diff::{Diff, Fate, Subject};
use super::{Action, Change, Impact, Reason, Refusal};
use crate::model::{Bounds, Bytes, Field, Kind, Labels, Live, LiveInstance, Memory, Origin, Ownership, Sandbox};

/// What must not be done to one sandbox, whatever the consent.
pub(super) fn guard(subject: &Subject<'_>, diff: &Diff, live: &Live) -> Vec<Refusal> {
    let (fate, accepted) = (diff.fate, &diff.accepted);
    let mut refusals: Vec<Refusal> = without_image(subject.sandbox, fate, live).into_iter().collect();
    refusals.extend(settings(subject.sandbox, live));
    refusals.extend(memory(subject));
    let Some(instance) = subject.instance else {
        return refusals;
    };
    let sandbox = subject.sandbox;
    let protected = sandbox.protect.is_some() || instance.labels.is_true(Labels::PROTECT);
    let lost = |change: &&Change| change.kind == Kind::File && change.impact == Impact::DataLoss;
    if let Some(change) = diff.changes.iter().find(lost).filter(|_| protected) {
        refusals.push(Refusal::refused(
            "plan::protected",
            format!(
                "`{}` is protected, and a folder stands where the file {} is declared",
                sandbox.name, change.name
            ),
            sandbox.protect.as_ref().unwrap_or(&sandbox.at),
            "its disk is guarded",
            "move the folder away, or apply once with `protect false`".to_owned(),
        ));
    }
    // What has no disk can be made anew and nothing else, so that there is no apply before in which `protect` could go.
    let protected = protected && (sandbox.protect.is_some() || !subject.look.diskless);
    if fate == Fate::Replace && protected && instance.labels.is_true(Labels::COMPLETE) {
        refusals.push(Refusal::refused(
            "plan::protected",
            format!("`{}` is protected, and this plan would make it anew", sandbox.name),
            sandbox.protect.as_ref().unwrap_or(&sandbox.at),
            if subject.look.diskless {
                "its disk is guarded, and gone"
            } else {
                "its disk is guarded"
            },
            if subject.look.diskless {
                "nothing but that can be done with it: say `protect false`"
            } else if diff.changes.iter().any(|change| change.reason == Reason::Stale) {
                "say `on-stale=\"keep\"`, or apply once with `protect false`"
            } else {
                "keep its image and clone source as they are, or apply once with `protect false`"
            }
            .to_owned(),
        ));
    }
    let size = instance
        .disk_effective
        .as_ref()
        .and_then(|disk| disk.parse::<Bytes>().ok());
    if let (Some((wanted, at)), Some(size), Fate::Keep) = (&sandbox.disk, size, fate)
        && *wanted < size
        && !accepted.iter().any(|change| change.field.field == "disk")
    {
        refusals.push(Refusal::invalid(
            "plan::disk-shrinks",
            format!(
                "the disk of `{}` has {size}, and cannot shrink to {wanted}",
                sandbox.name
            ),
            at,
            "smaller than it is",
            format!("say `disk \"{size}\"`, or make the sandbox anew under another name"),
        ));
    }
    let renumbered = diff
        .changes
        .iter()
        .flat_map(|change| &change.fields)
        .find(|change| change.field.field == "user");
    if let (Some(user), Some(found), Fate::Keep) = (
        &sandbox.user,
        renumbered.and_then(|change| change.before.as_ref()),
        fate,
    ) {
        refusals.push(Refusal::invalid(
            "plan::user-exists",
            format!(
                "`{}` has the user `{found}` already, and ids are not changed",
                sandbox.name
            ),
            &user.at,
            "another id",
            "keep its uid, or name another user".to_owned(),
        ));
    }
    refusals.extend(held_by_clones(subject, instance, diff, live));
    for (name, at) in &sandbox.snapshots {
        let foreign = fate == Fate::Keep
            && instance.snapshot(name).is_some_and(|snapshot| {
                !matches!(snapshot.labels.ownership(&subject.name), Ownership::Owned { sandbox: of, .. } if of == sandbox.name)
            });
        if foreign {
            refusals.push(Refusal::invalid(
                "plan::foreign-snapshot",
                format!(
                    "`{}` has a snapshot `{name}` that this environment did not take",
                    sandbox.name
                ),
                at,
                "declared here",
                "rename the snapshot on either side".to_owned(),
            ));
        }
    }
    refusals
}

/// A bound on memory that the backend would not keep as it is written.
fn memory(subject: &Subject<'_>) -> Option<Refusal> {
    let Bounds {
        memory_unit: unit,
        memory_least: least,
        ..
    } = subject.capabilities.bounds;
    let (Memory::Bytes(bytes), at) = subject.sandbox.memory.as_ref()? else {
        return None;
    };
    let fits = bytes.0.is_multiple_of(unit) && bytes.0 >= least;
    (!fits).then(|| {
        Refusal::invalid(
            "plan::memory-bound",
            format!(
                "the backend `{}` cannot bound memory at {bytes}",
                subject.capabilities.backend
            ),
            at,
            "not this size",
            format!("it counts in whole {}, of at least {}", Bytes(unit), Bytes(least)),
        )
    })
}

/// Snapshots that would have to be deleted, and cannot while there are clones of them.
fn held_by_clones(subject: &Subject<'_>, source: &LiveInstance, diff: &Diff, live: &Live) -> Vec<Refusal> {
    if !subject.capabilities.bounds.keeps_cloned_snapshots || diff.fate != Fate::Keep {
        return Vec::new();
    }
    let going = diff.changes.iter().filter(|change| change.kind == Kind::Snapshot);
    let going = going.filter(|change| change.action == Action::Delete || change.reason == Reason::Stale);
    let refused = going.filter_map(|change| {
        let origin = format!("{}@{}", subject.sandbox.name, change.name);
        let of_it = |instance: &&LiveInstance| {
            let is_ours = |name: &str| instance.labels.get(name) == source.labels.get(name);
            is_ours(Labels::ENVIRONMENT) && instance.labels.applied().get(&Field::sandbox("clone-from")) == Some(&origin)
        };
        let clone = live.instances.values().find(of_it)?;
        let declared = subject.sandbox.snapshots.iter().find(|(name, _)| name.as_str() == change.name);
        Some(Refusal::invalid(
            "plan::snapshot-has-clones",
            format!(
                "the snapshot `{}` of `{}` would have to be deleted, and `{}` is a clone of it",
                change.name, subject.sandbox.name, clone.name
            ),
            declared.map_or(&subject.sandbox.at, |(_, at)| at),
            "has clones",
            format!(
                "this version of TrueNAS cannot set it aside: delete the clones first, or accept it with `ignore \"snapshot:{}\"`",
                change.name
            ),
        ))
    });
    refused.collect()
}

/// Settings that the backend has no such thing as.
fn settings(sandbox: &Sandbox, live: &Live) -> Vec<Refusal> {
    let refused = sandbox.config.iter().filter_map(|(key, (value, at))| {
        let why = live.refused_settings.get(&(key.clone(), value.clone()))?;
        Some(Refusal::invalid(
            "plan::setting-refused",
            format!("this backend has no setting `{key}` = `{value}`"),
            at,
            "not here",
            why.clone(),
        ))
    });
    refused.collect()
}

/// Nothing is made, and nothing deleted to be made anew, from an image that is not there.
fn without_image(sandbox: &Sandbox, fate: Fate, live: &Live) -> Option<Refusal> {
    let Origin::Image { name, at } = &sandbox.origin else {
        return None;
    };
    let why = live.missing_images.get(name).filter(|_| fate != Fate::Keep)?;
    Some(Refusal::invalid(
        "plan::image-missing",
        format!("nothing can be made of the image `{name}`"),
        at,
        "named here",
        why.clone(),
    ))
}
