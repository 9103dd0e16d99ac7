//! What the caller hands on to sandboxes: variables by their names, and standard input.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::AsyncRead;

use super::error::Error;

/// Standard input, as bytes come.
pub(super) type Input = Box<dyn AsyncRead + Send + Unpin>;

/// The caller's environment and standard input. Never shown: variables hold secrets.
#[derive(Clone)]
pub(super) struct Caller {
    variables: Arc<BTreeMap<String, String>>,
    stdin: Arc<Mutex<Option<Input>>>,
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller").finish_non_exhaustive()
    }
}

impl Caller {
    pub(super) fn new(variables: BTreeMap<String, String>, stdin: Input) -> Self {
        Self {
            variables: Arc::new(variables),
            stdin: Arc::new(Mutex::new(Some(stdin))),
        }
    }

    /// A variable.
    pub(super) fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// Standard input, for whoever asks first.
    pub(super) fn stdin(&self) -> Result<Input, Error> {
        let taken = self.stdin.lock().unwrap_or_else(PoisonError::into_inner).take();
        taken.ok_or_else(|| Error::io("cannot read standard input", std::io::ErrorKind::NotFound.into()))
    }
}
