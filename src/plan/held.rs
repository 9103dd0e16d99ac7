//! Set-up steps that wait for contents which are accepted as they are.

use super::diff::Subject;
use super::{FieldChange, Origin};
use crate::model::Kind;

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
