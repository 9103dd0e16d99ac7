//! What looking out of sandboxes has shown.

use super::super::clean::short;
use super::super::palette::{Tone, paint};
use super::super::table::table;
use super::counted;
use crate::probe::{Outcome, Probe};

/// A table of all checks, and what they come to.
#[must_use]
pub fn probes(probes: &[Probe]) -> String {
    if probes.is_empty() {
        return "Egress: no sandbox has a policy that closes anything, so there is nothing to probe.".to_owned();
    }
    let rows: Vec<Vec<String>> = probes
        .iter()
        .map(|probe| {
            vec![
                probe.sandbox.to_string(),
                outcome(probe.outcome).to_owned(),
                short(&probe.check, 60).into_owned(),
                short(&probe.detail, 80).into_owned(),
            ]
        })
        .collect();
    let count = |outcome| probes.iter().filter(|probe| probe.outcome == outcome).count();
    let (held, leaks, unknown) = (count(Outcome::Held), count(Outcome::Leak), count(Outcome::Unknown));
    let conclusion = match (leaks, unknown) {
        (0, 0) => format!("Egress holds: {}.", counted(held, "check", "checks")),
        (0, unknown) => format!("Egress: {held} held, {unknown} unknown."),
        (leaks, _) => paint(
            Tone::Wrong,
            format!("Egress leaks: {leaks} of {}.", counted(probes.len(), "check", "checks")),
        ),
    };
    format!(
        "{}\n\n{conclusion}",
        table(&["SANDBOX", "OUTCOME", "CHECK", "SEEN FROM INSIDE"], &rows)
    )
}

/// The word for an outcome.
pub(in super::super) fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Held => "held",
        Outcome::Leak => "LEAK",
        Outcome::Unknown => "unknown",
    }
}
