//! What lies in a folder of a sandbox: a table, or a document.

use serde::Serialize;

use super::clean;
use super::json::FORMAT_VERSION;
use super::table::table;
use crate::backend::FileEntry;
use crate::model::{Desired, GuestPath};

/// A listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listing {
    /// The version of this form: `1`.
    pub format_version: &'static str,
    /// The environment.
    pub environment: String,
    /// The backend's name.
    pub backend: String,
    /// The sandbox, by its name in the spec.
    pub sandbox: String,
    /// The folder.
    pub path: String,
    /// What lies in it, ordered by path.
    pub entries: Vec<Entry>,
}

/// One of its entries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Absolute path; what is no UTF-8 in it is replaced by U+FFFD.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Permission bits, in octal digits.
    pub mode: String,
    /// Whether it is a folder.
    pub is_dir: bool,
}

impl Listing {
    /// Of a folder of a sandbox.
    #[must_use]
    pub fn new(desired: &Desired, sandbox: &str, path: &GuestPath, entries: &[FileEntry]) -> Self {
        let entry = |entry: &FileEntry| Entry {
            path: entry.path.to_string(),
            size: entry.size,
            mode: entry.mode.to_string(),
            is_dir: entry.is_dir,
        };
        Self {
            format_version: FORMAT_VERSION,
            environment: desired.environment.to_string(),
            backend: desired.backend.name.clone(),
            sandbox: sandbox.to_owned(),
            path: path.to_string(),
            entries: entries.iter().map(entry).collect(),
        }
    }
}

/// A table for people; folders end in `/`, and no name can steer a terminal.
#[must_use]
pub fn human(listing: &Listing) -> String {
    if listing.entries.is_empty() {
        return format!("{} is empty.", clean(&listing.path));
    }
    let widest = listing.entries.iter().map(|entry| entry.size.to_string().len()).max();
    let width = widest.unwrap_or_default().max("SIZE".len());
    let rows = listing.entries.iter().map(|entry| {
        let slash = if entry.is_dir { "/" } else { "" };
        let size = match entry.is_dir {
            true => "-".to_owned(),
            false => entry.size.to_string(),
        };
        vec![
            entry.mode.clone(),
            format!("{size:>width$}"),
            format!("{}{slash}", clean(&entry.path)),
        ]
    });
    table(
        &["MODE", &format!("{:>width$}", "SIZE"), "PATH"],
        &rows.collect::<Vec<_>>(),
    )
}

/// The document for programs.
#[must_use]
pub fn json(listing: &Listing) -> String {
    super::json::pretty(listing)
}
