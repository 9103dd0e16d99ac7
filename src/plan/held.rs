//! What is held back for the sake of differences that are accepted as they are.

use super::diff::{Diff, Subject};
use super::{FieldChange, Origin, facts};
use crate::model::{Field, File, GuestPath, Kind, Mode, Owner};

/// Moves steps from what differs to what is accepted: the first one whose `on-change` names a file or tree of which
/// the spec has new contents that are not written, and all after it, whose digests follow from its own. Run now, they
/// would run on the old contents, and not again once the new ones are there.
pub(super) fn hold_back(subject: &Subject<'_>, fields: &mut Vec<FieldChange>, accepted: &mut Vec<FieldChange>) {
    let waits_for = |change: &FieldChange, path: &str| {
        let contents = match change.field.kind {
            Kind::File => matches!(change.field.field.as_str(), "content" | "seed"),
            Kind::Tree => true,
            _ => false,
        };
        contents && change.origin != Origin::Drift && change.field.name == path
    };
    let steps = &subject.sandbox.run;
    let first = steps.iter().position(|run| {
        let path = run.on_change.as_ref();
        path.is_some_and(|path| accepted.iter().any(|change| waits_for(change, path.as_str())))
    });
    let Some(first) = first else { return };
    let held: Vec<&str> = steps[first..].iter().map(|run| run.name.as_str()).collect();
    let is_held = |change: &mut FieldChange| change.field.kind == Kind::Run && held.contains(&&*change.field.name);
    accepted.extend(fields.extract_if(.., is_held));
}

/// A file with the live mode and owner where those are accepted: they are written along with whatever else of it is.
pub(super) fn keeping_accepted(diff: &Diff, path: &GuestPath, file: &File) -> File {
    let kept = |field: &str| {
        let field = facts::of_file(path, field);
        let accepted = diff.accepted.iter().find(|change| change.field == field);
        accepted.and_then(|change| change.before.as_deref())
    };
    let mode = kept("mode").and_then(|mode| u32::from_str_radix(mode, 8).ok());
    let owner = kept("owner").and_then(|owner| {
        let (uid, gid) = owner.split_once(':')?;
        Some(Owner {
            uid: uid.parse().ok()?,
            gid: gid.parse().ok()?,
        })
    });
    File {
        mode: mode.map_or(file.mode, Mode::of_bits),
        owner: owner.unwrap_or(file.owner),
        ..file.clone()
    }
}

/// Whether what the record says of a field that left the spec stays there: its undoing is held back, of a file with all
/// that is known of it, and is due once that is accepted no more.
pub(super) fn stays_for_later(accepted: &[FieldChange], field: &Field) -> bool {
    accepted.iter().any(|change| {
        let same_file = field.kind == Kind::File && change.field.kind == Kind::File && change.field.name == field.name;
        change.after.is_none() && (change.field == *field || same_file)
    })
}
