//! The caller's environment, as far as sandboxes get any of it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use rustls::crypto::ring;

use super::error::Error;
use crate::model::{Desired, SecretKey, Secrets};

/// The variables of the caller's environment. Only those that a spec or the caller names leave it.
#[derive(Clone)]
pub(super) struct Caller(Arc<BTreeMap<String, String>>);

/// Not what is in it.
impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Caller")
    }
}

impl Caller {
    pub(super) fn new(variables: BTreeMap<String, String>) -> Self {
        Self(Arc::new(variables))
    }

    /// A variable that the caller has named.
    pub(super) fn variable(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The values of a spec's secrets: each the variable's bytes as they are.
    pub(super) fn secrets(&self, desired: &Desired) -> Result<Secrets, Error> {
        let variables = desired.secret_variables();
        if variables.is_empty() {
            return Ok(Secrets::default());
        }
        let value = |name: &&str| Some(((*name).to_owned(), Arc::from(self.0.get(*name)?.as_bytes())));
        let values = variables.iter().filter_map(value).collect();
        let mut key = [0; SecretKey::BYTES];
        let filled = ring::default_provider().secure_random.fill(&mut key);
        filled.map_err(|_| Error::io("no key for the secrets", std::io::Error::other("no randomness")))?;
        Ok(Secrets::new(values, SecretKey::new(key)))
    }
}
