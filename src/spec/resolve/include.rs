//! The root file and all that it includes.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::model::{Diagnostic, Place, SpecFile};
use crate::spec::decode::Block;
use crate::spec::load::{self, Input, Request};
use crate::spec::problems::Problems;
use crate::spec::source::{FILE_LIMIT, Source, Sources};
use crate::spec::syntax::{Format, Value};

use super::files::{Folders, Kind, lexical};

/// How many files one spec may have.
const FILES: usize = 256;

/// A file of the spec.
#[derive(Debug)]
pub(super) struct Document {
    /// What it holds.
    pub(super) block: Block,
    /// Whether it is the root.
    pub(super) root: bool,
}

/// All files of the spec.
#[derive(Debug)]
pub(super) struct Gathered {
    /// Included files before those that include them; the root is the last.
    pub(super) documents: Vec<Document>,
    /// Where paths start.
    pub(super) folders: Folders,
    /// Whether some file could not be read, so that what it declares is not known.
    pub(super) incomplete: bool,
}

struct Gatherer<'a> {
    sources: &'a mut Sources,
    problems: &'a mut Problems,
    folders: Folders,
    documents: Vec<Document>,
    /// Real paths of the files that are being read, with the name of each and the place that includes it.
    open: Vec<(PathBuf, String, Option<Place>)>,
    done: HashMap<PathBuf, ()>,
    incomplete: bool,
}

/// Reads the root file and what it includes. None where there is not even a root to speak of.
pub(super) fn gather(request: &Request, sources: &mut Sources, problems: &mut Problems) -> Option<Gathered> {
    let (name, bytes, format, file) = root_file(request, sources, problems)?;
    let real = file.as_ref().map(|file| file.real().to_owned());
    let own = real.as_deref().and_then(Path::parent).map(Path::to_owned);
    let wanted = request
        .root
        .clone()
        .or_else(|| own.clone())
        .unwrap_or_else(|| PathBuf::from("."));
    let root = match wanted.canonicalize() {
        Ok(root) if root.is_dir() => root,
        _ => {
            let message = format!("the root folder \"{}\" cannot be opened", wanted.display());
            problems.push(
                Diagnostic::new("spec::missing-root", message, &Place::nowhere(), "--root")
                    .with_help("name an existing folder that holds the spec and everything it uses"),
            );
            return None;
        }
    };
    if let Some(real) = real.as_ref().filter(|real| !real.starts_with(&root)) {
        let source = Source::new(&name, "");
        let message = format!(
            "\"{}\" lies outside the root folder",
            real.file_name().unwrap_or_default().to_string_lossy()
        );
        problems.push(
            Diagnostic::new("spec::outside-root", message, &source.place(0, 0), "")
                .with_help("name a root folder that holds the spec: --root"),
        );
        return None;
    }
    let mut gatherer = Gatherer {
        sources,
        problems,
        folders: Folders::new(root.clone()),
        documents: Vec::new(),
        open: Vec::new(),
        done: HashMap::new(),
        incomplete: false,
    };
    gatherer.folders.spec.extend(file);
    let folder = own.unwrap_or(root);
    let key = real.unwrap_or_else(|| folder.join(&name));
    gatherer.open.push((key, name.clone(), None));
    gatherer.file(&name, &folder, &bytes, format, true);
    let Gatherer {
        documents,
        folders,
        incomplete,
        ..
    } = gatherer;
    (documents.last().is_some_and(|document| document.root)).then_some(Gathered {
        documents,
        folders,
        incomplete,
    })
}

type RootFile = (String, Vec<u8>, Format, Option<SpecFile>);

fn root_file(request: &Request, sources: &mut Sources, problems: &mut Problems) -> Option<RootFile> {
    match &request.input {
        Input::Text { name, bytes, format } => {
            let format = format.unwrap_or_else(|| guess(bytes));
            Some((name.clone(), bytes.clone(), format, None))
        }
        Input::File(path) => {
            let name = path.to_string_lossy().into_owned();
            let source = Source::new(&name, "");
            let mut fail = |message: String, help: &str| {
                sources.insert(&source);
                problems.push(Diagnostic::new("spec::unreadable", message, &source.place(0, 0), "").with_help(help));
            };
            let Some(format) = Format::of_name(&name) else {
                fail(
                    format!("\"{name}\" is neither KDL nor YAML by its name"),
                    "a spec's name ends in .kdl, .yaml or .yml",
                );
                return None;
            };
            let real = match path.canonicalize() {
                Ok(real) => real,
                Err(error) => {
                    fail(
                        format!("\"{name}\" cannot be opened: {}", plain(&error)),
                        "name a file that exists",
                    );
                    return None;
                }
            };
            match super::files::bytes(path, &real, FILE_LIMIT as u64 + 1) {
                Ok((bytes, mut file)) => {
                    file.name.clone_from(&name);
                    Some((name, bytes, format, Some(file)))
                }
                Err(error) => {
                    fail(
                        format!("\"{name}\" cannot be read: {}", plain(&error)),
                        "name a file that can be read",
                    );
                    None
                }
            }
        }
    }
}

/// An operating system's error in few words, without its number.
pub(super) fn plain(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such file".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        std::io::ErrorKind::IsADirectory => "it is a folder".to_owned(),
        std::io::ErrorKind::InvalidInput => "it is not a regular file".to_owned(),
        _ => error.to_string(),
    }
}

/// The format of a text that has no name: its first line that is not blank or a comment tells, since YAML's has
/// a colon after the first word, and KDL's has none.
fn guess(bytes: &[u8]) -> Format {
    let text = String::from_utf8_lossy(bytes);
    let line = text
        .lines()
        .map(|line| line.trim_start_matches('\u{feff}').trim())
        .find(|line| !line.is_empty() && !line.starts_with('#') && !line.starts_with("//"))
        .unwrap_or_default();
    let word: String = line
        .chars()
        .take_while(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '"' | '\''))
        .collect();
    let yaml = line.starts_with("---") || line.starts_with('{') || line[word.len()..].trim_start().starts_with(':');
    if yaml { Format::Yaml } else { Format::Kdl }
}

impl Gatherer<'_> {
    fn file(&mut self, name: &str, folder: &Path, bytes: &[u8], format: Format, root: bool) {
        self.folders.insert(Arc::from(name), folder.to_owned());
        let Some(block) = load::text(name, bytes, format, self.sources, self.problems) else {
            self.incomplete = true;
            return;
        };
        if !root {
            for entry in block
                .entries
                .iter()
                .filter(|entry| matches!(entry.form.name, "environment" | "backend"))
            {
                self.problems.push(
                    Diagnostic::new(
                        "spec::root-only",
                        format!("\"{}\" stands only in the root file", entry.form.name),
                        &entry.at,
                        "in an included file",
                    )
                    .with_help("move it to the file that includes this one"),
                );
            }
        }
        for include in block.values("include") {
            self.include(name, include);
        }
        let mut block = block;
        if !root {
            block
                .entries
                .retain(|entry| !matches!(entry.form.name, "environment" | "backend"));
        }
        self.documents.push(Document { block, root });
    }

    fn include(&mut self, from: &str, value: &Value) {
        let complaint = crate::spec::language::Type::Include.check(&value.text);
        // The values of the file are checked later, all together.
        if complaint.is_err() {
            self.incomplete = true;
            return;
        }
        let Some(format) = Format::of_name(&value.text) else {
            self.incomplete = true;
            self.problems.push(
                Diagnostic::new(
                    "spec::invalid-include",
                    format!("\"{}\" is neither KDL nor YAML by its name", value.text),
                    &value.at,
                    "not a spec",
                )
                .with_help("a spec's name ends in .kdl, .yaml or .yml"),
            );
            return;
        };
        let (path, real) = match self.folders.locate_with_path(value, Kind::File) {
            Ok(real) => real,
            Err(diagnostic) => {
                self.incomplete = true;
                self.problems.push(*diagnostic);
                return;
            }
        };
        if let Some(index) = self.open.iter().position(|(open, ..)| *open == real) {
            self.circle(index, value);
            return;
        }
        if self.done.contains_key(&real) {
            return;
        }
        if self.done.len() + self.open.len() >= FILES {
            self.incomplete = true;
            self.problems.push(
                Diagnostic::new(
                    "spec::too-many-files",
                    format!("this spec has more than {FILES} files"),
                    &value.at,
                    "one too many",
                )
                .with_help("put several templates or sandboxes into one file"),
            );
            return;
        }
        let (bytes, mut file) = match super::files::bytes(&path, &real, FILE_LIMIT as u64 + 1) {
            Ok(read) => read,
            Err(error) => {
                self.incomplete = true;
                self.problems.push(
                    Diagnostic::new(
                        "spec::unreadable",
                        format!("\"{}\" cannot be read: {}", value.text, plain(&error)),
                        &value.at,
                        "here",
                    )
                    .with_help("include a file that can be read"),
                );
                return;
            }
        };
        // Named as seen from where the root file was named.
        let parent = Path::new(from).parent().unwrap_or(Path::new(""));
        let name = lexical(&parent.join(&value.text)).to_string_lossy().into_owned();
        let folder = real.parent().unwrap_or(Path::new("/")).to_owned();
        file.name.clone_from(&name);
        self.folders.spec.push(file);
        self.open.push((real.clone(), name.clone(), Some(value.at.clone())));
        self.file(&name, &folder, &bytes, format, false);
        self.open.pop();
        self.done.insert(real, ());
    }

    fn circle(&mut self, index: usize, value: &Value) {
        let circle = &self.open[index..];
        let mut names: Vec<&str> = circle.iter().map(|(_, name, _)| name.as_str()).collect();
        names.extend(circle.first().map(|(_, name, _)| name.as_str()));
        let mut diagnostic = Diagnostic::new(
            "spec::include-cycle",
            format!("files include each other in a circle: {}", names.join(" → ")),
            &value.at,
            "closes the circle",
        );
        for (_, _, place) in circle.iter().skip(1).take(15) {
            if let Some(place) = place {
                diagnostic = diagnostic.with_mark(place, "part of it");
            }
        }
        self.problems
            .push(diagnostic.with_help("move what both need into a third file, and include that"));
    }
}
