//! Ending everything that a command has started, as it is seen from outside.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::os::fd::OwnedFd;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::fs::{CWD, Dir, Mode, OFlags, openat};

use super::failure::{Result, Trying as _};

/// So often processes are looked for anew: they may multiply meanwhile.
const ROUNDS: usize = 100;

/// This machine's `/proc`, kept open before the sandbox's takes its place.
#[derive(Debug)]
pub(super) struct Host(OwnedFd);

impl Host {
    pub(super) fn open() -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat(CWD, "/proc", flags, Mode::empty())
            .map(Self)
            .trying("cannot open /proc")
    }

    /// Ends a child of this process and all that descend from it. They are stopped first, so that none can make
    /// another while the list is made.
    pub(super) fn end_all(&self, keeper: Pid) {
        let mut stopped = BTreeSet::new();
        for _ in 0..ROUNDS {
            let found: BTreeSet<i32> = self.below(keeper.as_raw());
            let new: Vec<i32> = found.difference(&stopped).copied().collect();
            if new.is_empty() {
                break;
            }
            for pid in new {
                let _ = kill(Pid::from_raw(pid), Signal::SIGSTOP);
                stopped.insert(pid);
            }
        }
        // The keeper is the last: what has lost its parent stays below it until then.
        for pid in stopped.iter().filter(|pid| **pid != keeper.as_raw()) {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        let _ = kill(keeper, Signal::SIGKILL);
    }

    fn below(&self, root: i32) -> BTreeSet<i32> {
        let parents = self.parents();
        let descends = |pid: i32| {
            let mut next = Some(pid);
            while let Some(at) = next {
                if at == root {
                    return true;
                }
                next = parents.get(&at).copied().filter(|parent| *parent > 0);
            }
            false
        };
        parents.keys().copied().filter(|pid| descends(*pid)).collect()
    }

    /// The parent of each process.
    fn parents(&self) -> BTreeMap<i32, i32> {
        let Ok(folder) = Dir::read_from(&self.0) else {
            return BTreeMap::new();
        };
        folder
            .filter_map(|entry| {
                let pid: i32 = entry.ok()?.file_name().to_str().ok()?.parse().ok()?;
                let flags = OFlags::RDONLY | OFlags::CLOEXEC;
                let file = openat(&self.0, format!("{pid}/stat"), flags, Mode::empty()).ok()?;
                let mut text = String::new();
                std::fs::File::from(file).read_to_string(&mut text).ok()?;
                // After the name: state, parent (proc(5)).
                let parent = text.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?;
                Some((pid, parent))
            })
            .collect()
    }
}
