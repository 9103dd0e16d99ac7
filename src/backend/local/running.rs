//! Whether a sandbox runs: its pid 1, told apart from any later process with the same number.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

/// A process of this machine since its last start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Process {
    /// Its number.
    pub(super) pid: i32,
    /// When it started, in ticks since the machine did: field 22 of `/proc/PID/stat` (proc(5)).
    pub(super) started: u64,
    /// The machine's start, `/proc/sys/kernel/random/boot_id`: both numbers begin anew with each.
    pub(super) boot: String,
}

impl Process {
    /// The process of that number, now.
    pub(super) fn find(pid: i32) -> Option<Self> {
        let (_, started) = stat(pid)?;
        Some(Self {
            pid,
            started,
            boot: boot()?,
        })
    }

    /// The one that is recorded in a file, if it still runs.
    pub(super) fn read(path: &Path) -> Option<Self> {
        let process: Self = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        process.is_alive().then_some(process)
    }

    /// Whether it runs. One that has ended and that nobody has taken note of does not.
    pub(super) fn is_alive(&self) -> bool {
        let now = stat(self.pid);
        now.is_some_and(|(state, started)| started == self.started && state != 'Z' && state != 'X')
            && boot().is_some_and(|boot| boot == self.boot)
    }

    /// A descriptor of it, which no other process can ever be meant by.
    pub(super) fn open(&self) -> Option<OwnedFd> {
        let pid = Pid::from_raw(self.pid)?;
        let descriptor = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        // Only now is it certain whose number it was.
        self.is_alive().then_some(descriptor)
    }
}

/// State and start of a process.
fn stat(pid: i32) -> Option<(char, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let rest = text.rsplit_once(") ")?.1;
    let mut fields = rest.split(' ');
    let state = fields.next()?.chars().next()?;
    // The state is field 3.
    let started = fields.nth(22 - 4)?.parse().ok()?;
    Some((state, started))
}

fn boot() -> Option<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_start() {
        let own = Process::find(i32::try_from(std::process::id()).expect("fits")).expect("this one runs");
        assert!(own.is_alive());
        assert!(own.open().is_some());
        let mut other = own.clone();
        other.started += 1;
        assert!(!other.is_alive());
        let mut other = own;
        other.boot = "another".to_owned();
        assert!(!other.is_alive(), "the machine was started again");
    }
}
