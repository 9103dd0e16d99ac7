//! Plans, events and problems in forms to be read: for people, as JSON, as Markdown, as graphs and tables.
//!
//! The only floor besides the command line that writes to the caller's streams. It decides nothing: what it
//! shows has been decided below. It does not read the environment; whether to colour is told to it.

mod alike;
mod clean;
pub mod diagnostics;
pub mod doctor;
pub mod egress;
pub mod files;
pub mod graph;
mod hidden;
pub mod human;
pub mod json;
pub mod learned;
pub mod markdown;
mod outcome;
mod output;
mod palette;
pub mod progress;
pub mod show;
pub mod snapshots;
mod table;

pub use clean::clean;
pub use outcome::{Outcome, Verdict};
pub use output::{Channel, Output, Sink};

use std::time::Duration;

use crate::apply::Event;
use crate::plan::Plan;
use crate::probe::Probe;

/// One way to follow a plan from its making to its end.
pub trait View {
    /// The plan has been made.
    fn plan(&mut self, plan: &Plan);

    /// Something happens while it is applied.
    fn event(&mut self, plan: &Plan, event: &Event<'_>);

    /// Sandboxes were looked out of, when it was over.
    fn probes(&mut self, probes: &[Probe]);

    /// It is over.
    fn outcome(&mut self, outcome: &Outcome<'_>);

    /// It ended with an error, which is told elsewhere; whatever came before, a plan and an outcome or neither of them.
    fn broken_off(&mut self, verdict: Verdict, elapsed: Duration);
}
