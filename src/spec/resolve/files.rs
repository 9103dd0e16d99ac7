//! Files of the spec's folder: found below the root and nowhere else, read within bounds.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use crate::model::{Content, Data, Diagnostic, Digest, Hasher, SpecFile};
use crate::spec::syntax::Value;

/// Contents up to this many bytes are kept; larger ones are hashed, and read again when they are written.
const KEPT: u64 = 1 << 20;
/// The largest file that a spec may name.
pub(super) const SOURCE_LIMIT: u64 = 1 << 30;

/// What a path must lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Folder,
    /// Either of these.
    Any,
}

/// The root, and the folder of each file of the spec.
#[derive(Debug)]
pub(super) struct Folders {
    root: PathBuf,
    of_file: HashMap<Arc<str>, PathBuf>,
    /// The spec's own files.
    pub(super) spec: Vec<SpecFile>,
}

/// The path without `.` and, as far as the text tells, without `..`.
pub(super) fn lexical(path: &Path) -> PathBuf {
    let mut result = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if matches!(result.components().next_back(), Some(Component::Normal(_))) => {
                result.pop();
            }
            other => result.push(other),
        }
    }
    result
}

impl Folders {
    pub(super) fn new(root: PathBuf) -> Self {
        Self {
            root,
            of_file: HashMap::new(),
            spec: Vec::new(),
        }
    }

    pub(super) fn insert(&mut self, name: Arc<str>, folder: PathBuf) {
        self.of_file.insert(name, folder);
    }

    /// The path that a value names, relative to the file that it stands in, as it is written and as it really is.
    pub(super) fn locate_with_path(&self, value: &Value, kind: Kind) -> Result<(PathBuf, PathBuf), Box<Diagnostic>> {
        let folder = self.of_file.get(&value.at.file).unwrap_or(&self.root);
        Ok((folder.join(&value.text), self.locate(value, kind)?))
    }

    /// The real path that a value names, relative to the file that it stands in.
    pub(super) fn locate(&self, value: &Value, kind: Kind) -> Result<PathBuf, Box<Diagnostic>> {
        let fail = |code, message: String, text: &str, help: &str| {
            Err(Box::new(
                Diagnostic::new(code, message, &value.at, text).with_help(help),
            ))
        };
        let outside = |text: &str| {
            fail(
                "spec::outside-root",
                format!("\"{}\" leads outside the spec's root folder", value.text),
                text,
                "everything that a spec uses lies in its own folder, or in the one that --root names",
            )
        };
        let folder = self.of_file.get(&value.at.file).unwrap_or(&self.root);
        let path = folder.join(&value.text);
        // Said before looking, so that nothing is told of files elsewhere.
        if !lexical(&path).starts_with(&self.root) {
            return outside("leaves it");
        }
        let real = match path.canonicalize() {
            Ok(real) => real,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let parent = path.parent().and_then(|parent| parent.canonicalize().ok());
                let names = parent
                    .filter(|parent| parent.starts_with(&self.root))
                    .map(|parent| names(&parent))
                    .unwrap_or_default();
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                let help = match crate::spec::suggest::nearest(&name, names.iter().map(String::as_str)) {
                    Some(near) => format!("did you mean \"{near}\"? Paths are relative to the file that names them"),
                    None => "paths are relative to the file that names them".to_owned(),
                };
                return fail(
                    "spec::missing-source",
                    format!("\"{}\" does not exist", value.text),
                    "no such file or folder",
                    &help,
                );
            }
            Err(error) => {
                return fail(
                    "spec::unreadable",
                    format!("\"{}\" cannot be opened: {}", value.text, super::include::plain(&error)),
                    "here",
                    "name something that can be read",
                );
            }
        };
        if !real.starts_with(&self.root) {
            return outside("a symbolic link on the way leaves it");
        }
        let is = real.metadata().map(|metadata| metadata.file_type());
        match (kind, is) {
            (Kind::File, Ok(is)) if is.is_file() => Ok(real),
            (Kind::Folder, Ok(is)) if is.is_dir() => Ok(real),
            (Kind::Any, Ok(is)) if is.is_dir() || is.is_file() => Ok(real),
            (Kind::Any, Ok(_)) => fail(
                "spec::source-not-a-folder",
                format!("\"{}\" is a device, socket or pipe", value.text),
                "neither a folder nor a file",
                "mount a folder or a regular file",
            ),
            (Kind::File, Ok(is)) if is.is_dir() => fail(
                "spec::source-not-a-file",
                format!("\"{}\" is a folder, not a file", value.text),
                "a folder",
                "a folder is copied by \"tree\"",
            ),
            (Kind::File, Ok(_)) => fail(
                "spec::source-not-a-file",
                format!("\"{}\" is a device, socket or pipe, not a file", value.text),
                "not a regular file",
                "name a regular file",
            ),
            (Kind::Folder, Ok(_)) => fail(
                "spec::source-not-a-folder",
                format!("\"{}\" is not a folder", value.text),
                "not a folder",
                "a single file is copied by \"file\"",
            ),
            (_, Err(error)) => fail(
                "spec::unreadable",
                format!("\"{}\" cannot be opened: {}", value.text, super::include::plain(&error)),
                "here",
                "name something that can be read",
            ),
        }
    }
}

/// Names in a folder, as far as it takes to suggest one.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .take(1_000)
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

/// Opens a regular file by its real path, without waiting for a pipe's other end. No part of a real path is a
/// link: what has become one since the path was found is refused, not followed.
fn open(path: &Path) -> io::Result<File> {
    use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS) {
        // Linux before 5.6, and other systems, have no such call.
        Err(rustix::io::Errno::NOSYS) => rustix::fs::open(path, flags, Mode::empty()),
        opened => opened,
    }?;
    let file = File::from(file);
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::from(io::ErrorKind::InvalidInput))
    }
}

/// At most `limit` bytes of a regular file, by its real path, and which file that is. `named` is the path that led there.
pub(super) fn bytes(named: &Path, real: &Path, limit: u64) -> io::Result<(Vec<u8>, SpecFile)> {
    let mut bytes = Vec::new();
    let mut places = links(named);
    places.push(real.to_owned());
    let file = open(real)?;
    let identity = identity(&file.metadata()?);
    file.take(limit).read_to_end(&mut bytes)?;
    let file = SpecFile {
        name: String::new(),
        places,
        digest: Digest::of(&bytes),
        identity,
    };
    Ok((bytes, file))
}

/// The same files of a spec as they are now, without those that cannot be read any more.
#[must_use]
pub fn read_again(files: &[SpecFile]) -> Vec<SpecFile> {
    let again = |file: &SpecFile| {
        let (_, now) = bytes(file.real(), file.real(), crate::spec::FILE_LIMIT as u64 + 1).ok()?;
        Some(now)
    };
    files.iter().filter_map(again).collect()
}

/// Which file it is, whatever is written into it: another one that is put in its place has another birth, even where it
/// gets the same number. None where that cannot be told, or where it has another name, by which it could be written.
fn identity(found: &std::fs::Metadata) -> Option<String> {
    use std::os::unix::fs::MetadataExt as _;
    let born = found.created().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    (found.nlink() == 1).then(|| format!("{}.{}", found.ino(), born.as_nanos()))
}

/// The real places of the links on the way to a path, as far as they lead anywhere.
fn links(path: &Path) -> Vec<PathBuf> {
    /// So many are followed by the kernel, too (path_resolution(7)).
    const FOLLOWED: usize = 40;
    let Ok(path) = std::path::absolute(path) else {
        return Vec::new();
    };
    let (mut links, mut at) = (Vec::new(), PathBuf::from("/"));
    let mut ahead: Vec<PathBuf> = vec![path];
    while let Some(next) = ahead.pop() {
        let mut parts = next.components();
        let Some(part) = parts.next() else { continue };
        ahead.push(parts.as_path().to_owned());
        match part {
            Component::RootDir | Component::Prefix(_) => at = PathBuf::from("/"),
            Component::CurDir => {}
            Component::ParentDir => drop(at.pop()),
            Component::Normal(name) => {
                at.push(name);
                if let Ok(target) = at.read_link() {
                    links.push(at.clone());
                    at.pop();
                    ahead.push(target);
                }
            }
        }
        if links.len() >= FOLLOWED {
            break;
        }
    }
    links
}

/// The contents of a regular file; none when it is larger than [`SOURCE_LIMIT`].
pub(super) fn content(path: &Path) -> io::Result<Option<Content>> {
    let mut file = open(path)?;
    let size = file.metadata()?.len();
    if size > SOURCE_LIMIT {
        return Ok(None);
    }
    if size <= KEPT {
        let mut bytes = Vec::new();
        // One byte more than may be, to notice a file that grows.
        let read = (&mut file).take(KEPT + 1).read_to_end(&mut bytes)?;
        if read as u64 <= KEPT {
            return Ok(Some(Content::inline(bytes)));
        }
        return content(path);
    }
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; 256 << 10];
    let mut total = 0;
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        total += read as u64;
        if total > SOURCE_LIMIT {
            return Ok(None);
        }
        hasher.update(&buffer[..read]);
    }
    Ok(Some(Content {
        digest: hasher.finish(),
        size: total,
        data: Data::Path(path.to_owned()),
    }))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn read(path: &Path) -> SpecFile {
        let real = path.canonicalize().expect("is there");
        bytes(path, &real, 100).expect("reads").1
    }

    #[test]
    fn a_file_is_the_same_until_another_takes_its_place() {
        let folder = tempfile::tempdir().expect("a folder");
        let (file, other) = (folder.path().join("file"), folder.path().join("other"));
        fs::write(&file, "one").expect("writes");
        let first = read(&file);
        fs::write(&file, "two").expect("writes");
        let written = read(&file);
        assert_eq!(first.identity, written.identity);
        assert_ne!(first.digest, written.digest);
        // Whatever it is called by meanwhile.
        fs::rename(&file, &other).expect("renames");
        assert_eq!(read(&other).identity, first.identity);
        fs::copy(&other, &file).expect("copies");
        assert_ne!(read(&file).identity, first.identity);
        // By another name it could be written to unseen.
        fs::hard_link(&other, folder.path().join("third")).expect("links");
        assert_eq!(read(&other).identity, None);
        assert!(first.identity.is_some());
    }

    #[test]
    fn every_link_on_the_way_has_a_place() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().canonicalize().expect("real");
        let at = |name: &str| root.join(name);
        fs::create_dir_all(at("a/b")).expect("makes");
        fs::write(at("a/b/file"), "").expect("writes");
        symlink("a", at("folder")).expect("links");
        symlink(at("folder/b/../b/file"), at("absolute")).expect("links");
        symlink("absolute", at("relative")).expect("links");
        let cases = [
            ("a/b/file", vec!["a/b/file"]),
            ("folder/../folder/b/file", vec!["folder", "folder", "a/b/file"]),
            ("relative", vec!["relative", "absolute", "folder", "a/b/file"]),
        ];
        for (named, places) in cases {
            let places: Vec<PathBuf> = places.into_iter().map(at).collect();
            assert_eq!(read(&at(named)).places, places, "{named}");
        }
        symlink("loop", at("loop")).expect("links");
        assert_eq!(links(&at("loop")).len(), 40);
    }
}
