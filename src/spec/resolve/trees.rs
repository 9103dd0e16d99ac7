//! Folders of the spec's that become trees.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::model::{Content, Data, Diagnostic, Entry, GuestPath, Mode};
use crate::spec::problems::Problems;
use crate::spec::syntax::Value;

use super::files;

/// How many entries one tree may have.
const ENTRIES: usize = 20_000;
/// How many bytes all files of one tree may have together.
const BYTES: u64 = 1 << 30;
/// How many bytes of a tree are kept; files beyond are read again when they are written.
const KEPT: u64 = 64 << 20;
/// How deep folders may lie in each other.
const DEPTH: usize = 64;
/// How many entries that cannot be copied are told, each with its name.
const TOLD: usize = 20;

struct Walk<'a> {
    matcher: Gitignore,
    target: &'a GuestPath,
    source: &'a Value,
    entries: BTreeMap<String, Entry>,
    bytes: u64,
    /// How many entries cannot be copied.
    bad: usize,
    problems: &'a mut Problems,
}

/// Everything in a folder but what is excluded. None where it holds what cannot be copied.
pub(super) fn read(
    folder: &Path,
    target: &GuestPath,
    source: &Value,
    exclude: &[String],
    problems: &mut Problems,
) -> Option<BTreeMap<String, Entry>> {
    let mut builder = GitignoreBuilder::new(folder);
    for pattern in exclude {
        // A bad pattern has been reported with the values.
        let _ = builder.add_line(None, pattern);
    }
    let mut walk = Walk {
        matcher: builder.build().ok()?,
        target,
        source,
        entries: BTreeMap::new(),
        bytes: 0,
        bad: 0,
        problems,
    };
    let whole = walk.folder(folder, "", 0);
    walk.tell_the_rest();
    whole.filter(|()| walk.bad == 0).map(|()| walk.entries)
}

impl Walk<'_> {
    /// Tells what is wrong with one entry. The others are looked at all the same.
    fn bad(&mut self, code: &'static str, message: String, help: &str) -> Option<()> {
        self.bad += 1;
        if self.bad <= TOLD {
            self.fail(code, message, help);
        }
        (self.bad < ENTRIES).then_some(())
    }

    fn tell_the_rest(&mut self) {
        let rest = self.bad.saturating_sub(TOLD);
        if rest > 0 {
            let message = format!("\"{}\" holds {rest} more that cannot be copied", self.source.text);
            self.fail("spec::more-in-folder", message, "exclude what is not needed");
        }
    }

    /// Tells why there is no tree.
    fn fail(&mut self, code: &'static str, message: String, help: &str) -> Option<()> {
        let at = &self.source.at;
        self.problems
            .push(Diagnostic::new(code, message, at, "in this folder").with_help(help));
        None
    }

    fn folder(&mut self, folder: &Path, relative: &str, depth: usize) -> Option<()> {
        if depth > DEPTH {
            return self.fail(
                "spec::tree-too-large",
                format!("folders lie more than {DEPTH} deep in each other"),
                "exclude what is not needed",
            );
        }
        let listed: std::io::Result<Vec<_>> = std::fs::read_dir(folder).and_then(Iterator::collect);
        let mut listed = match listed {
            Ok(listed) => listed,
            Err(error) => {
                let message = format!(
                    "\"{}/{relative}\" cannot be read: {}",
                    self.source.text,
                    super::include::plain(&error)
                );
                return self.bad("spec::unreadable", message, "exclude it, or make it readable");
            }
        };
        // In a fixed order, so that the first problem is always the same one.
        listed.sort_by_key(std::fs::DirEntry::file_name);
        for entry in listed {
            let Ok(name) = entry.file_name().into_string() else {
                let message = format!("\"{}\" is not UTF-8", entry.file_name().to_string_lossy());
                self.bad("spec::invalid-path", message, "rename it, or exclude its folder")?;
                continue;
            };
            let path = if relative.is_empty() {
                name
            } else {
                format!("{relative}/{name}")
            };
            self.entry(&entry, path, depth)?;
        }
        Some(())
    }

    fn entry(&mut self, listed: &std::fs::DirEntry, path: String, depth: usize) -> Option<()> {
        let real = listed.path();
        let shown = format!("{}/{path}", self.source.text.trim_end_matches('/'));
        let unreadable =
            |error: &std::io::Error| format!("\"{shown}\" cannot be read: {}", super::include::plain(error));
        let metadata = match std::fs::symlink_metadata(&real) {
            Ok(metadata) => metadata,
            Err(error) => return self.bad("spec::unreadable", unreadable(&error), "exclude it"),
        };
        let kind = metadata.file_type();
        if self.matcher.matched(&path, kind.is_dir()).is_ignore() {
            return Some(());
        }
        if GuestPath::new(format!("{}/{path}", self.target)).is_err() {
            let message = format!(
                "\"{}\" has a name that no path in a sandbox can have",
                shown.escape_debug()
            );
            return self.bad("spec::invalid-path", message, "rename or exclude it");
        }
        if self.entries.len() + self.bad >= ENTRIES {
            return self.fail(
                "spec::tree-too-large",
                format!("\"{}\" holds more than {ENTRIES} files and folders", self.source.text),
                "exclude what is not needed",
            );
        }
        if kind.is_dir() {
            self.entries.insert(path.clone(), Entry::Directory);
            return self.folder(&real, &path, depth + 1);
        }
        if kind.is_symlink() {
            let target = match std::fs::read_link(&real) {
                Ok(target) => target,
                Err(error) => return self.bad("spec::unreadable", unreadable(&error), "exclude it"),
            };
            return match target.into_os_string().into_string() {
                Ok(target) => {
                    self.entries.insert(path, Entry::Symlink(target));
                    Some(())
                }
                Err(_) => self.bad(
                    "spec::invalid-path",
                    format!("the link \"{shown}\" is not UTF-8"),
                    "exclude it",
                ),
            };
        }
        if !kind.is_file() {
            return self.bad(
                "spec::special-file",
                format!("\"{shown}\" is a device, socket or pipe, which cannot be copied"),
                "exclude it",
            );
        }
        self.bytes += metadata.len();
        let content = if self.bytes > BYTES {
            Ok(None)
        } else {
            files::content(&real)
        };
        let content = match content {
            Ok(Some(content)) => self.lean(content, &real),
            Ok(None) => {
                return self.fail(
                    "spec::tree-too-large",
                    format!("\"{}\" holds more than {} MiB", self.source.text, BYTES >> 20),
                    "exclude what is not needed",
                );
            }
            Err(error) => return self.bad("spec::unreadable", unreadable(&error), "exclude it"),
        };
        let executable = metadata.permissions().mode() & 0o100 != 0;
        let mode = if executable { Mode::DIRECTORY } else { Mode::FILE };
        self.entries.insert(path, Entry::File { content, mode });
        Some(())
    }

    /// Lets go of the bytes where a tree's files are many.
    fn lean(&self, content: Content, real: &Path) -> Content {
        if self.bytes <= KEPT {
            return content;
        }
        Content {
            data: Data::Path(real.to_owned()),
            ..content
        }
    }
}
