//! Sandboxes of one count whose parts of a plan are the same are shown once.

use crate::model::SandboxName;
use crate::plan::Change;

/// The changes of each sandbox, in their order.
pub(super) fn by_sandbox(changes: &[Change]) -> Vec<(&SandboxName, Vec<&Change>)> {
    let mut sandboxes: Vec<(&SandboxName, Vec<&Change>)> = Vec::new();
    for change in changes {
        match sandboxes.last_mut() {
            Some((name, of)) if **name == change.sandbox => of.push(change),
            _ => sandboxes.push((&change.sandbox, vec![change])),
        }
    }
    sandboxes
}

/// Each part once, with the sandboxes that it holds for.
pub(super) fn merged<'a, T: PartialEq>(
    parts: impl IntoIterator<Item = (&'a SandboxName, T)>,
) -> Vec<(T, Vec<&'a SandboxName>)> {
    let mut merged: Vec<(T, Vec<&SandboxName>)> = Vec::new();
    for (name, part) in parts {
        match merged.last_mut() {
            Some((last, names)) if *last == part && is_sibling(names, name) => names.push(name),
            _ => merged.push((part, vec![name])),
        }
    }
    merged
}

/// Whether the name goes on where the others of a count stand: `task-2` after `task-1`.
fn is_sibling(names: &[&SandboxName], next: &SandboxName) -> bool {
    let numbered = |name: &SandboxName| {
        let (base, number) = name.as_str().rsplit_once('-')?;
        Some((base.to_owned(), number.parse::<u64>().ok()?))
    };
    match (names.last().and_then(|last| numbered(last)), numbered(next)) {
        (Some((base, number)), Some((next_base, next_number))) => base == next_base && next_number == number + 1,
        _ => false,
    }
}
