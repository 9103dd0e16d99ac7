//! Control groups: limits, and holding a sandbox still. Version 1, version 2, and both at once.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Access, access};
use rustix::process::geteuid;
use tokio::time::sleep;

use super::state::{Record, failed};
use super::wire::Membership;
use crate::backend::{Error, ErrorKind, Result};
use crate::model::{Digest, InstanceName, Memory};

/// What limits need.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];
/// The length of time that shares of CPUs are counted in, in microseconds: the kernel's own.
const PERIOD: u64 = 100_000;

/// Where the groups of sandboxes can be made.
#[derive(Debug, Clone, Default)]
pub(super) struct Groups {
    /// Folder of version 2, for limits where it has the controllers, and for holding still.
    unified: Option<PathBuf>,
    /// Whether limits are version 2's.
    unified_limits: bool,
    /// Folders of version 1, by controller.
    split: BTreeMap<&'static str, PathBuf>,
    /// What tells this state folder's groups from those of others.
    mark: String,
}

impl Groups {
    /// What this machine lets us use.
    pub(super) fn find(state: &Path) -> Self {
        let mut groups = Self {
            mark: Digest::of(state.as_os_str().as_encoded_bytes()).short().to_owned(),
            ..Self::default()
        };
        // Fields up to the `-` vary in number; then type, source, options (proc(5)).
        for line in fs::read_to_string("/proc/self/mountinfo").unwrap_or_default().lines() {
            let Some((mount, kind)) = line.split_once(" - ") else {
                continue;
            };
            let Some(at) = mount.split(' ').nth(4).map(PathBuf::from) else {
                continue;
            };
            let mut kind = kind.split(' ');
            match (kind.next(), kind.nth(1)) {
                (Some("cgroup2"), _) => groups.unified = groups.unified.or_else(|| unified(&at)),
                (Some("cgroup"), Some(options)) if geteuid().is_root() => {
                    let of = CONTROLLERS
                        .into_iter()
                        .filter(|one| options.split(',').any(|option| option == *one));
                    groups.split.extend(of.map(|controller| (controller, at.clone())));
                }
                _ => {}
            }
        }
        groups.unified_limits = groups.unified.as_ref().is_some_and(|folder| {
            has(folder, "cgroup.subtree_control") || (is_top(folder) && has(folder, "cgroup.controllers"))
        });
        groups
    }

    /// Whether CPUs, memory and processes can be limited.
    pub(super) fn limit(&self) -> bool {
        self.unified_limits || CONTROLLERS.iter().all(|controller| self.split.contains_key(controller))
    }

    /// The folders of a sandbox's groups.
    fn of(&self, name: &InstanceName) -> Vec<PathBuf> {
        let own = format!("sbx-{}-{name}", self.mark);
        let mut folders: Vec<_> = self.unified.iter().map(|folder| folder.join(&own)).collect();
        if !self.unified_limits {
            folders.extend(self.split.values().map(|folder| folder.join(&own)));
        }
        folders.sort();
        folders.dedup();
        folders
    }

    /// Makes a sandbox's groups with its limits, and gives them.
    pub(super) fn make(&self, name: &InstanceName, record: &Record) -> Result<Membership> {
        if self.unified_limits
            && let Some(top) = self
                .unified
                .as_ref()
                .filter(|folder| !has(folder, "cgroup.subtree_control"))
        {
            let all = CONTROLLERS.map(|controller| format!("+{controller}")).join(" ");
            fs::write(top.join("cgroup.subtree_control"), all)
                .map_err(|source| failed("cannot use control groups for limits", source))?;
        }
        let folders = self.of(name);
        for folder in &folders {
            match fs::create_dir(folder) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(failed(format!("cannot make {}", folder.display()), error));
                }
                _ => {}
            }
        }
        self.set(name, record)?;
        Ok(self.membership(name))
    }

    /// The groups of a running sandbox; those that are there.
    pub(super) fn membership(&self, name: &InstanceName) -> Membership {
        let mut folders = self.of(name);
        folders.retain(|folder| folder.exists());
        let is_unified = |folder: &PathBuf| self.unified.as_ref().is_some_and(|top| folder.starts_with(top));
        let (mut unified, split): (Vec<_>, _) = folders.into_iter().partition(is_unified);
        Membership {
            unified: unified.pop(),
            split,
        }
    }

    /// Puts the limits of a record in force.
    pub(super) fn set(&self, name: &InstanceName, record: &Record) -> Result<()> {
        if !self.limit() {
            return Ok(());
        }
        let own = format!("sbx-{}-{name}", self.mark);
        let put = |controller: &str, file: &str, value: String| {
            let folder = match self.unified_limits {
                true => self.unified.as_ref(),
                false => self.split.get(controller),
            };
            let Some(folder) = folder else { return Ok(()) };
            let file = folder.join(&own).join(file);
            fs::write(&file, &value)
                .map_err(|source| failed(format!("cannot set the limit {} to {value}", file.display()), source))
        };
        let pids = record.config.get(PROCESSES).cloned();
        let memory = record.memory.as_deref().map(bytes).transpose()?;
        let quota = record.cpu.map(|cpu| u64::from(cpu) * PERIOD);
        let or = |number: Option<u64>, none: &str| number.map_or_else(|| none.to_owned(), |number| number.to_string());
        if self.unified_limits {
            put("cpu", "cpu.max", format!("{} {PERIOD}", or(quota, "max")))?;
            put("memory", "memory.max", or(memory, "max"))?;
        } else {
            put("cpu", "cpu.cfs_quota_us", or(quota, "-1"))?;
            put("memory", "memory.limit_in_bytes", or(memory, "-1"))?;
        }
        put("pids", "pids.max", pids.unwrap_or_else(|| "max".to_owned()))
    }

    /// Removes a stopped sandbox's groups.
    pub(super) async fn remove(&self, name: &InstanceName) {
        for folder in self.of(name) {
            // The kernel lets go of the last process a moment after its end. One that stays is empty.
            for _ in 0..50 {
                match fs::remove_dir(&folder) {
                    Err(error) if error.kind() == io::ErrorKind::ResourceBusy => sleep(Duration::from_millis(2)).await,
                    _ => break,
                }
            }
        }
    }

    /// Holds everything in a sandbox still. Says whether it can.
    pub(super) async fn freeze(&self, name: &InstanceName) -> Result<bool> {
        let Some(folder) = self.freezer(name) else {
            return Ok(false);
        };
        let cannot = |source| failed(format!("cannot hold `{name}` still"), source);
        fs::write(folder.join("cgroup.freeze"), "1").map_err(cannot)?;
        for _ in 0..2000 {
            let events = fs::read_to_string(folder.join("cgroup.events")).map_err(cannot)?;
            if events.lines().any(|line| line == "frozen 1") {
                return Ok(true);
            }
            sleep(Duration::from_millis(1)).await;
        }
        Err(Error::new(
            ErrorKind::Timeout,
            format!("`{name}` did not stand still within two seconds"),
        ))
    }

    /// Lets everything in a sandbox go on. Says whether it can.
    pub(super) fn thaw(&self, name: &InstanceName) -> Result<bool> {
        let Some(folder) = self.freezer(name) else {
            return Ok(false);
        };
        fs::write(folder.join("cgroup.freeze"), "0")
            .map_err(|source| failed(format!("cannot let `{name}` go on"), source))?;
        Ok(true)
    }

    /// The group by which a sandbox can be held still.
    fn freezer(&self, name: &InstanceName) -> Option<PathBuf> {
        let folder = self.unified.as_ref()?.join(format!("sbx-{}-{name}", self.mark));
        folder.join("cgroup.freeze").exists().then_some(folder)
    }
}

/// The setting that bounds the number of processes.
pub(super) const PROCESSES: &str = "limits.processes";

/// The folder of version 2 to make groups in: the top for root, else the highest above this process that is
/// delegated to its user.
fn unified(at: &Path) -> Option<PathBuf> {
    if geteuid().is_root() {
        return Some(at.to_owned());
    }
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let own = at.join(own);
    let ours = |folder: &&Path| {
        folder.starts_with(at)
            && access(folder.join("cgroup.procs"), Access::WRITE_OK).is_ok()
            && access(*folder, Access::WRITE_OK).is_ok()
    };
    own.ancestors()
        .take_while(ours)
        .filter(|folder| has(folder, "cgroup.subtree_control"))
        .last()
        .map(Path::to_owned)
}

/// Whether it is the top of all groups, which may hold processes beside groups with limits.
fn is_top(folder: &Path) -> bool {
    !folder.join("cgroup.type").exists()
}

fn has(folder: &Path, file: &str) -> bool {
    let text = fs::read_to_string(folder.join(file)).unwrap_or_default();
    CONTROLLERS
        .iter()
        .all(|controller| text.split_whitespace().any(|one| one == *controller))
}

/// A bound on memory in bytes.
fn bytes(memory: &str) -> Result<u64> {
    let wrong = || Error::new(ErrorKind::Invalid, format!("`{memory}` is no bound on memory"));
    match memory.parse::<Memory>().map_err(|_| wrong())? {
        Memory::Bytes(bytes) => Ok(bytes.0),
        Memory::Percent(percent) => {
            let text =
                fs::read_to_string("/proc/meminfo").map_err(|source| failed("cannot read /proc/meminfo", source))?;
            let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
            let kilobytes: u64 = total
                .and_then(|total| total.trim().strip_suffix(" kB")?.trim().parse().ok())
                .ok_or_else(wrong)?;
            Ok(kilobytes * 1024 / 100 * u64::from(percent))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(cpu: Option<u32>, memory: Option<&str>, processes: Option<&str>) -> Record {
        let config = processes.map(|number| (PROCESSES.to_owned(), number.to_owned()));
        let text = serde_json::json!({
            "image": "host", "upper": "", "layers": [], "labels": {}, "env": {}, "created_at": 0, "snapshots": [],
            "cpu": cpu, "memory": memory, "config": config.into_iter().collect::<BTreeMap<_, _>>(),
        });
        serde_json::from_value(text).expect("a record")
    }

    /// Version 2, as far as files tell it: the kernel of the machine that this was written on has its controllers
    /// in version 1.
    #[test]
    fn limits_of_version_2_are_written_in_its_words() {
        let top = tempfile::tempdir().expect("a folder");
        fs::write(top.path().join("cgroup.controllers"), "cpuset cpu io memory pids\n").expect("writes");
        fs::write(top.path().join("cgroup.subtree_control"), "").expect("writes");
        let groups = Groups {
            unified: Some(top.path().to_owned()),
            unified_limits: true,
            split: BTreeMap::new(),
            mark: "mark".to_owned(),
        };
        assert!(groups.limit());
        let name = InstanceName::observed("one");
        let own = top.path().join("sbx-mark-one");
        let said = |file: &str| fs::read_to_string(own.join(file)).expect("reads");
        let joins = groups
            .make(&name, &record(Some(2), Some("64MiB"), Some("20")))
            .expect("makes");
        assert_eq!((joins.unified, joins.split), (Some(own.clone()), vec![]));
        let handed_down = fs::read_to_string(top.path().join("cgroup.subtree_control")).expect("reads");
        assert_eq!(handed_down, "+cpu +memory +pids");
        assert_eq!(
            [said("cpu.max"), said("memory.max"), said("pids.max")],
            ["200000 100000", "67108864", "20"]
        );
        groups.set(&name, &record(None, None, None)).expect("sets");
        assert_eq!(
            [said("cpu.max"), said("memory.max"), said("pids.max")],
            ["max 100000", "max", "max"]
        );
    }

    #[test]
    fn a_group_has_what_limits_need_or_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |text: &str| fs::write(folder.path().join("cgroup.subtree_control"), text).expect("writes");
        for (text, all) in [
            ("cpu memory pids\n", true),
            ("cpuset cpu io memory pids\n", true),
            ("memory pids\n", false),
            ("cpuset memory pids\n", false),
        ] {
            write(text);
            assert_eq!(has(folder.path(), "cgroup.subtree_control"), all, "{text}");
        }
        assert!(!has(folder.path(), "cgroup.controllers"));
    }
}
