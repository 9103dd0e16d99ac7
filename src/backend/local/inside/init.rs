//! Pid 1 of a sandbox: takes note of processes that end, and ends the others when it is asked to.

use std::thread::sleep;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// Every process but this one.
const ALL: Pid = Pid::from_raw(-1);

/// By these it is asked to hold everything still, and to let it go on, where there is no control group for that.
const HOLD: Signal = Signal::SIGUSR1;
const GO_ON: Signal = Signal::SIGUSR2;

/// Blocks every signal: before anybody can know this process, for what comes earlier would be lost.
pub(super) fn listen() {
    let _ = SigSet::all().thread_block();
}

/// Serves until it is told to end.
pub(super) fn serve() -> i32 {
    loop {
        match SigSet::all().wait() {
            Ok(Signal::SIGCHLD) => reap(),
            Ok(Signal::SIGTERM) => return end(),
            Ok(HOLD) => drop(kill(ALL, Signal::SIGSTOP)),
            Ok(GO_ON) => drop(kill(ALL, Signal::SIGCONT)),
            _ => {}
        }
    }
}

fn reap() {
    while let Ok(status) = waitpid(ALL, Some(WaitPidFlag::WNOHANG)) {
        if status == WaitStatus::StillAlive {
            break;
        }
    }
}

/// Asks all to end and waits for as long as that takes; whoever asked us loses patience first.
fn end() -> i32 {
    let _ = kill(ALL, Signal::SIGTERM);
    loop {
        reap();
        if kill(ALL, None) == Err(Errno::ESRCH) {
            return 0;
        }
        sleep(Duration::from_millis(2));
    }
}
