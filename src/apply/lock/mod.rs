//! One at a time: whoever changes an environment holds its lock, a note on the backend (see
//! [`crate::backend::KeepNotes`]).
//!
//! `holder` says who a note speaks of and what may be done about it, and is pure; `claim` gets hold of the lock,
//! `held` keeps it alive and lets go of it. The moment and whether a process lives are asked of the caller.

mod claim;
mod held;
mod holder;

pub use claim::{Claim, LockError};
pub use held::{Clock, Lock, Loss};
pub use holder::{Holder, Process, Standing};
