//! Commands and files inside a sandbox, by SSH: the system itself runs no commands in containers for its callers.
//!
//! `key` is what opens the sandboxes of an environment, `access` finds a sandbox's address and sees to it that the key is
//! inside and that what answers is the sandbox, `session` is one connection, and `script` says to a shell what is to run.

mod access;
mod key;
mod script;
mod session;

pub(super) use access::{Doors, NO_SERVER};
pub(super) use script::{Identity, prelude, quoted};
pub(super) use session::Session;
