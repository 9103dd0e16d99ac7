//! What changes of an outbound network policy, in words: what opens, what can no longer be reached, what moved.

use super::super::clean::short;
use super::super::palette::{Tone, paint};
use super::counted;
use super::wording::{transition, value};
use crate::plan::{Change, FieldChange};

/// How a policy that is as it should be is enforced, outside and inside.
const ALL_WELL: [&str; 2] = ["yes", "inside, best effort"];

/// One field of a policy.
pub(super) fn egress(field: &FieldChange) -> String {
    let name = &field.field.field;
    if let Some(to) = name.strip_prefix("allow:") {
        let to = short(to, 100);
        return match field.after {
            Some(_) => format!("{} {to}", paint(Tone::Added, "+")),
            None => format!("{} {to}  no longer reachable", paint(Tone::Removed, "-")),
        };
    }
    if let Some(to) = name.strip_prefix("addresses:") {
        let to = short(to, 80);
        return match (&field.before, &field.after) {
            (None, Some(_)) => format!("{to} at {}", value(field.after.as_deref())),
            (Some(_), None) => format!("{to} no longer at {}", value(field.before.as_deref())),
            _ => format!("{to} moved: {}", transition(field)),
        };
    }
    match name.as_str() {
        // From outside to inside, or back.
        "enforced" if ALL_WELL.iter().any(|well| field.before.as_deref() == Some(*well)) => {
            let place = |well: &Option<String>| match well.as_deref() {
                Some(inside) if inside == ALL_WELL[1] => "inside, best effort",
                Some(_) => "by the host",
                None => "-",
            };
            format!("enforced: {} → {}", place(&field.before), place(&field.after))
        }
        "enforced" if field.before.is_some() => {
            let why = field.before.as_deref().unwrap_or_default();
            format!("not enforced as it should be: {}", short(why, 160))
        }
        "mode" if field.after.is_none() => format!("mode: {} → unrestricted", value(field.before.as_deref())),
        _ => format!("{}: {}", short(name, 80), transition(field)),
    }
}

/// Whether a change takes a policy away.
pub(super) fn is_lifted(change: &Change) -> bool {
    let mode = |field: &&FieldChange| field.field.field == "mode";
    let after = change.fields.iter().find(mode).map(|field| field.after.as_deref());
    matches!(after, Some(None | Some("unrestricted")))
}

/// What the policy of a new sandbox opens, in few words.
pub(super) fn opened(change: &Change) -> String {
    let of = |name: &str| {
        let mut fields = change.fields.iter().filter(|field| field.field.field == name);
        fields.next().and_then(|field| field.after.clone())
    };
    let mode = of("mode").unwrap_or_default();
    let destinations = change
        .fields
        .iter()
        .filter(|field| field.field.field.starts_with("allow:") && field.after.is_some())
        .count();
    let inside = match of("enforced").as_deref() {
        Some(inside) if inside == ALL_WELL[1] => format!(", {inside}"),
        _ => String::new(),
    };
    match (mode.as_str(), destinations) {
        ("unrestricted" | "none", _) => format!("{mode}{inside}"),
        (_, count) => format!("{mode}, {}{inside}", counted(count, "destination", "destinations")),
    }
}

/// Whether a field says anything that the mode does not: a policy that comes or goes has a name and is enforced.
pub(super) fn is_shown(change: &Change, field: &FieldChange) -> bool {
    let moved = change
        .fields
        .iter()
        .any(|field| field.field.field == "mode" && is_unrestricted(field));
    !moved || !matches!(field.field.field.as_str(), "policy" | "enforced")
}

fn is_unrestricted(field: &FieldChange) -> bool {
    let none = |value: &Option<String>| value.as_deref().is_none_or(|mode| mode == "unrestricted");
    none(&field.before) || none(&field.after)
}

/// The order in which people read: whether there is a policy, then what it opens, then where that is.
pub(super) fn rank(field: &FieldChange) -> usize {
    let order = ["mode", "policy", "enforced", "allow:", "addresses:"];
    let place = order.iter().position(|prefix| field.field.field.starts_with(prefix));
    place.unwrap_or(order.len())
}
