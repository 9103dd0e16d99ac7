//! The entry: a request in, a desired state or diagnostics out.

use std::path::PathBuf;

use crate::model::{Desired, Diagnostic};

use super::decode::{self, Block};
use super::problems::Problems;
use super::source::{Source, Sources};
use super::syntax::{self, Format};
use super::{resolve, validate};

/// Where the root file's text is.
#[derive(Debug, Clone)]
pub enum Input {
    /// In a file; its extension tells the format.
    File(PathBuf),
    /// Here: read from standard input, or made by a test. Paths in it are relative to the root, which is the
    /// current folder when the request has none.
    Text {
        /// What to call it in messages, such as `<stdin>`.
        name: String,
        /// The bytes.
        bytes: Vec<u8>,
        /// The language; none when it is to be told from the text.
        format: Option<Format>,
    },
}

/// What to load, and what the command line says over it.
#[derive(Debug, Clone)]
pub struct Request {
    /// The root file.
    pub input: Input,
    /// The folder that everything the spec reads must lie in; the root file's own when none.
    pub root: Option<PathBuf>,
    /// `--environment`: instead of the spec's.
    pub environment: Option<String>,
    /// `--backend`: instead of the spec's. Settings of another backend are dropped.
    pub backend: Option<String>,
    /// `--var`: names and values.
    pub variables: Vec<(String, String)>,
    /// `--allow-unsafe-config`: keys outside the allow list that may stand in `config`.
    pub allow_unsafe_config: Vec<String>,
}

impl Request {
    /// A request for a file, with nothing over it.
    #[must_use]
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self::new(Input::File(path.into()))
    }

    /// A request for a text, with nothing over it.
    #[must_use]
    pub fn text(name: &str, bytes: impl Into<Vec<u8>>, format: Option<Format>) -> Self {
        Self::new(Input::Text {
            name: name.to_owned(),
            bytes: bytes.into(),
            format,
        })
    }

    fn new(input: Input) -> Self {
        Self {
            input,
            root: None,
            environment: None,
            backend: None,
            variables: Vec::new(),
            allow_unsafe_config: Vec::new(),
        }
    }
}

/// A spec that makes sense.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What it asks for.
    pub desired: Desired,
    /// The texts that it was read from.
    pub sources: Sources,
}

/// A spec that does not.
#[derive(Debug, Clone)]
pub struct Rejected {
    /// Everything that is wrong with it, by file and place; never empty.
    pub diagnostics: Vec<Diagnostic>,
    /// The texts that it was read from, for the excerpts.
    pub sources: Sources,
}

/// Reads a spec with all that it includes and names.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load(request: &Request) -> Result<Loaded, Rejected> {
    let mut problems = Problems::default();
    let mut sources = Sources::default();
    let desired = resolve::desired(request, &mut sources, &mut problems);
    match desired {
        Some(desired) if problems.is_empty() => Ok(Loaded { desired, sources }),
        _ => {
            let mut diagnostics = problems.into_sorted();
            if diagnostics.is_empty() {
                // Every step that gives up says why; this stands for the one that forgot to.
                let place = crate::model::Place::nowhere();
                diagnostics.push(Diagnostic::new(
                    "spec::unusable",
                    "this spec cannot be used",
                    &place,
                    "",
                ));
            }
            Err(Rejected { diagnostics, sources })
        }
    }
}

/// Checks one text on its own: syntax, names, kinds of values and what each value says by itself. Nothing that
/// it includes or names is read.
///
/// # Errors
/// Everything that is wrong with it.
pub fn check_text(name: &str, bytes: &[u8], format: Format) -> Result<(), Rejected> {
    decoded(name, bytes, format).map(drop)
}

/// The same with what the text says: decoded, and no variable expanded.
pub(super) fn decoded(name: &str, bytes: &[u8], format: Format) -> Result<Block, Rejected> {
    let mut problems = Problems::default();
    let mut sources = Sources::default();
    let block = text(name, bytes, format, &mut sources, &mut problems);
    if let Some(block) = block {
        validate::values(&block, false, &mut problems);
        validate::rules(&block, &mut problems);
        if problems.is_empty() {
            return Ok(block);
        }
    }
    Err(Rejected {
        diagnostics: problems.into_sorted(),
        sources,
    })
}

/// Reads and decodes one text; none where its syntax is wrong.
pub(super) fn text(
    name: &str,
    bytes: &[u8],
    format: Format,
    sources: &mut Sources,
    problems: &mut Problems,
) -> Option<Block> {
    let source = match Source::from_bytes(name, bytes) {
        Ok(source) => source,
        Err((diagnostic, source)) => {
            sources.insert(&source);
            problems.push(*diagnostic);
            return None;
        }
    };
    sources.insert(&source);
    match syntax::parse(&source, format) {
        Ok(mut tree) => {
            let odd = std::mem::take(&mut tree.problems);
            // A file that is no map at all has been complained of; nothing in it is missing as well.
            let flawed = !odd.is_empty() && tree.nodes.is_empty();
            problems.extend(odd);
            let mut block = decode::document(tree, problems);
            block.flawed |= flawed;
            Some(block)
        }
        Err(diagnostics) => {
            problems.extend(diagnostics);
            None
        }
    }
}
