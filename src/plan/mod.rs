//! What has to be done: desired × last-applied × live → changes, and changes → steps.
//!
//! Pure and synchronous: no I/O, no clock, no randomness; the same input gives the same plan. Knows the model
//! only: neither specs nor backends.

mod account;
mod adopt;
mod capability;
mod change;
mod consent;
mod cores;
mod destroy;
mod diff;
mod egress;
mod export;
mod extras;
mod facts;
mod gc;
mod graph;
mod guard;
mod held;
mod holes;
mod lower;
mod make;
mod match_up;
mod mounted;
mod peers;
mod ports;
mod query;
mod reason;
mod recipe;
mod restored;
mod run_digest;
pub mod saved;
mod secret;
mod select;
mod sources;
mod spec_files;
mod stale;
mod step;
mod workspace;

pub use account::{Account, AccountError, ensure_account, look_up};
pub use adopt::{Adoption, adopt};
pub use change::{Change, FieldChange, Origins, Summary, TextChange};
pub use consent::{Refusal, RefusalKind};
pub use destroy::destroy;
pub use egress::{may_be_inside, pinned_fact, recorded_inside};
pub use export::{Exported, export_query, make_whole, read_back};
pub use extras::settle_tree;
pub use facts::ABSENT;
pub use gc::{environments, gc, overdue};
pub use graph::Graph;
pub use make::{Accepted, Leftover, Notice, Options, Plan, plan};
pub use match_up::Matched;
pub use query::query;
pub use reason::{Action, Impact, Origin, Reason};
pub use recipe::changed_parts;
pub use restored::restored;
pub use secret::{applied_hashes, secret_paths};
pub use select::{UnknownTarget, select};
pub use spec_files::{SpecChange, SpecChangeKind, spec_record};
pub use step::{Op, SecretFile, Step, StepId};
pub use workspace::wanted_ports;
