//! Making processes.
#![allow(unsafe_code)]

use std::process;

use nix::unistd::{ForkResult, Pid, fork};

use super::failure::{Result, Trying as _};

/// Makes a process that does `child` and ends with the code that it gives.
pub(super) fn spawn(child: impl FnOnce() -> i32) -> Result<Pid> {
    // SAFETY: a helper has one thread, so the child may do anything that this process may: no lock is held by a
    // thread that it does not have.
    match unsafe { fork() }.trying("cannot make a process")? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => process::exit(child()),
    }
}
