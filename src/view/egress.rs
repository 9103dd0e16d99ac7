//! What a sandbox may reach: what the spec says beside what is in force.

use std::collections::BTreeMap;

use serde::Serialize;

use super::clean::short;
use super::json;
use super::palette::{Tone, paint};
use super::table::table;
use crate::model::{EgressMode, Enforcement, LivePolicy, Opening, Policy, SandboxName, agent_preset};

/// The policy of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Egress {
    format_version: &'static str,
    /// The sandbox, by its name in the spec.
    sandbox: String,
    /// Whether there is such a sandbox, or the spec alone.
    made: bool,
    /// What the spec says.
    declared: Option<&'static str>,
    /// The policy's name within the environment; none where none is in force.
    policy: Option<String>,
    /// Whether anything is closed.
    in_force: bool,
    /// Whether that is enforced inside the sandbox, which is best effort: its root can undo it.
    best_effort: bool,
    /// What is wrong with its enforcement.
    fault: Option<String>,
    /// Every destination that is declared or open.
    destinations: Vec<Row>,
}

/// One destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Row {
    /// Where to, on which ports.
    to: String,
    /// Whether the spec opens it.
    declared: bool,
    /// Whether it is open.
    open: bool,
    /// The addresses that are pinned.
    addresses: Vec<String>,
    /// Who says so: the spec, or a group of the preset with its source and date.
    by: String,
}

impl Egress {
    /// From what the spec says and what is in force.
    #[must_use]
    pub fn of(sandbox: &SandboxName, declared: Option<&Policy>, live: Option<&LivePolicy>) -> Self {
        Self::told(sandbox.as_str(), declared, live, true)
    }

    /// From what the spec says of a sandbox that has not been made yet.
    #[must_use]
    pub fn to_be(sandbox: &str, declared: Option<&Policy>) -> Self {
        Self::told(sandbox, declared, None, false)
    }

    fn told(sandbox: &str, declared: Option<&Policy>, live: Option<&LivePolicy>, made: bool) -> Self {
        let mut rows: BTreeMap<Opening, Row> = BTreeMap::new();
        let mut row = |opening: &Opening, declared: bool, by: String| {
            let open = live.is_some_and(|live| live.policy.open.contains(opening));
            let pinned = live.and_then(|live| live.policy.addresses.get(&opening.to.pinned_as()?));
            rows.entry(opening.clone()).or_insert(Row {
                to: opening.to_string(),
                declared,
                open,
                addresses: pinned.into_iter().flatten().map(ToString::to_string).collect(),
                by,
            });
        };
        for rule in declared.into_iter().flat_map(|policy| &policy.allow) {
            let opening = rule.opening();
            let by = match rule.preset {
                true => preset(&opening),
                false => "the spec".to_owned(),
            };
            row(&opening, true, by);
        }
        for opening in live.into_iter().flat_map(|live| &live.policy.open) {
            row(opening, false, "nobody: not in the spec".to_owned());
        }
        Self {
            format_version: json::FORMAT_VERSION,
            sandbox: sandbox.to_owned(),
            made,
            declared: declared.map(|policy| policy.mode.as_str()),
            policy: live.map(|live| live.policy.key.name.clone()),
            in_force: live.is_some(),
            best_effort: live.is_some_and(|live| live.policy.enforce == Enforcement::Guest),
            fault: live
                .and_then(|live| live.fault.as_ref())
                .map(|fault| fault.text.clone()),
            destinations: rows.into_values().collect(),
        }
    }

    /// As one document.
    #[must_use]
    pub fn json(&self) -> String {
        json::pretty(self)
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let declared = self.declared.unwrap_or(EgressMode::Unrestricted.as_str());
        let in_force = match &self.policy {
            Some(policy) if self.best_effort => format!(
                "in force as {}, inside the sandbox: best effort, whoever is root in there can undo it",
                short(policy, 80)
            ),
            Some(policy) => format!("in force as {}", short(policy, 80)),
            None if self.made => "nothing is closed".to_owned(),
            None => "not made yet".to_owned(),
        };
        let mut text = format!("{}: {declared} by the spec; {in_force}", self.sandbox);
        if let Some(fault) = &self.fault {
            let fault = format!("not enforced as it should be: {}", short(fault, 160));
            text.push_str(&format!("\n{}", paint(Tone::Wrong, fault)));
        }
        if self.destinations.is_empty() {
            return text;
        }
        let rows: Vec<Vec<String>> = self
            .destinations
            .iter()
            .map(|row| {
                let state = match (row.declared, row.open) {
                    (_, true) => "open",
                    (true, false) if self.in_force => "closed",
                    _ if self.made => "not closed",
                    _ => "to be open",
                };
                let addresses = match row.addresses.as_slice() {
                    [] => "-".to_owned(),
                    all => short(&all.join(","), 60).into_owned(),
                };
                vec![
                    short(&row.to, 80).into_owned(),
                    state.to_owned(),
                    addresses,
                    row.by.clone(),
                ]
            })
            .collect();
        text.push_str("\n\n");
        text.push_str(&table(&["DESTINATION", "STATE", "ADDRESSES", "BY"], &rows));
        text
    }
}

/// Which group of the preset opens it.
fn preset(opening: &Opening) -> String {
    let group = agent_preset().iter().find(|group| group.open.contains(opening));
    group.map_or_else(
        || "the agent preset".to_owned(),
        |group| format!("agent: {} ({}, {})", group.what, group.source, group.date),
    )
}
