//! Plan × backend → events and a report.
//!
//! Observes for the plan, carries its steps out in their order and concurrently, and verifies afterwards. Does
//! not print and does not read the environment: events are its only way to the outside.

mod error;
mod event;
mod executor;
mod lock;
mod observe;
mod output;
mod perform;
mod progress;
mod report;
mod secrets;
mod spec_files;
mod verify;

pub use error::StepError;
pub use event::{Event, Stream};
pub use executor::{Interrupt, apply};
pub use lock::{Claim, Clock, Holder, Lock, LockError, Loss, Process, Standing};
pub use observe::{
    find_volumes, look_inside, observe, observe_environment, observe_owned, observe_scope, observe_with, scope_of,
    scope_of_environment,
};
pub use report::{Failure, Report};
pub use secrets::keep_key;
pub use spec_files::keep_spec_record;
pub use verify::{Verified, verify};
