//! Programs like this one that nobody has removed, because who had put them there was killed. Part of the small static one alone.

use std::ffi::OsStr;
use std::fs::{self, DirEntry};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

/// How old one is that nobody is going to run any more. A probe takes a minute at most.
const OLD: Duration = Duration::from_secs(600);

/// Removes those in a folder. Nobody hears of what cannot be removed: it stands in nobody's way.
pub(crate) fn remove(folder: &Path) {
    let listed = fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in listed.filter(is_left) {
        let _ = fs::remove_file(entry.path());
    }
}

/// Whether it is one, to the letter, and old. Others can make files in here, too: not ones of root's.
fn is_left(entry: &DirEntry) -> bool {
    // Of a link, this is what the link itself is.
    let Ok(metadata) = entry.metadata() else { return false };
    let is_one = metadata.is_file() && metadata.uid() == 0 && metadata.mode() & 0o7777 == 0o500;
    let age = metadata.modified().ok().and_then(|time| time.elapsed().ok());
    is_ours(&entry.file_name()) && is_one && age.is_some_and(|age| age > OLD)
}

fn is_ours(name: &OsStr) -> bool {
    let number = name.to_str().and_then(|name| name.strip_prefix(".sbx-apply-probe-"));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}
