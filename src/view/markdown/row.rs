//! The rows that one sandbox's changes take in the table, and the diffs below it.

use super::super::human::{difference, stale, text_diff, value};
use super::neutral::{code, sentence};
use crate::model::Kind;
use crate::plan::{Action, Change, FieldChange, Impact, Origin, Reason};

/// How many fields of one object have a row.
const FIELDS: usize = 12;

/// One sandbox's part.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// The cells of each row, without the sandbox's name: symbol, what, change, origin, impact.
    pub(super) rows: Vec<[String; 5]>,
    /// What each diff is of, and its lines.
    pub(super) diffs: Vec<(String, Vec<String>)>,
}

impl Part {
    /// The part of one sandbox; `changes` are all of its changes.
    pub(super) fn of(changes: &[&Change]) -> Self {
        let made = changes
            .iter()
            .any(|change| change.kind == Kind::Sandbox && matches!(change.action, Action::Create | Action::Replace));
        let mut part = Self {
            rows: Vec::new(),
            diffs: Vec::new(),
        };
        for change in changes {
            part.object(change, made);
            if let Some(text) = &change.text {
                let plain = |line: &String| anstream::adapter::strip_str(line).to_string();
                part.diffs
                    .push((what(change), text_diff(text).iter().map(plain).collect()));
            }
        }
        part
    }

    fn object(&mut self, change: &Change, made: bool) {
        let row = |text: String, origin: String| {
            let symbol = change.action.symbol().to_owned();
            [symbol, what(change), text, origin, impact(change.impact)]
        };
        // Of what is made or goes as a whole, the fields say no more.
        let replaced = change.action == Action::Replace;
        let stale = change.reason == Reason::Stale;
        let whole = (made && !replaced) || stale || is_whole(change) || change.fields.is_empty();
        if whole {
            let origins = if change.counts() {
                origins(&change.fields)
            } else {
                String::new()
            };
            self.rows.push(row(reason(change), origins));
            return;
        }
        let shown = change.fields.iter().filter(|field| is_shown(change, field));
        let all: Vec<&FieldChange> = shown.collect();
        for field in all.iter().take(FIELDS) {
            self.rows.push(row(transition(change, field), origin(field.origin)));
        }
        if let Some(more) = all.len().checked_sub(FIELDS).filter(|more| *more > 0) {
            self.rows.push(row(format!("… {more} more"), String::new()));
        }
    }
}

/// A tree's folder itself says nothing where its entries do.
fn is_shown(change: &Change, field: &FieldChange) -> bool {
    change.kind != Kind::Tree || !field.field.field.is_empty() || change.fields.len() == 1
}

fn is_whole(change: &Change) -> bool {
    match change.kind {
        Kind::Run | Kind::Power | Kind::Snapshot => true,
        _ => matches!(change.action, Action::Create | Action::Delete),
    }
}

/// What a change is about.
fn what(change: &Change) -> String {
    match (change.kind, change.action) {
        (Kind::Sandbox, Action::Update) => "settings".to_owned(),
        (Kind::Sandbox, Action::None) => "clone".to_owned(),
        (Kind::Sandbox, _) => "sandbox".to_owned(),
        (kind, _) if change.name.is_empty() => kind.to_string(),
        (kind, _) => format!("{kind} {}", code(&change.name)),
    }
}

/// What is done, and why.
fn reason(change: &Change) -> String {
    let source = change
        .fields
        .iter()
        .find(|field| change.kind == Kind::Sandbox && matches!(field.field.field.as_str(), "image" | "clone-from"));
    match source.and_then(|field| Some((field, field.after.as_deref()?))) {
        Some((field, from)) if field.field.field == "image" => format!("create from image {}", code(from)),
        Some((_, from)) => format!("clone from {}", code(from)),
        None => {
            let what = match change.reason {
                Reason::Stale => stale(change),
                _ => String::new(),
            };
            let what = what.strip_prefix(": ").map(|what| format!(": {}", sentence(what)));
            format!(
                "{}: {}{}",
                change.action.as_str(),
                change.reason,
                what.unwrap_or_default()
            )
        }
    }
}

fn transition(change: &Change, field: &FieldChange) -> String {
    let name = code(&field.field.field);
    if change.kind == Kind::Tree {
        return match difference(field) {
            (_, Some(how)) => format!("{name} {}", code(&how)),
            (action, None) => format!("{} {name}", action.as_str()),
        };
    }
    if field.field.field == "content" && change.text.is_some() {
        return format!("{name} changed");
    }
    let side = |side: &Option<String>| match side {
        Some(text) => code(&value(Some(text))),
        None => "none".to_owned(),
    };
    format!("{name} {} → {}", side(&field.before), side(&field.after))
}

fn origins(fields: &[FieldChange]) -> String {
    let all = [Origin::Drift, Origin::Conflict, Origin::Pending];
    let found = all
        .into_iter()
        .filter(|one| fields.iter().any(|field| field.origin == *one));
    match found.map(origin).collect::<Vec<_>>() {
        none if none.is_empty() => origin(Origin::Pending),
        found => found.join(", "),
    }
}

fn origin(origin: Origin) -> String {
    match origin {
        Origin::Pending => origin.to_string(),
        Origin::Drift | Origin::Conflict => format!("**{origin}**"),
    }
}

fn impact(impact: Impact) -> String {
    match impact {
        Impact::Live => impact.to_string(),
        Impact::Restart | Impact::DataLoss => format!("**{impact}**"),
    }
}
