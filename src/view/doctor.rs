//! What a look at a backend has found: for people, or as a document.

use serde::Serialize;

use super::clean;
use super::json::FORMAT_VERSION;
use super::palette::{Tone, paint};
use crate::backend::{Examination, Health};
use crate::model::Capability;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Doctor {
    /// The version of this form: `1`.
    pub format_version: &'static str,
    /// The backend's name.
    pub backend: String,
    /// What answers, with its version; null where nothing does.
    pub answers: Option<String>,
    /// Whether sandboxes can be made.
    pub usable: bool,
    /// What was looked at.
    pub findings: Vec<Finding>,
    /// What specs may ask for; empty where that is not known.
    pub capabilities: Vec<Able>,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What.
    pub what: String,
    /// `good`, `lacking`, or `broken`, which means that there can be no sandboxes.
    pub health: &'static str,
    /// What was found.
    pub said: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// Something that specs may ask for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Able {
    /// Its name.
    pub name: &'static str,
    /// Whether the backend can.
    pub able: bool,
    /// Why it cannot, where there is more to say.
    pub reason: Option<String>,
}

impl Doctor {
    /// Of a backend.
    #[must_use]
    pub fn new(backend: &str, examination: &Examination) -> Self {
        let able = |capability: Capability| {
            let known = examination.capabilities.as_ref()?;
            Some(Able {
                name: capability.as_str(),
                able: known.can(capability),
                reason: known
                    .reason(capability)
                    .filter(|_| !known.can(capability))
                    .map(str::to_owned),
            })
        };
        let findings = examination.findings.iter().map(|finding| Finding {
            what: finding.what.to_owned(),
            health: match finding.health {
                Health::Good => "good",
                Health::Lacking => "lacking",
                Health::Broken => "broken",
            },
            said: finding.said.clone(),
            hint: finding.hint.clone(),
        });
        Self {
            format_version: FORMAT_VERSION,
            backend: backend.to_owned(),
            answers: examination.answers.clone(),
            usable: examination.is_usable(),
            findings: findings.collect(),
            capabilities: Capability::ALL.into_iter().filter_map(able).collect(),
        }
    }
}

/// A report for people.
#[must_use]
pub fn human(doctor: &Doctor) -> String {
    let answers = doctor.answers.as_deref().unwrap_or("nothing answers");
    let mut text = format!("Backend {}: {}\n", clean(&doctor.backend), clean(answers));
    let width = doctor
        .findings
        .iter()
        .map(|finding| finding.what.len())
        .max()
        .unwrap_or(0);
    for finding in &doctor.findings {
        let mark = match finding.health {
            "good" => paint(Tone::Added, "✓"),
            "lacking" => paint(Tone::Warning, "-"),
            _ => paint(Tone::Wrong, "✗"),
        };
        text.push_str(&format!(
            "  {mark} {:<width$}  {}\n",
            finding.what,
            clean(&finding.said)
        ));
        if let Some(hint) = &finding.hint {
            text.push_str(&format!(
                "    {:<width$}  {} {}\n",
                "",
                paint(Tone::Active, "hint:"),
                clean(hint)
            ));
        }
    }
    let named = |able: bool| {
        let names = doctor
            .capabilities
            .iter()
            .filter(|one| one.able == able)
            .map(|one| one.name);
        names.collect::<Vec<_>>().join(", ")
    };
    if !doctor.capabilities.is_empty() {
        text.push_str(&format!("Can: {}\n", named(true)));
        let lacks: Vec<_> = doctor.capabilities.iter().filter(|one| !one.able).collect();
        if !lacks.is_empty() {
            text.push_str("Cannot:\n");
        }
        let width = lacks.iter().map(|one| one.name.len()).max().unwrap_or(0);
        for lack in lacks {
            let reason = lack.reason.as_deref().unwrap_or("not on this backend");
            text.push_str(&format!("  {:<width$}  {}\n", lack.name, clean(reason)));
        }
    }
    text.push_str(match doctor.usable {
        true => "Sandboxes can be made here.",
        false => "No sandboxes can be made here.",
    });
    text
}

/// The document for programs.
#[must_use]
pub fn json(doctor: &Doctor) -> String {
    super::json::pretty(doctor)
}
