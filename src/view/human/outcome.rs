//! How an apply ended.

use std::collections::BTreeMap;

use super::super::diagnostics::{Style, render};
use super::super::outcome::{Outcome, Verdict};
use super::super::palette::{Tone, paint};
use super::failure::step_error;
use super::plan::deletes;
use super::wording::{counted, took};
use crate::apply::{Failure, Report};
use crate::model::{Diagnostic, Kind};
use crate::plan::{Op, Plan, Step, StepId};
use crate::spec::Sources;

/// The end of an apply in words; the first text is the result, the second all that went wrong.
#[must_use]
pub fn outcome(outcome: &Outcome<'_>) -> (Option<String>, Option<String>) {
    let took = took(outcome.elapsed);
    let result = match outcome.verdict {
        Verdict::Done => {
            let text = if let Some(deleted) = deletes(outcome.plan) {
                let of = |kind: Kind| {
                    outcome
                        .plan
                        .changes
                        .iter()
                        .filter(move |change| change.kind == kind)
                        .count()
                };
                let mut what = counted(of(Kind::Sandbox), "sandbox", "sandboxes");
                let volumes = of(Kind::Volume);
                if volumes > 0 {
                    what.push_str(&format!(" and {}", counted(volumes, "volume", "volumes")));
                }
                format!("{deleted} {what} in {took}.")
            } else {
                let changes = outcome.plan.changes.iter().filter(|change| change.counts()).count();
                let changes = counted(changes, "change", "changes");
                let kept = outcome.remaining.map(super::stale::kept).unwrap_or_default();
                format!("Applied {changes} in {took}. The environment matches the spec{kept}.")
            };
            Some(paint(Tone::Added, text))
        }
        Verdict::NothingToDo | Verdict::Refused | Verdict::Failed | Verdict::Interrupted => None,
    };
    let Some(report) = outcome.report else {
        return (result, None);
    };
    let mut parts = failures(outcome.plan, report, outcome.spec);
    parts.extend(skipped(outcome.plan, report));
    parts.extend(not_started(outcome.plan, report));
    if let Some(remaining) = outcome.remaining.filter(|plan| !plan.in_sync()) {
        parts.push(format!(
            "{}\n\n{}",
            paint(
                Tone::Wrong,
                "Everything was applied, and looked at again it is not in sync:"
            ),
            super::plan(remaining)
        ));
    }
    let closing = match outcome.verdict {
        Verdict::Interrupted => Some(format!("Interrupted after {took}: {}.", tally(outcome.plan, report))),
        Verdict::Failed if !report.failed.is_empty() => {
            Some(format!("Failed after {took}: {}.", tally(outcome.plan, report)))
        }
        _ => None,
    };
    parts.extend(closing.map(|text| format!("{text} Apply again to go on from here.")));
    (result, (!parts.is_empty()).then(|| parts.join("\n\n")))
}

fn tally(plan: &Plan, report: &Report) -> String {
    let counts = [
        (shown(plan, report.done.iter()).len(), "done"),
        (report.failed.len(), "failed"),
        (
            shown(plan, report.skipped.iter().map(|(step, _)| step)).len(),
            "skipped",
        ),
        (shown(plan, report.not_started.iter()).len(), "not finished"),
    ];
    let mut words: Vec<String> = Vec::new();
    for (count, word) in counts {
        match words.is_empty() {
            true if count > 0 || word == "done" => {
                words.push(format!("{} {word}", counted(count, "step", "steps")));
            }
            false if count > 0 => words.push(format!("{count} {word}")),
            _ => {}
        }
    }
    words.join(", ")
}

fn failures(plan: &Plan, report: &Report, spec: Option<(&Sources, Style)>) -> Vec<String> {
    let failures = report.failed.iter().map(|failure| {
        let title = find(plan, &failure.step).map_or_else(
            || failure.step.to_string(),
            |step| format!("{}: {}", step.sandbox, super::super::clean(&step.title)),
        );
        format!(
            "{} {title}\n{}{}",
            paint(Tone::Wrong, "failed:"),
            step_error(&failure.error),
            spec.map(|(sources, style)| excerpt(failure, sources, style))
                .unwrap_or_default(),
        )
    });
    failures.collect()
}

/// The lines of the spec that the backend does not take.
fn excerpt(failure: &Failure, sources: &Sources, style: Style) -> String {
    if failure.marks.is_empty() {
        return String::new();
    }
    let refused = Diagnostic {
        code: "apply::not-taken",
        message: "the backend does not take what the spec says here".to_owned(),
        marks: failure.marks.clone(),
        help: None,
    };
    format!("\n{}", render(&[refused], sources, style).trim_end())
}

/// Skipped steps by the failure they wait for: how many, and of which sandboxes.
fn skipped(plan: &Plan, report: &Report) -> Option<String> {
    let mut groups: BTreeMap<&StepId, Vec<&StepId>> = BTreeMap::new();
    for (step, because) in &report.skipped {
        groups
            .entry(because)
            .or_default()
            .extend(shown(plan, std::iter::once(step)));
    }
    groups.retain(|_, steps| !steps.is_empty());
    let lines = groups.into_iter().map(|(because, steps)| {
        format!(
            "  · {} after {because}: {}",
            counted(steps.len(), "step", "steps"),
            sandboxes(plan, &steps)
        )
    });
    let lines: Vec<String> = lines.collect();
    (!lines.is_empty()).then(|| format!("Skipped, because they need what failed:\n{}", lines.join("\n")))
}

fn not_started(plan: &Plan, report: &Report) -> Option<String> {
    let steps = shown(plan, report.not_started.iter());
    (!steps.is_empty()).then(|| {
        let count = counted(steps.len(), "step", "steps");
        format!("Not finished: {count} of {}.", sandboxes(plan, &steps))
    })
}

/// The sandboxes of some steps, in the plan's order; not all of them when there are many.
fn sandboxes(plan: &Plan, steps: &[&StepId]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for step in steps.iter().filter_map(|id| find(plan, id)) {
        if !names.contains(&step.sandbox.as_str()) {
            names.push(step.sandbox.as_str());
        }
    }
    let more = names.len().saturating_sub(6);
    if more > 1 {
        names.truncate(6);
        return format!("{} and {more} more", names.join(", "));
    }
    names.join(", ")
}

fn find<'a>(plan: &'a Plan, id: &StepId) -> Option<&'a Step> {
    plan.steps.iter().find(|step| step.id == *id)
}

/// Those of some steps that people get to see.
fn shown<'a>(plan: &Plan, steps: impl Iterator<Item = &'a StepId>) -> Vec<&'a StepId> {
    steps.filter(|id| find(plan, id).is_none_or(is_shown)).collect()
}

/// Whether people get to see a step: records are kept in silence.
pub(in super::super) fn is_shown(step: &Step) -> bool {
    !matches!(step.op, Op::Record)
}
