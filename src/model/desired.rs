//! What a whole spec asks for.

use std::collections::BTreeMap;

use indexmap::IndexMap;

use super::{EnvironmentName, Place, Sandbox, SandboxName};

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
}
