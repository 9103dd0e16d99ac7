//! Standard input, for sandboxes.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::AsyncRead;

use super::error::Error;

type Input = Box<dyn AsyncRead + Send + Unpin>;

/// Standard input, as bytes come; for one reader.
#[derive(Clone)]
pub(super) struct Stdin(Arc<Mutex<Option<Input>>>);

impl fmt::Debug for Stdin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stdin")
    }
}

impl Stdin {
    pub(super) fn new(stdin: Input) -> Self {
        Self(Arc::new(Mutex::new(Some(stdin))))
    }

    /// All of it, for whoever asks first.
    pub(super) fn take(&self) -> Result<Input, Error> {
        let taken = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        taken.ok_or_else(|| {
            Error::io(
                "cannot read standard input",
                std::io::Error::other("somebody reads it already"),
            )
        })
    }
}
