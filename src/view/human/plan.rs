//! A whole plan.

use super::super::alike::{by_sandbox, merged};
use super::super::clean;
use super::super::clean::short;
use super::super::palette::{Tone, paint};
use super::change::{Block, origin};
use super::stale::{kept, stale};
use super::wording::{counted, summary, transition};
use crate::model::Kind;
use crate::plan::{Change, Plan, Reason, SpecChangeKind};

/// A plan for people: its changes by sandbox, what else there is to know, and a line that sums it up.
#[must_use]
pub fn plan(plan: &Plan) -> String {
    let mut parts = body(plan);
    parts.push(last_line(plan));
    parts.join("\n\n")
}

/// A plan for people but for its last line.
pub(super) fn body(plan: &Plan) -> Vec<String> {
    let mut parts: Vec<String> = blocks(&plan.changes);
    if let Some(first) = parts.first_mut() {
        let changed = plan
            .changes
            .iter()
            .map(|change| &change.sandbox)
            .collect::<std::collections::BTreeSet<_>>();
        *first = format!(
            "Environment {} on {}, {}:\n\n{first}",
            paint(Tone::Strong, &plan.environment),
            clean(&plan.backend),
            match plan.selected.len() {
                all if all > changed.len() => format!("{} of {all} sandboxes", changed.len()),
                _ => counted(changed.len(), "sandbox", "sandboxes"),
            },
        );
    }
    if let Some(changes) = spec_changes(plan) {
        parts.insert(0, changes);
    }
    parts.extend(accepted(plan));
    parts.extend(notices(plan));
    parts.extend(leftovers(plan));
    parts
}

/// What of the spec itself somebody has to look at before all else.
fn spec_changes(plan: &Plan) -> Option<String> {
    let lines = plan.spec_changes.iter().map(|change| {
        let look = match change.change {
            SpecChangeKind::Changed => format!(" (git diff {})", change.file),
            SpecChangeKind::Moved | SpecChangeKind::New => String::new(),
        };
        clean(&format!("{change}{look}")).into_owned()
    });
    let title = paint(Tone::Wrong, "Look at the spec before you apply it:");
    section(&title, lines)
}

/// The sandboxes that lose what is on their disk without `--prune` having asked for it, one line each.
#[must_use]
pub fn losses(plan: &Plan) -> String {
    let lines = plan.data_loss().map(|change| {
        let what = match change.kind {
            Kind::Snapshot => format!("take {} anew, which others were cloned from", short(&change.name, 60)),
            Kind::Volume => format!("delete volume {}", short(&change.name, 60)),
            Kind::File => format!("the folder {} and all in it go", short(&change.name, 60)),
            Kind::Tree => format!("folders in {} go, with all in them", short(&change.name, 60)),
            _ => change.action.as_str().to_owned(),
        };
        let why = match change.reason {
            Reason::Stale => format!("stale{}", stale(change)),
            reason => reason.to_string(),
        };
        format!(
            "  {} {} ({}): {what}, {why}",
            paint(Tone::Wrong, change.action.symbol()),
            change.sandbox,
            clean(change.instance.as_str()),
        )
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// One part for each run of sandboxes that change alike.
fn blocks(changes: &[Change]) -> Vec<String> {
    let parts = by_sandbox(changes).into_iter().map(|(name, of)| (name, Block::of(&of)));
    merged(parts).iter().map(|(block, names)| block.text(names)).collect()
}

fn accepted(plan: &Plan) -> Option<String> {
    section(
        "Accepted drift, left as it is:",
        plan.accepted.iter().map(|accepted| {
            let until = accepted
                .until
                .map(|until| format!(" until {until}"))
                .unwrap_or_default();
            let reason = accepted.reason.as_deref().map(|reason| format!(": {}", clean(reason)));
            format!(
                "{}: {}: {} {}{}",
                accepted.sandbox,
                clean(&accepted.field.field.to_string()),
                transition(&accepted.field),
                origin(accepted.field.origin),
                paint(Tone::Faint, format!("{until}{}", reason.unwrap_or_default()))
            )
        }),
    )
}

/// What there is to know of a plan that is no change.
#[must_use]
pub fn notices(plan: &Plan) -> Option<String> {
    section(
        "To know:",
        plan.notices
            .iter()
            .map(|notice| format!("{}: {}", notice.sandbox, clean(&notice.text))),
    )
}

fn leftovers(plan: &Plan) -> Option<String> {
    section(
        "Left over, no longer in the spec (--prune deletes them):",
        plan.leftovers.iter().map(|left| {
            let protected = if left.protected { ", protected" } else { "" };
            format!("{} ({}{protected})", left.sandbox, clean(left.instance.as_str()))
        }),
    )
}

fn section(title: &str, lines: impl Iterator<Item = String>) -> Option<String> {
    let mut text = String::new();
    for line in lines {
        text.push_str("\n  · ");
        text.push_str(&line);
    }
    (!text.is_empty()).then(|| format!("{title}{text}"))
}

fn last_line(plan: &Plan) -> String {
    if !plan.in_sync() {
        let counts = summary(&plan.summary());
        if !plan.refusals.is_empty() {
            return format!("{} {counts}; it cannot be applied.", paint(Tone::Wrong, "Plan:"));
        }
        return format!("{} {counts}.", paint(Tone::Strong, "Plan:"));
    }
    in_sync(plan)
}

/// The last line of a plan that has no changes.
pub(super) fn in_sync(plan: &Plan) -> String {
    if !plan.refusals.is_empty() {
        return format!(
            "{} no changes to be seen, but something stands in the way.",
            paint(Tone::Wrong, "Plan:")
        );
    }
    let destroying = plan.selected.is_empty() && plan.leftovers.is_empty();
    let text = if destroying {
        "No changes. The environment is empty.".to_owned()
    } else {
        format!("No changes. The environment matches the spec{}.", kept(plan))
    };
    paint(Tone::Added, text)
}

/// What the plan of a `destroy` or a `gc` has done, in a word.
#[must_use]
pub(super) fn deletes(plan: &Plan) -> Option<&'static str> {
    plan.changes.iter().find_map(|change| match change.reason {
        Reason::Destroyed => Some("Destroyed"),
        Reason::Expired => Some("Deleted"),
        _ => None,
    })
}
