//! The tree that every format is read into, each part of it with its place.

use crate::model::{Diagnostic, Place};

use super::source::Source;

/// The language that a file is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// KDL, version 1 or 2.
    Kdl,
    /// YAML 1.2.
    Yaml,
}

impl Format {
    /// The format that a file's name tells: `.kdl`, `.yaml` or `.yml`.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        let (_, extension) = name.rsplit_once('.')?;
        match extension {
            "kdl" => Some(Self::Kdl),
            "yaml" | "yml" => Some(Self::Yaml),
            _ => None,
        }
    }
}

/// The name of a node or of a property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    /// As it reads, without quotes.
    pub text: String,
    /// Where it stands.
    pub at: Place,
}

/// What kind of value a text was written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scalar {
    /// A string that can be nothing else.
    String,
    /// Text that YAML leaves to the reader: whatever is expected, if it fits.
    Plain,
    /// A number.
    Number,
    /// `true` or `false`.
    Boolean,
    /// `null`.
    Null,
    /// What has been complained of already: it stands where it stood, so that nobody finds it missing as well.
    Invalid,
}

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Value {
    /// As what it was written.
    pub scalar: Scalar,
    /// The text: a string's characters with escapes done; all else with its spelling kept (`0644`, `1.10`).
    pub text: String,
    /// Where it stands.
    pub at: Place,
}

impl Value {
    /// What to call it in a message.
    #[must_use]
    pub(super) fn description(&self) -> &'static str {
        match self.scalar {
            Scalar::String => "a string",
            Scalar::Plain => "text",
            Scalar::Number => "a number",
            Scalar::Boolean => "a boolean",
            Scalar::Null | Scalar::Invalid => "nothing",
        }
    }
}

/// A node: `name args… key=value… { children }`, or what YAML says instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    /// Its name, always that of KDL where the language has one: `file` for an entry of YAML's `files`.
    pub name: Name,
    /// Values without a name.
    pub args: Vec<Value>,
    /// Values with a name, in their order, doubled ones included.
    pub props: Vec<(Name, Value)>,
    /// Nodes inside.
    pub children: Vec<Node>,
    /// The stretch that stands for the whole of it: its name and label.
    pub at: Place,
    /// Whether something in it was not understood, has been complained of, and is left out.
    pub(super) flawed: bool,
}

/// A file as a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tree {
    /// The format it was read from: messages use its words.
    pub format: Format,
    /// The nodes at its top.
    pub nodes: Vec<Node>,
    /// The beginning of the file.
    pub start: Place,
    /// What is wrong with it although it could be read.
    pub problems: Vec<Diagnostic>,
}

/// Nodes, and what is wrong with them although they could be read.
pub(super) type Nodes = (Vec<Node>, Vec<Diagnostic>);

/// How deep nodes, maps and lists may lie in each other.
pub(super) const DEPTH_LIMIT: usize = 64;

/// The stack that parsers get: they recurse once per level of nesting, and their frames are large.
const STACK: usize = 64 << 20;

/// Reads a text into a tree.
///
/// # Errors
/// Every syntax error that the format's parser tells of.
pub(super) fn parse(source: &Source, format: Format) -> Result<Tree, Vec<Diagnostic>> {
    let work = || match format {
        Format::Kdl => super::kdl::parse(source),
        Format::Yaml => super::yaml::parse(source),
    };
    let (nodes, problems) = std::thread::scope(|scope| {
        let outcome = std::thread::Builder::new()
            .stack_size(STACK)
            .spawn_scoped(scope, work)
            .map(std::thread::ScopedJoinHandle::join);
        match outcome {
            Ok(Ok(nodes)) => nodes,
            // A parser that panics has met a text that it was not made for; the spec is at fault as far as its
            // author can tell, and the rest of the program is not touched.
            Ok(Err(_)) | Err(_) => Err(vec![
                Diagnostic::new("spec::syntax", "this file cannot be parsed", &source.place(0, 0), "")
                    .with_help("simplify the file until it can be, and please report the text that could not"),
            ]),
        }
    })?;
    Ok(Tree {
        format,
        nodes,
        problems,
        start: source.place(0, 0),
    })
}
