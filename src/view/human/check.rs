//! What a check found.

use super::super::palette::{Tone, paint};
use super::plan::{body, in_sync};
use super::wording::counted;
use crate::plan::{Origin, Origins, Plan};

/// A check for people: the plan's changes, and who moved since the last apply.
#[must_use]
pub fn check(plan: &Plan) -> String {
    let mut parts = body(plan);
    parts.push(if plan.in_sync() {
        in_sync(plan)
    } else {
        conclusion(plan)
    });
    parts.join("\n\n")
}

/// `9 differences in 6 changes`: a change of an object, which is what a plan counts, can be of several fields.
#[must_use]
pub(in super::super) fn differences(plan: &Plan, origins: &Origins) -> String {
    let changes = plan.changes.iter().filter(|change| change.counts()).count();
    let differences = counted(origins.all(), "difference", "differences");
    if changes == origins.all() {
        return differences;
    }
    format!("{differences} in {}", counted(changes, "change", "changes"))
}

/// How many differences there are of each origin, and what that means.
fn conclusion(plan: &Plan) -> String {
    let origins = Origins::of(plan);
    let mut text = format!("{} {}.", paint(Tone::Strong, "Check:"), differences(plan, &origins));
    let rows = [
        (
            origins.drift,
            Origin::Drift,
            "the live system changed since the last apply",
        ),
        (
            origins.conflict,
            Origin::Conflict,
            "the live system and the spec changed since the last apply",
        ),
        (
            origins.pending,
            Origin::Pending,
            "the spec changed since the last apply, or was never applied",
        ),
    ];
    for (count, origin, meaning) in rows.into_iter().filter(|(count, _, _)| *count > 0) {
        let origin = paint(super::change::tone_of(origin), format!("{origin:<8}"));
        text.push_str(&format!("\n  {count:>3} {origin}  {meaning}"));
    }
    text.push_str(if plan.refusals.is_empty() {
        "\nAn apply makes all of it as the spec says."
    } else {
        "\nIt cannot be applied."
    });
    text
}
