//! What must not be done to a sandbox, whatever the consent.

use super::diff::{Diff, Fate, Subject};
use super::{Change, Impact, Reason, Refusal};
use crate::model::{Bytes, Kind, Labels, Live, Origin, Ownership, Sandbox};

/// What must not be done to one sandbox, whatever the consent.
pub(super) fn guard(subject: &Subject<'_>, diff: &Diff, live: &Live) -> Vec<Refusal> {
    let (fate, accepted) = (diff.fate, &diff.accepted);
    let mut refusals: Vec<Refusal> = without_image(subject.sandbox, fate, live).into_iter().collect();
    refusals.extend(settings(subject.sandbox, live));
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
    if fate == Fate::Replace && protected && instance.labels.is_true(Labels::COMPLETE) {
        refusals.push(Refusal::refused(
            "plan::protected",
            format!("`{}` is protected, and this plan would make it anew", sandbox.name),
            sandbox.protect.as_ref().unwrap_or(&sandbox.at),
            "its disk is guarded",
            if diff.changes.iter().any(|change| change.reason == Reason::Stale) {
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
