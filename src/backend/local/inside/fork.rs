//! Making processes.
#![allow(unsafe_code)]

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::process;

use nix::errno::Errno;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

use super::failure::{Result, Trying as _};
use super::sys;

/// `CLONE_INTO_CGROUP` (clone3(2), Linux 5.7).
const INTO_GROUP: u64 = 0x2_0000_0000;

/// Makes a process that does `child` and ends with the code that it gives.
pub(super) fn spawn(child: impl FnOnce() -> i32) -> Result<Pid> {
    // SAFETY: a helper has one thread, so the child may do anything that this process may: no lock is held by a
    // thread that it does not have.
    match unsafe { fork() }.trying("cannot make a process")? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => process::exit(child()),
    }
}

/// Goes on in a control group of version 2, given as its folder: as a new process, while this one waits for it and ends as
/// it does. Moving a process that is there holds up all forks of the machine, for tens of milliseconds; so that is done
/// only where the kernel does not make processes in a group.
pub(super) fn go_on_in(group: &Path) -> Result<()> {
    let folder = File::open(group).trying(format_args!("cannot open {}", group.display()))?;
    match clone_into(&folder) {
        Ok(Some(child)) => stand_by(child),
        Ok(None) => Ok(()),
        // It says what is wrong, too, where neither works.
        Err(_) => fs::write(group.join("cgroup.procs"), "0").trying(format_args!("cannot join {}", group.display())),
    }
}

/// A fork whose child is in a group. Gives the child, and none to the child itself.
fn clone_into(group: &File) -> nix::Result<Option<Pid>> {
    // SAFETY: all bits zero are valid: numbers, and addresses that are not used then.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = INTO_GROUP;
    arguments.exit_signal = u64::try_from(libc::SIGCHLD).unwrap_or_default();
    arguments.cgroup = u64::try_from(group.as_raw_fd()).unwrap_or_default();
    // SAFETY: without flags that share anything this is a fork, and as in `spawn` there is one thread. The structure
    // outlives the call, which takes its size.
    let answer = unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<libc::clone_args>()) };
    let child = Errno::result(answer)?;
    Ok(i32::try_from(child).ok().filter(|child| *child != 0).map(Pid::from_raw))
}

/// Waits for a child in whose place this process stands, without anything of its own that somebody could wait for.
fn stand_by(child: Pid) -> ! {
    if let Ok(null) = OpenOptions::new().read(true).write(true).open("/dev/null") {
        let _ = (0..3).try_for_each(|number| sys::place(&null, number));
    }
    sys::close_others(&[]);
    loop {
        match waitpid(child, None) {
            Ok(WaitStatus::Exited(_, code)) => process::exit(code),
            Err(Errno::EINTR) => {}
            _ => process::exit(1),
        }
    }
}
