//! Who holds a lock, as its note says.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::Note;

/// How long a lock holds without being renewed, in seconds.
pub(super) const HOLDS: u64 = 60;

/// A process that holds a lock or wants it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Of this run alone, from chance.
    pub id: String,
    /// Who runs it.
    pub user: String,
    /// The name of its machine.
    pub host: String,
    /// Where its number means something: one start of one kernel, and the namespace of its processes. None where that
    /// is not known, so that nobody takes it for dead.
    pub realm: Option<String>,
    /// Its number there.
    pub pid: u32,
    /// When it started, by the kernel's own count: a number that is given out again does not make another process
    /// this one.
    pub started: Option<u64>,
}

/// Who holds a lock, what for and for how long. What it says comes from others: it is not to be believed beyond
/// what it is for, and to be shown only cleaned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The process.
    #[serde(flatten)]
    pub process: Process,
    /// What it does: `apply`.
    pub doing: String,
    /// Since when, in seconds since 1970-01-01T00:00:00Z, by the holder's clock.
    pub since: u64,
    /// Until when, unless it is renewed.
    pub until: u64,
    /// Whether it has ended and left it, because what it began may still be under way.
    #[serde(default)]
    pub left: bool,
}

/// What a lock is to somebody who wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is one's own already.
    Own,
    /// Somebody works under it.
    Held,
    /// Its holder has ended and left it.
    Left,
    /// Its holder is dead.
    Dead,
    /// It was not renewed in time, by its holder's clock and ours; which may differ.
    Expired,
}

impl Holder {
    /// A holder from now on.
    pub(super) fn new(process: &Process, doing: &str, now: u64) -> Self {
        Self {
            process: process.clone(),
            doing: doing.to_owned(),
            since: now,
            until: now.saturating_add(HOLDS),
            left: false,
        }
    }

    /// The same, renewed.
    pub(super) fn renewed(&self, now: u64) -> Self {
        Self {
            // Later than before, whatever the clock does, so that whoever watches sees a change.
            until: now.saturating_add(HOLDS).max(self.until.saturating_add(1)),
            ..self.clone()
        }
    }

    /// The same, left to whoever comes next.
    pub(super) fn gone(&self) -> Self {
        Self {
            left: true,
            ..self.clone()
        }
    }

    /// As a note. Names are shortened, and what could not stand in a note is left out of them.
    pub(super) fn note(&self) -> Option<Note> {
        let plain = |text: &str| text.chars().filter(|c| !c.is_control()).take(200).collect::<String>();
        let mut holder = self.clone();
        holder.process.user = plain(&self.process.user);
        holder.process.host = plain(&self.process.host);
        Note::new(serde_json::to_string(&holder).ok()?)
    }

    /// Reads a note; none where it makes no sense to this version.
    #[must_use]
    pub fn read(note: &Note) -> Option<Self> {
        serde_json::from_str(note.as_str()).ok()
    }

    /// What it is to a process that wants it. `is_alive` is asked of processes of its own realm only.
    #[must_use]
    pub fn standing(&self, to: &Process, now: u64, is_alive: impl FnOnce(&Process) -> bool) -> Standing {
        let near = self.process.realm.is_some() && self.process.realm == to.realm;
        if self.process.id == to.id {
            Standing::Own
        } else if self.left {
            Standing::Left
        } else if near && !is_alive(&self.process) {
            Standing::Dead
        } else if now > self.until {
            Standing::Expired
        } else {
            Standing::Held
        }
    }
}

/// `alice on laptop (process 4711)`.
impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Process { user, host, pid, .. } = &self.process;
        write!(f, "{user} on {host} (process {pid})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(id: &str, realm: Option<&str>) -> Process {
        Process {
            id: id.to_owned(),
            user: "alice".to_owned(),
            host: "laptop".to_owned(),
            realm: realm.map(str::to_owned),
            pid: 4711,
            started: Some(1),
        }
    }

    #[test]
    fn only_a_process_of_the_same_realm_is_taken_for_dead() {
        let us = process("us", Some("here"));
        let standing = |holder: &Holder, now, alive| holder.standing(&us, now, |_| alive);
        for (realm, alive, now, expected) in [
            (Some("here"), true, 100, Standing::Held),
            (Some("here"), false, 100, Standing::Dead),
            (Some("here"), true, 161, Standing::Expired),
            (Some("there"), false, 100, Standing::Held),
            (Some("there"), false, 160, Standing::Held),
            (Some("there"), false, 161, Standing::Expired),
            (None, false, 100, Standing::Held),
        ] {
            let holder = Holder::new(&process("them", realm), "apply", 100);
            assert_eq!(standing(&holder, now, alive), expected, "{realm:?} {alive} {now}");
        }
        let nowhere = process("us", None);
        let holder = Holder::new(&process("them", None), "apply", 100);
        assert_eq!(holder.standing(&nowhere, 100, |_| false), Standing::Held);
        assert_eq!(standing(&holder.gone(), 100, true), Standing::Left);
        assert_eq!(standing(&Holder::new(&us, "apply", 0), 1000, false), Standing::Own);
    }

    #[test]
    fn a_note_says_it_all_again() {
        let mut holder = Holder::new(&process("us", Some("here")), "apply", 100);
        assert_eq!(Holder::read(&holder.note().expect("a note")), Some(holder.clone()));
        assert_ne!(holder.renewed(0).note(), holder.note(), "a clock that goes back");
        holder.process.user = format!("\u{1b}[2J\u{85}{}", "x".repeat(10_000));
        let note = holder.note().expect("a note");
        assert!(!note.as_str().contains('\u{85}') && !note.as_str().contains("u001b"));
        for strange in ["{}", "free", r#"{"id":"x"}"#] {
            assert_eq!(Holder::read(&Note::new(strange).expect("a note")), None);
        }
    }
}
