//! This process and others, as the kernel tells them (proc(5)).

use std::collections::BTreeMap;
use std::fs;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};

use crate::apply::Process;

/// This process.
pub(super) fn this(variables: &BTreeMap<String, String>) -> Process {
    let read = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    let named = ["USER", "LOGNAME"]
        .iter()
        .find_map(|name| variables.get(*name))
        .cloned();
    let user = named.unwrap_or_else(|| format!("user {}", rustix::process::getuid().as_raw()));
    // Numbers of processes are those of a namespace, and start anew with the machine.
    let boot = read("/proc/sys/kernel/random/boot_id");
    let namespace = fs::read_link("/proc/self/ns/pid").ok();
    let realm = boot
        .zip(namespace)
        .map(|(boot, namespace)| format!("{boot} {}", namespace.display()));
    let pid = std::process::id();
    Process {
        id: format!("{:016x}{:016x}", chance(), chance()),
        user,
        host: read("/proc/sys/kernel/hostname").unwrap_or_else(|| "an unknown machine".to_owned()),
        realm,
        pid,
        started: stat(pid).map(|(_, started)| started),
    }
}

/// A number from chance: what keys the standard library's hash maps.
fn chance() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Whether a process of our realm lives. One that has ended and is yet to be waited for does not.
pub(super) fn is_alive(process: &Process) -> bool {
    match stat(process.pid) {
        Some((state, started)) => {
            !matches!(state, 'Z' | 'X' | 'x') && process.started.is_none_or(|expected| expected == started)
        }
        None => false,
    }
}

/// A process's state and when it started, in ticks since the machine did; none where there is no such process.
fn stat(pid: u32) -> Option<(char, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in brackets and may have anything in it; the 3rd field comes after it, and the 22nd.
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn this_process_lives_and_others_with_its_number_did_not() {
        let this = this(&BTreeMap::new());
        assert!(
            this.realm.is_some() && this.started.is_some() && is_alive(&this),
            "{this:?}"
        );
        let earlier = this.started.map(|started| started.saturating_sub(1));
        assert!(!is_alive(&Process {
            started: earlier,
            ..this.clone()
        }));
        assert_ne!(this.id, super::this(&BTreeMap::new()).id);
    }

    #[test]
    fn the_dead_are_dead_even_before_they_are_waited_for() {
        let mut child = Command::new("sleep").arg("60").spawn().expect("starts");
        let mut process = this(&BTreeMap::new());
        process.pid = child.id();
        process.started = stat(child.id()).map(|(_, started)| started);
        assert!(is_alive(&process));
        child.kill().expect("ends");
        while stat(child.id()).is_some_and(|(state, _)| state != 'Z') {
            std::thread::yield_now();
        }
        assert!(!is_alive(&process));
        child.wait().expect("is waited for");
        assert!(!is_alive(&process));
    }
}
