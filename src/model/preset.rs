//! The `agent` preset: what an agent at work on a repository needs to reach.

use std::sync::LazyLock;

use serde::Deserialize;

use super::Opening;

/// A group of the preset's destinations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresetEntry {
    /// What it is for.
    pub what: String,
    /// Where its names are documented.
    pub source: String,
    /// When that was last looked at, `YYYY-MM-DD`.
    pub date: String,
    /// What it opens.
    pub open: Vec<Opening>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    what: String,
    source: String,
    date: String,
    open: Vec<String>,
}

static AGENT: LazyLock<Vec<PresetEntry>> = LazyLock::new(|| {
    // A test reads it whole: what does not read is a mistake in this program, not in its use.
    let written: Vec<Written> = serde_yaml::from_str(include_str!("agent.yaml")).unwrap_or_default();
    let read = |entry: Written| PresetEntry {
        what: entry.what,
        source: entry.source,
        date: entry.date,
        open: entry.open.iter().filter_map(|text| text.parse().ok()).collect(),
    };
    written.into_iter().map(read).collect()
});

/// What the mode `agent` opens, by group.
#[must_use]
pub fn agent_preset() -> &'static [PresetEntry] {
    &AGENT
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::model::{Date, Destination};

    #[test]
    fn the_preset_is_whole() {
        let written: Vec<Written> = serde_yaml::from_str(include_str!("agent.yaml")).expect("it reads");
        let texts: Vec<&String> = written.iter().flat_map(|entry| &entry.open).collect();
        let read: Vec<&Opening> = agent_preset().iter().flat_map(|entry| &entry.open).collect();
        assert!(texts.len() > 50);
        assert_eq!(
            read.iter().map(ToString::to_string).collect::<Vec<_>>(),
            texts.into_iter().cloned().collect::<Vec<_>>()
        );
        let once: BTreeSet<&&Opening> = read.iter().collect();
        assert_eq!(once.len(), read.len(), "each stands there once");
        for opening in &read {
            assert!(
                matches!(&opening.to, Destination::Domain(name) if name.contains('.')),
                "{opening}"
            );
            assert!(opening.ports.is_some() && opening.protocol.is_some(), "{opening}");
        }
        for entry in agent_preset() {
            assert!(entry.date.parse::<Date>().is_ok(), "{}", entry.what);
            assert!(!entry.source.is_empty() && !entry.what.is_empty());
        }
    }
}
