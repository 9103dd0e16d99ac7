//! `${name}`.

use std::collections::BTreeMap;

use crate::model::{Diagnostic, Place};
use crate::spec::decode::{Block, Content};
use crate::spec::language::{Shape, Type};
use crate::spec::load::Request;
use crate::spec::problems::Problems;
use crate::spec::source::{FILE_LIMIT, Sources};
use crate::spec::suggest::unknown;
use crate::spec::syntax::{Scalar, Value};

use super::include::Document;

/// How many bytes all expanded values of a spec may have together.
const TOTAL: usize = 16 * FILE_LIMIT;

struct Variable {
    /// None where neither the spec nor the command line gives one.
    value: Option<String>,
    at: Place,
    in_root: bool,
    used: bool,
}

struct Expander<'a> {
    variables: BTreeMap<String, Variable>,
    sources: &'a Sources,
    problems: &'a mut Problems,
    left: usize,
}

/// Expands variables in all files, in place.
pub(super) fn expand(documents: &mut [Document], request: &Request, sources: &Sources, problems: &mut Problems) {
    let mut expander = Expander {
        variables: BTreeMap::new(),
        sources,
        problems,
        left: TOTAL,
    };
    for document in &*documents {
        expander.declare(document);
    }
    expander.set(request);
    for document in documents {
        for entry in &mut document.block.entries {
            if entry.form.name == "variable" {
                continue;
            }
            expander.content(&mut entry.content, &entry.form.shape);
        }
    }
    expander.complain_of_unused();
}

impl Expander<'_> {
    fn declare(&mut self, document: &Document) {
        for block in document.block.blocks("variable") {
            let Some(label) = &block.label else { continue };
            if let Some(first) = self.variables.get(&label.text) {
                self.problems.push(
                    Diagnostic::new(
                        "spec::duplicate-name",
                        format!("variable \"{}\" is declared twice", label.text),
                        &label.at,
                        "again here",
                    )
                    .with_mark(&first.at, "first here")
                    .with_help("keep one of the two, or give one of them another name"),
                );
                continue;
            }
            let default = block.value("default");
            if let Some(value) = default
                && let Some(name) = pieces(&value.text).into_iter().find_map(Piece::name)
            {
                self.problems.push(
                    Diagnostic::new(
                        "spec::variable-in-default",
                        format!("the default of \"{}\" uses variable \"{name}\"", label.text),
                        &self.narrow(value, name),
                        "not expanded here",
                    )
                    .with_help("defaults are taken literally; for a literal text write `$${…}`"),
                );
            }
            let literal = |value: &Value| {
                let text = |piece| match piece {
                    Piece::Literal(text) => text,
                    Piece::Variable(_) => "",
                };
                pieces(&value.text).into_iter().map(text).collect::<String>()
            };
            self.variables.insert(
                label.text.clone(),
                Variable {
                    value: default.map(literal),
                    at: label.at.clone(),
                    in_root: document.root,
                    used: false,
                },
            );
        }
    }

    fn set(&mut self, request: &Request) {
        for (name, value) in &request.variables {
            if let Some(variable) = self.variables.get_mut(name) {
                variable.value = Some(value.clone());
                continue;
            }
            let names: Vec<&str> = self.variables.keys().map(String::as_str).collect();
            let help = if names.is_empty() {
                "this spec declares no variables".to_owned()
            } else {
                format!("declared are {}", names.join(", "))
            };
            self.problems.push(
                Diagnostic::new(
                    "spec::unknown-variable",
                    unknown("variable", name, names.iter().copied()),
                    &Place::nowhere(),
                    "--var",
                )
                .with_help(help),
            );
        }
    }

    fn content(&mut self, content: &mut Content, shape: &'static Shape) {
        match (content, shape) {
            (Content::Value(value), Shape::Value(kind)) => self.value(value, *kind),
            (Content::Values(values), Shape::Values(kind)) => values.iter_mut().for_each(|v| self.value(v, *kind)),
            (Content::Map(pairs), Shape::Map { values, .. }) => {
                pairs.iter_mut().for_each(|(_, value)| self.value(value, *values));
            }
            (Content::Block(block), _) => self.block(block),
            _ => {}
        }
    }

    fn block(&mut self, block: &mut Block) {
        if let (Some(label), Some((_, kind))) = (&mut block.label, block.body.label.parts()) {
            self.value(label, kind);
        }
        for (_, value) in &mut block.open {
            self.value(value, Type::Text);
        }
        for entry in &mut block.entries {
            self.content(&mut entry.content, &entry.form.shape);
        }
    }

    fn value(&mut self, value: &mut Value, kind: Type) {
        if !kind.expands() || !matches!(value.scalar, Scalar::String | Scalar::Plain) || !value.text.contains("${") {
            return;
        }
        let mut text = String::new();
        let mut failed = false;
        for piece in pieces(&value.text) {
            match piece {
                Piece::Literal(literal) => text.push_str(literal),
                Piece::Variable(name) => match self.variables.get_mut(name) {
                    Some(variable) => {
                        variable.used = true;
                        match &variable.value {
                            Some(found) if text.len() + found.len() <= FILE_LIMIT => text.push_str(found),
                            Some(_) => {
                                self.too_long(value);
                                failed = true;
                                break;
                            }
                            None => {
                                let at = variable.at.clone();
                                self.unset(value, name, &at);
                                failed = true;
                            }
                        }
                    }
                    None => {
                        self.undefined(value, name);
                        failed = true;
                    }
                },
            }
        }
        if !failed && text.len() > self.left {
            self.too_long(value);
            failed = true;
        }
        if failed {
            // Reported; nothing more is to be said of this value.
            value.scalar = Scalar::Invalid;
            return;
        }
        self.left -= text.len();
        value.text = text;
    }

    fn too_long(&mut self, value: &Value) {
        self.problems.push(
            Diagnostic::new(
                "spec::value-too-long",
                format!("with its variables expanded, this has more than {FILE_LIMIT} bytes, or all together too many"),
                &value.at,
                "too long",
            )
            .with_help("keep long contents in files of their own and name them with `source`"),
        );
    }

    fn unset(&mut self, value: &Value, name: &str, declared: &Place) {
        self.problems.push(
            Diagnostic::new(
                "spec::unset-variable",
                format!("variable \"{name}\" has no default and was given no value"),
                &self.narrow(value, name),
                "used here",
            )
            .with_mark(declared, "declared here")
            .with_help(format!("give it one: --var {name}=VALUE")),
        );
    }

    fn undefined(&mut self, value: &Value, name: &str) {
        let names: Vec<&str> = self.variables.keys().map(String::as_str).collect();
        let lower = name.to_lowercase().replace('_', "-");
        let help = if Type::Name.check(name).is_ok() {
            format!(
                "declare it (KDL: variable \"{name}\" default=\"…\"), or write `$${{{name}}}` for a literal `${{{name}}}`"
            )
        } else {
            format!(
                "for a variable of the shell write `$${{{name}}}` or `${name}`; a variable of the spec is declared, \
                 and has a name such as \"{lower}\""
            )
        };
        self.problems.push(
            Diagnostic::new(
                "spec::undefined-variable",
                unknown("variable", name, names),
                &self.narrow(value, name),
                "not declared",
            )
            .with_help(help),
        );
    }

    /// The place of `${name}` in a value, where its text is written out.
    fn narrow(&self, value: &Value, name: &str) -> Place {
        let found = self.sources.get(&value.at.file).and_then(|text| {
            let raw = text.get(value.at.offset..value.at.offset + value.at.length)?;
            let needle = format!("${{{name}}}");
            let mut from = 0;
            loop {
                let index = from + raw.get(from..)?.find(&needle)?;
                // `$${name}` is a literal.
                if !raw[..index].ends_with('$') {
                    return Some((raw, index, needle.len()));
                }
                from = index + 1;
            }
        });
        let Some((raw, index, length)) = found else {
            return value.at.clone();
        };
        let before = &raw[..index];
        let lines = before.matches('\n').count();
        let column = match before.rsplit_once('\n') {
            Some((_, last)) => last.chars().count() + 1,
            None => value.at.column + before.chars().count(),
        };
        Place {
            file: value.at.file.clone(),
            line: value.at.line + lines,
            column,
            offset: value.at.offset + index,
            length,
        }
    }

    fn complain_of_unused(&mut self) {
        for (name, variable) in &self.variables {
            if variable.used || !variable.in_root {
                continue;
            }
            self.problems.push(
                Diagnostic::new(
                    "spec::unused-variable",
                    format!("variable \"{name}\" is never used"),
                    &variable.at,
                    "declared here",
                )
                .with_help(format!("use it as `${{{name}}}` in a string, or remove it")),
            );
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Piece<'a> {
    Literal(&'a str),
    Variable(&'a str),
}

impl<'a> Piece<'a> {
    fn name(self) -> Option<&'a str> {
        match self {
            Self::Variable(name) => Some(name),
            Self::Literal(_) => None,
        }
    }
}

/// A text cut at its variables. `$${` is a literal `${`; a `${` that no identifier and `}` follow is literal
/// too, as is every other `$`.
fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut literal = 0;
    let mut index = 0;
    while let Some(found) = text[index..].find("${") {
        let at = index + found;
        index = at + 2;
        if at > literal && text[literal..at].ends_with('$') {
            // One of the two `$` goes, all else stays.
            pieces.push(Piece::Literal(&text[literal..at - 1]));
            literal = at;
            continue;
        }
        let name = &text[at + 2..];
        let length = name
            .bytes()
            .take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
            .count();
        if name[length..].starts_with('}') && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
            pieces.push(Piece::Literal(&text[literal..at]));
            pieces.push(Piece::Variable(&name[..length]));
            index = at + 2 + length + 1;
            literal = index;
        }
    }
    pieces.push(Piece::Literal(&text[literal..]));
    pieces.retain(|piece| *piece != Piece::Literal(""));
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_at_their_variables() {
        use Piece::{Literal, Variable};
        for (text, cut) in [
            ("a ${b} c", vec![Literal("a "), Variable("b"), Literal(" c")]),
            ("$${x}", vec![Literal("${x}")]),
            ("$$${x}", vec![Literal("$"), Literal("${x}")]),
            (
                "a $${x:-y} ${z}",
                vec![Literal("a "), Literal("${x:-y} "), Variable("z")],
            ),
            ("$HOME ${x:-y} ${} $", vec![Literal("$HOME ${x:-y} ${} $")]),
            ("${a}${b}", vec![Variable("a"), Variable("b")]),
            ("${HOME}", vec![Variable("HOME")]),
            ("${a", vec![Literal("${a")]),
        ] {
            assert_eq!(pieces(text), cut, "{text}");
        }
    }
}
