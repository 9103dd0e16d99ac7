//! What a whole spec asks for.

use std::collections::{BTreeMap, BTreeSet};

use indexmap::IndexMap;

use super::{EnvironmentName, FileState, Place, Sandbox, SandboxName, Secrets, SpecFile};

/// The backend that a spec names, with its settings as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendChoice {
    /// Its name; `local` when the spec has none.
    pub name: String,
    /// Settings by key.
    pub settings: BTreeMap<String, String>,
    /// Where the spec says so.
    pub at: Place,
}

/// A spec with everything filled in: valid, complete, and independent of the text it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    /// The environment.
    pub environment: EnvironmentName,
    /// The backend.
    pub backend: BackendChoice,
    /// The sandboxes in the spec's order, counts expanded.
    pub sandboxes: IndexMap<SandboxName, Sandbox>,
    /// The values of its secrets. A spec names only their variables; whoever may read those fills this in.
    pub secrets: Secrets,
    /// The files that it was read from; none of what came another way.
    pub files: Vec<SpecFile>,
}

impl Desired {
    /// The variables that hold its secrets, each once, ordered.
    #[must_use]
    pub fn secret_variables(&self) -> BTreeSet<&str> {
        let files = self.sandboxes.values().flat_map(|sandbox| sandbox.files.values());
        let variables = files.filter_map(|file| match &file.state {
            FileState::Secret(variable) => Some(variable.as_str()),
            _ => None,
        });
        variables.collect()
    }
}
