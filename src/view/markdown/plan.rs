//! A whole plan, or what a check found.

use super::super::alike::{by_sandbox, merged};
use super::super::human::{counted, differences, kept, probe_outcome, summary, value};
use super::neutral::{code, fenced, sentence};
use super::row::Part;
use crate::model::SandboxName;
use crate::plan::{Origins, Plan};
use crate::probe::{Outcome, Probe};

/// A diff of more lines is folded away.
const SHORT: usize = 12;

/// How many bytes the whole may have: GitHub takes 65,536 characters for a comment. Diffs take what is left.
const ALL: usize = 60_000;

/// How many bytes the table may have.
const TABLE: usize = 24_000;

/// How many bytes each list may have.
const LIST: usize = 6_000;

/// A plan as a comment.
#[must_use]
pub fn plan(plan: &Plan) -> String {
    let line = if plan.in_sync() {
        in_sync(plan)
    } else {
        format!("**{}.**", summary(&plan.summary()))
    };
    document(plan, "plan", line)
}

/// What a check found as a comment.
#[must_use]
pub fn check(plan: &Plan, probes: &[Probe]) -> String {
    let line = if plan.in_sync() {
        in_sync(plan)
    } else {
        let origins = Origins::of(plan);
        format!(
            "**{}: {} drifted, {} in conflict, {} pending.**",
            differences(plan, &origins),
            origins.drift,
            origins.conflict,
            origins.pending
        )
    };
    let mut text = document(plan, "check", line);
    if !probes.is_empty() {
        text.push_str("\n\n");
        text.push_str(&probed(probes));
    }
    text
}

/// What looking out of sandboxes has shown.
fn probed(probes: &[Probe]) -> String {
    let rows = probes.iter().map(|probe| {
        let outcome = match probe.outcome {
            Outcome::Leak => "**LEAK**",
            other => probe_outcome(other),
        };
        format!(
            "| `{}` | {outcome} | {} | {} |",
            probe.sandbox,
            code(&probe.check),
            sentence(&probe.detail)
        )
    });
    let (shown, more) = fitting(rows, LIST);
    let more = match more {
        0 => String::new(),
        more => format!("\n\n… and {} more.", counted(more, "check", "checks")),
    };
    format!(
        "**Egress, probed from inside**\n\n| sandbox | outcome | check | seen from inside |\n| --- | --- | --- | --- |\n{}{more}",
        shown.join("\n")
    )
}

fn in_sync(plan: &Plan) -> String {
    format!("**No changes.** The environment matches the spec{}.", kept(plan))
}

fn document(plan: &Plan, command: &str, line: String) -> String {
    let mut parts = vec![
        format!(
            "### sbx-apply {command}: {} on {}",
            plan.environment,
            code(&plan.backend)
        ),
        line,
    ];
    parts.extend(list(
        "**Look at the spec before you apply it:**",
        plan.spec_changes.iter().map(|change| sentence(&change.to_string())),
    ));
    parts.extend(refusals(plan));
    let sandboxes = by_sandbox(&plan.changes);
    let blocks = merged(sandboxes.into_iter().map(|(name, changes)| (name, Part::of(&changes))));
    parts.extend(table(&blocks));
    parts.extend(accepted(plan));
    parts.extend(notices(plan));
    parts.extend(leftovers(plan));
    diffs(&mut parts, &blocks);
    parts.join("\n\n")
}

fn names(names: &[&SandboxName]) -> String {
    match names {
        [first, .., last] => format!("`{first}` … `{last}`"),
        _ => names.iter().map(|name| format!("`{name}`")).collect(),
    }
}

fn table(blocks: &[(Part, Vec<&SandboxName>)]) -> Option<String> {
    let rows = blocks.iter().flat_map(|(part, sandboxes)| {
        let names = names(sandboxes);
        part.rows.iter().map(move |[symbol, what, change, origin, impact]| {
            format!("| `{symbol}` | {names} | {what} | {change} | {origin} | {impact} |")
        })
    });
    let (shown, more) = fitting(rows, TABLE);
    let more = match more {
        0 => String::new(),
        more => format!("\n\n… and {} more.", counted(more, "row", "rows")),
    };
    (!shown.is_empty()).then(|| {
        format!(
            "| | sandbox | what | change | origin | impact |\n| --- | --- | --- | --- | --- | --- |\n{}{more}",
            shown.join("\n")
        )
    })
}

/// The diffs, as long as there is room. Each says of what it is.
fn diffs(parts: &mut Vec<String>, blocks: &[(Part, Vec<&SandboxName>)]) {
    let mut room = ALL.saturating_sub(parts.iter().map(String::len).sum());
    let mut left_out = 0;
    let all = blocks
        .iter()
        .flat_map(|(part, sandboxes)| part.diffs.iter().map(move |diff| (sandboxes, diff)));
    for (sandboxes, (what, lines)) in all {
        let title = format!("{} {what}", names(sandboxes));
        let is_text = lines.first().is_some_and(|line| line.starts_with("@@"));
        let text = if !is_text {
            format!("{title}: {}", lines.join(" "))
        } else if lines.len() <= SHORT {
            format!("{title}\n\n{}", fenced("diff", lines))
        } else {
            let count = lines.len();
            let diff = fenced("diff", lines);
            // Markdown within HTML has empty lines around it.
            format!("{title}\n\n<details><summary>{count} lines</summary>\n\n{diff}\n\n</details>")
        };
        if text.len() <= room {
            room -= text.len();
            parts.push(text);
        } else {
            left_out += 1;
        }
    }
    if left_out > 0 {
        parts.push(format!(
            "{} left out here: there is no room for them.",
            counted(left_out, "diff is", "diffs are")
        ));
    }
}

/// The lines that there is room for, and how many more there are.
fn fitting(lines: impl Iterator<Item = String>, mut room: usize) -> (Vec<String>, usize) {
    let (mut shown, mut more) = (Vec::new(), 0);
    for line in lines {
        // Once something is left out, so is all that comes after it.
        if more == 0 && line.len() < room {
            room -= line.len() + 1;
            shown.push(line);
        } else {
            more += 1;
        }
    }
    (shown, more)
}

fn refusals(plan: &Plan) -> Option<String> {
    let lines = plan.refusals.iter().map(|refusal| {
        let diagnostic = &refusal.diagnostic;
        let place = diagnostic.marks.first().map(|mark| &mark.place);
        let place = place.filter(|place| place.length > 0);
        let place = place
            .map(|place| format!("{}: ", code(&place.to_string())))
            .unwrap_or_default();
        format!("{place}{}", sentence(&diagnostic.message))
    });
    list("**It cannot be applied:**", lines)
}

fn accepted(plan: &Plan) -> Option<String> {
    let lines = plan.accepted.iter().map(|accepted| {
        let field = &accepted.field;
        let side = |side: &Option<String>| code(&value(side.as_deref()));
        let until = accepted
            .until
            .map(|until| format!(", until {until}"))
            .unwrap_or_default();
        let reason = accepted
            .reason
            .as_deref()
            .map(|reason| format!(": {}", sentence(reason)));
        format!(
            "`{}` {} {} → {} ({}){until}{}",
            accepted.sandbox,
            code(&field.field.to_string()),
            side(&field.before),
            side(&field.after),
            field.origin,
            reason.unwrap_or_default()
        )
    });
    list("Accepted drift, left as it is:", lines)
}

fn notices(plan: &Plan) -> Option<String> {
    let lines = plan
        .notices
        .iter()
        .map(|notice| format!("`{}` {}", notice.sandbox, sentence(&notice.text)));
    list("To know:", lines)
}

fn leftovers(plan: &Plan) -> Option<String> {
    let lines = plan.leftovers.iter().map(|left| {
        let protected = if left.protected { ", protected" } else { "" };
        format!("`{}` ({}{protected})", left.sandbox, code(left.instance.as_str()))
    });
    list("Left over, no longer in the spec (`--prune` deletes them):", lines)
}

fn list(title: &str, lines: impl Iterator<Item = String>) -> Option<String> {
    let (shown, more) = fitting(lines.map(|line| format!("- {line}")), LIST);
    let more = match more {
        0 => String::new(),
        more => format!("\n- … and {more} more"),
    };
    (!shown.is_empty()).then(|| format!("{title}\n\n{}{more}", shown.join("\n")))
}
