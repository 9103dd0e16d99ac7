//! What of a policy nobody can put in force.

use super::{Error, ErrorKind, Result};
use crate::model::PinnedPolicy;

/// Refuses names that no line of a file could hold, for each line is a rule or a setting, and openings without an address.
pub(super) fn check(policy: &PinnedPolicy) -> Result<()> {
    let refuse = |message: String| Err(Error::new(ErrorKind::Invalid, message));
    for opening in &policy.open {
        if opening.networks(&policy.addresses).next().is_none() {
            return refuse(format!("`{opening}` has no address to open"));
        }
    }
    match policy.names().map(|(name, _)| name).find(|name| !is_host_name(name)) {
        Some(name) => refuse(format!("{name:?} is no host name")),
        None => Ok(()),
    }
}

/// Whether a name is of characters that mean nothing else wherever it is written.
pub(super) fn is_host_name(name: &str) -> bool {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
    !name.is_empty() && name.chars().all(good)
}
