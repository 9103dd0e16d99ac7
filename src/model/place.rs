//! Where in a spec something stands.

use std::sync::Arc;

/// A stretch of a source file. Carried by everything that later floors may have to complain about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The file, as it was named on the command line or by the include that read it.
    pub file: Arc<str>,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Where the stretch starts, in bytes from the beginning of the file.
    pub offset: usize,
    /// How long it is, in bytes.
    pub length: usize,
}

impl Place {
    /// The place of what no file says: a value from the command line, or a test's.
    #[must_use]
    pub fn nowhere() -> Self {
        Self {
            file: Arc::from("<command line>"),
            line: 1,
            column: 1,
            offset: 0,
            length: 0,
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}
