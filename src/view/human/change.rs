//! One sandbox of a plan.

use super::super::clean;
use super::super::clean::short;
use super::super::palette::{Tone, paint};
use super::egress::{egress, is_lifted, is_shown, opened, rank as egress_rank};
use super::stale::stale;
use super::text_diff::text_diff;
use super::tree::entry;
use super::wording::{listed, tone, transition, value};
use crate::model::{Kind, SandboxName};
use crate::plan::{ABSENT, Action, Change, FieldChange, Impact, Origin, Reason};

/// How many fields of one object are shown.
const FIELDS: usize = 12;

/// Where lists of a new sandbox's settings are broken.
const WIDTH: usize = 96;

/// A sandbox's part of a plan, without its name: what other sandboxes can share.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Block {
    symbol: &'static str,
    tone: Tone,
    headline: String,
    lines: Vec<String>,
}

impl Block {
    /// The part of one sandbox; `changes` are all of its changes.
    pub(super) fn of(changes: &[&Change]) -> Self {
        let (own, kept): (Vec<&Change>, Vec<&Change>) = changes
            .iter()
            .filter(|change| change.kind == Kind::Sandbox)
            .partition(|change| change.counts());
        let own = own.first().copied();
        let fate = own.map(|change| change.action);
        let mut block = Self {
            symbol: Action::Update.symbol(),
            tone: tone(Action::Update),
            headline: String::new(),
            lines: Vec::new(),
        };
        let made = matches!(fate, Some(Action::Create | Action::Replace));
        if let Some(change) = own {
            if made || fate == Some(Action::Delete) {
                block.symbol = change.action.symbol();
                block.tone = tone(change.action);
            }
            match fate {
                Some(Action::Create) => block.created(change),
                Some(Action::Replace | Action::Delete) => {
                    block.headline = format!("{}{}", change.action.as_str(), remarks(change));
                    block.fields(change, 4);
                }
                _ => block.object(change, "settings", false),
            }
        }
        let idle = changes.iter().all(|change| !change.counts());
        for change in kept {
            let text = format!("{}{}", change.action.as_str(), remarks(change));
            if idle {
                block.headline = text;
            } else {
                let symbol = paint(tone(change.action), change.action.symbol());
                block.lines.push(format!("  {symbol} clone  {text}"));
            }
        }
        let mut others: Vec<&&Change> = changes.iter().filter(|change| change.kind != Kind::Sandbox).collect();
        others.sort_by_key(|change| rank(change));
        for change in others {
            block.object(change, &what(change), made);
        }
        if idle {
            (block.symbol, block.tone) = (Action::None.symbol(), tone(Action::None));
        }
        block
    }

    /// The text, for the sandboxes that it holds for.
    pub(super) fn text(&self, names: &[&SandboxName]) -> String {
        let symbol = paint(self.tone, self.symbol);
        let (name, more) = match names {
            [first, .., last] => (
                format!("{first} … {last}"),
                paint(Tone::Faint, format!("  ({} sandboxes alike)", names.len())),
            ),
            _ => (
                names.first().map(ToString::to_string).unwrap_or_default(),
                String::new(),
            ),
        };
        let mut text = format!("{symbol} {}{more}", paint(Tone::Strong, name));
        if !self.headline.is_empty() {
            text.push_str("  ");
            text.push_str(&self.headline);
        }
        for line in &self.lines {
            text.push('\n');
            text.push_str(line);
        }
        text
    }

    /// A new sandbox: what it is made from, and its settings in few lines.
    fn created(&mut self, change: &Change) {
        let mut settings = Vec::new();
        for field in &change.fields {
            let value = listed(field.after.as_deref());
            match field.field.field.as_str() {
                "image" => self.headline = format!("create from image {value}"),
                "clone-from" => self.headline = format!("clone from {value}"),
                name => match name.split_once(':') {
                    Some(("env", name)) => settings.push(format!("env {}={value}", clean(name))),
                    Some((_, key)) => settings.push(format!("{} {value}", clean(key))),
                    None => settings.push(format!("{} {value}", clean(name))),
                },
            }
        }
        let mut line = String::new();
        for setting in settings {
            if !line.is_empty() && line.chars().count() + setting.chars().count() > WIDTH {
                self.lines.push(paint(Tone::Faint, format!("    {line},")));
                line.clear();
            }
            if !line.is_empty() {
                line.push_str(", ");
            }
            line.push_str(&setting);
        }
        if !line.is_empty() {
            self.lines.push(paint(Tone::Faint, format!("    {line}")));
        }
    }

    /// Something in or about a sandbox. In one that is made anyway, only what it is.
    fn object(&mut self, change: &Change, what: &str, made: bool) {
        let symbol = paint(tone(change.action), change.action.symbol());
        if made {
            let details = paint(Tone::Faint, details(change));
            self.lines.push(format!("  {symbol} {what}{details}"));
            return;
        }
        self.lines.push(format!("  {symbol} {what}{}", remarks(change)));
        if !folded(change) {
            self.fields(change, 6);
        }
    }

    fn fields(&mut self, change: &Change, indent: usize) {
        let indent = " ".repeat(indent);
        let mut shown: Vec<&FieldChange> = change
            .fields
            .iter()
            .filter(|field| change.kind != Kind::Tree || !field.field.field.is_empty())
            .filter(|field| change.kind != Kind::Egress || is_shown(change, field))
            // Said in words, with the reason.
            .filter(|_| change.reason != Reason::Stale)
            .collect();
        if change.kind == Kind::Egress {
            shown.sort_by_key(|field| egress_rank(field));
        }
        for field in shown.iter().take(FIELDS) {
            self.lines.push(format!("{indent}{}", field_line(change, field)));
            if let ("content", Some(text)) = (field.field.field.as_str(), &change.text) {
                self.lines
                    .extend(text_diff(text).into_iter().map(|line| format!("{indent}  {line}")));
            }
        }
        if let Some(more) = shown.len().checked_sub(FIELDS).filter(|more| *more > 0) {
            self.lines.push(paint(Tone::Faint, format!("{indent}… {more} more")));
        }
    }
}

/// The order in which a reader expects things: what runs has been started before.
fn rank(change: &Change) -> (Kind, bool) {
    match (change.kind, change.action) {
        (Kind::Power, Action::Start) => (Kind::Run, false),
        (kind, _) => (kind, true),
    }
}

/// `cpu: 2 → 4 (drift)`.
fn field_line(change: &Change, field: &FieldChange) -> String {
    if change.kind == Kind::Tree {
        return format!("{} {}", entry(field), origin(field.origin));
    }
    if change.kind == Kind::Egress {
        return format!("{} {}", egress(field), origin(field.origin));
    }
    let name = short(&field.field.field, 80);
    let transition = if name == "content" && change.text.is_some() {
        "changed".to_owned()
    } else {
        transition(field)
    };
    format!("{name}: {transition} {}", origin(field.origin))
}

pub(super) fn origin(origin: Origin) -> String {
    paint(tone_of(origin), format!("({origin})"))
}

pub(super) fn tone_of(origin: Origin) -> Tone {
    match origin {
        Origin::Pending => Tone::Faint,
        Origin::Drift => Tone::Warning,
        Origin::Conflict => Tone::Wrong,
    }
}

/// Whether its fields say no more than that there is a change.
fn folded(change: &Change) -> bool {
    match change.kind {
        Kind::Run | Kind::Power | Kind::Snapshot => true,
        Kind::File => matches!(change.action, Action::Create | Action::Delete),
        _ => false,
    }
}

/// What a change is about, in words.
fn what(change: &Change) -> String {
    let name = short(&change.name, 120);
    match (change.kind, change.action) {
        (Kind::Power, action) => action.as_str().to_owned(),
        (Kind::Snapshot, Action::Delete) => format!("delete snapshot {name}"),
        (Kind::Volume, Action::Delete) => format!("delete volume {name}"),
        (Kind::Egress, _) if is_lifted(change) => "egress becomes unrestricted".to_owned(),
        (Kind::Egress, _) => "egress".to_owned(),
        (kind, _) => format!("{kind} {name}"),
    }
}

/// Why, and what it does to whoever uses the sandbox.
fn remarks(change: &Change) -> String {
    let mut why = change.reason.to_string();
    if change.reason == Reason::Stale {
        why.push_str(&stale(change));
    } else if folded(change)
        && let Some(field) = change.fields.first()
        && Reason::from(field.origin) != change.reason
    {
        why = format!("{why}, {}", field.origin);
    }
    let drifted = change.has(Origin::Drift) && folded(change);
    let tone = if drifted { Tone::Warning } else { Tone::Faint };
    let mut text = format!("  {}", paint(tone, format!("({why})")));
    match change.impact {
        Impact::Live => {}
        Impact::Restart => text.push_str(&format!(" {}", paint(Tone::Warning, "[restart]"))),
        Impact::DataLoss => text.push_str(&format!(" {}", paint(Tone::Wrong, "[data loss]"))),
    }
    text
}

/// What is worth knowing of an object that is made with its sandbox.
fn details(change: &Change) -> String {
    let field = |name: &str| {
        change
            .fields
            .iter()
            .find(|field| field.field.field == name)
            .and_then(|field| field.after.as_deref())
    };
    match change.kind {
        Kind::File if field("seed").is_some() => "  once".to_owned(),
        Kind::File if field("content") == Some(ABSENT) => "  must be absent".to_owned(),
        Kind::File => match (field("mode"), field("owner")) {
            (Some(mode), Some(owner)) => format!("  {mode} {}", clean(owner)),
            _ => String::new(),
        },
        Kind::Tree => {
            let entries = change
                .fields
                .iter()
                .filter(|field| !field.field.field.is_empty())
                .count();
            format!("  {}", super::counted(entries, "entry", "entries"))
        }
        Kind::Egress => format!("  {}", opened(change)),
        Kind::Mount => {
            let readonly = if field("readonly") == Some("true") {
                ", to read"
            } else {
                ""
            };
            format!("  from {}{readonly}", value(field("source")))
        }
        Kind::Volume => format!("  at {}", value(field("path"))),
        Kind::Port => format!("  at 127.0.0.1:{}", value(field("host"))),
        _ => String::new(),
    }
}
