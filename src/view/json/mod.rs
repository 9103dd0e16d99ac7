//! For programs: one versioned document, or one versioned event on each line.

mod event;
mod follow;
mod plan;

pub use event::{Event, Line};
pub use follow::Follow;
pub use plan::{Accepted, Change, FORMAT_VERSION, Field, Leftover, Notice, PlanDocument, Probe, Refusal, Step};

use serde::Serialize;
use serde_json::Value;

use super::clean;
use crate::plan::Plan;

/// The JSON Schema of a plan.
#[must_use]
pub fn plan_schema() -> Value {
    schemars::schema_for!(PlanDocument).to_value()
}

/// The JSON Schema of each line that apply and destroy write.
#[must_use]
pub fn events_schema() -> Value {
    schemars::schema_for!(Line).to_value()
}

/// A plan as one document.
#[must_use]
pub fn document(plan: &Plan) -> String {
    pretty(&PlanDocument::of(plan))
}

/// What a check found as one document: the plan, and its probes.
#[must_use]
pub fn check(plan: &Plan, probes: &[crate::probe::Probe]) -> String {
    pretty(&PlanDocument {
        probes: Some(probes.iter().map(Probe::of).collect()),
        ..PlanDocument::of(plan)
    })
}

/// Anything of ours as indented JSON.
#[must_use]
pub fn pretty(value: &impl Serialize) -> String {
    // Strings, numbers, lists and maps with string keys always serialize.
    clean::json(serde_json::to_string_pretty(value).unwrap_or_default())
}
