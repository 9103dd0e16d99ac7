//! Numbers and values in words.

use std::time::Duration;

use super::super::clean::short;
use super::super::palette::Tone;
use crate::plan::{Action, FieldChange, Summary};

/// How much of a value is shown.
const VALUE: usize = 60;

/// `1 step`, `2 steps`.
#[must_use]
pub fn counted(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// The counts of a plan, each of whole changes: `4 to create, 1 to change; 2 drifted, 1 in conflict`. Zeros are left
/// out.
#[must_use]
pub fn summary(summary: &Summary) -> String {
    let work = [
        (summary.create, "to create"),
        (summary.update, "to change"),
        (summary.replace, "to replace"),
        (summary.delete, "to delete"),
        (summary.start, "to start"),
        (summary.stop, "to stop"),
        (summary.run, "to run"),
        (summary.snapshot, "to snapshot"),
    ];
    let remarks = [
        (summary.drift - summary.conflict, "drifted"),
        (summary.conflict, "in conflict"),
        (
            summary.data_loss,
            if summary.data_loss == 1 {
                "loses data"
            } else {
                "lose data"
            },
        ),
    ];
    let list = |counts: &[(usize, &str)]| {
        let counts = counts.iter().filter(|(count, _)| *count > 0);
        counts
            .map(|(count, words)| format!("{count} {words}"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let (work, remarks) = (list(&work), list(&remarks));
    if remarks.is_empty() {
        work
    } else {
        format!("{work}; {remarks}")
    }
}

/// A value of a field, short: digests by their first twelve digits, nothing as `(none)`.
pub(in super::super) fn value(value: Option<&str>) -> String {
    let Some(value) = value else {
        return "(none)".to_owned();
    };
    match value.strip_prefix("sha256:") {
        Some(digest) => format!("sha256:{}", digest.get(..12).unwrap_or(digest)),
        None if value.is_empty() => "\"\"".to_owned(),
        None => short(value, VALUE).into_owned(),
    }
}

/// A value among others in a list: quoted where it would run together with them.
pub(super) fn listed(text: Option<&str>) -> String {
    let shown = value(text);
    match text {
        Some(text) if text.contains([' ', ',', '"', '\t']) => format!("\"{shown}\""),
        _ => shown,
    }
}

/// `2 → 4`.
pub(super) fn transition(change: &FieldChange) -> String {
    format!(
        "{} → {}",
        value(change.before.as_deref()),
        value(change.after.as_deref())
    )
}

/// The colour of an action.
pub(super) fn tone(action: Action) -> Tone {
    match action {
        Action::Create | Action::Snapshot => Tone::Added,
        Action::Update | Action::Restore => Tone::Changed,
        Action::Replace | Action::Delete => Tone::Removed,
        Action::Start | Action::Run | Action::Stop => Tone::Active,
        Action::None => Tone::Faint,
    }
}

/// A span of time in its two greatest units: `3d 4h`, `12s`.
#[must_use]
pub fn age(seconds: u64) -> String {
    let units = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];
    let first = units.iter().position(|(_, unit)| seconds >= *unit).unwrap_or(3);
    let (name, unit) = units[first];
    let mut text = format!("{}{name}", seconds / unit);
    if let Some((name, smaller)) = units.get(first + 1) {
        let rest = seconds % unit / smaller;
        if rest > 0 {
            text.push_str(&format!(" {rest}{name}"));
        }
    }
    text
}

/// How long something took: `0.3s`, `2m 5s`.
pub(in super::super) fn took(elapsed: Duration) -> String {
    if elapsed < Duration::from_secs(60) {
        format!("{:.1}s", elapsed.as_secs_f64())
    } else {
        age(elapsed.as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_two_units() {
        for (seconds, shown) in [(0, "0s"), (61, "1m 1s"), (3_600, "1h"), (90_061, "1d 1h")] {
            assert_eq!(age(seconds), shown);
        }
    }
}
