//! One entry of a tree.

use super::super::clean::short;
use super::super::palette::{Tone, paint};
use super::wording::{tone, value};
use crate::plan::{ABSENT, Action, FieldChange};

/// `+ a.txt`, `- b.txt`, `~ c.txt: content`, `~ d.txt: file 0644 0:0 → file 0755 0:0`.
pub(super) fn entry(change: &FieldChange) -> String {
    let (action, how) = difference(change);
    let name = short(&change.field.field, 100);
    let line = format!("{} {name}", paint(tone(action), action.symbol()));
    match how {
        Some(how) => format!("{line}: {}", paint(Tone::Faint, how)),
        None => line,
    }
}

/// What is done about an entry, and, where it stays, what differs in it.
pub(in super::super) fn difference(change: &FieldChange) -> (Action, Option<String>) {
    let there = |value: &Option<String>| value.clone().filter(|value| value != ABSENT);
    match (there(&change.before), there(&change.after)) {
        (None, _) => (Action::Create, None),
        (_, None) => (Action::Delete, None),
        (Some(before), Some(after)) => {
            let how = match (attributes(&before), attributes(&after)) {
                (Some(before), Some(after)) if before == after => "content".to_owned(),
                (Some(before), Some(after)) => format!("{before} → {after}"),
                _ => format!("{} → {}", described(&before), described(&after)),
            };
            (Action::Update, Some(how))
        }
    }
}

/// A regular file without its digest: kind, mode and owner.
fn attributes(entry: &str) -> Option<&str> {
    entry
        .starts_with("file ")
        .then(|| entry.rsplit_once(' ').map(|(attributes, _)| attributes))?
}

fn described(entry: &str) -> String {
    value(Some(attributes(entry).unwrap_or(entry)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Field, Kind};
    use crate::plan::Origin;

    #[test]
    fn entries_say_what_differs() {
        for (before, after, shown) in [
            (None, Some("file 0644 0:0 aa"), "+ x"),
            (Some("file 0644 0:0 aa"), Some("absent"), "- x"),
            (Some("file 0644 0:0 aa"), Some("file 0644 0:0 bb"), "~ x: content"),
            (
                Some("file 0644 0:0 aa"),
                Some("file 0755 0:0 bb"),
                "~ x: file 0644 0:0 → file 0755 0:0",
            ),
            (
                Some("link to /etc"),
                Some("directory 0755 0:0"),
                "~ x: link to /etc → directory 0755 0:0",
            ),
        ] {
            let change = FieldChange {
                field: Field::of(Kind::Tree, "/srv", "x"),
                before: before.map(str::to_owned),
                after: after.map(str::to_owned),
                origin: Origin::Drift,
            };
            assert_eq!(anstream::adapter::strip_str(&entry(&change)).to_string(), shown);
        }
    }
}
