//! From nodes to blocks.

use crate::model::{Diagnostic, Place};
use crate::spec::language::{Body, DOCUMENT, Form, Label, Shape, Type};
use crate::spec::problems::Problems;
use crate::spec::suggest::{nearest, unknown};
use crate::spec::syntax::{Format, Name, Node, Scalar, Tree, Value};

use super::settle::settle;
use super::{Block, Content, Entry};

/// Decodes a file. What is wrong is left out of the block and reported.
pub(crate) fn document(tree: Tree, problems: &mut Problems) -> Block {
    let mut decoder = Decoder {
        format: tree.format,
        problems,
    };
    let mut block = Block {
        body: &DOCUMENT,
        label: None,
        entries: Vec::new(),
        open: Vec::new(),
        flawed: false,
        at: tree.start,
    };
    for node in tree.nodes {
        if decoder.problems.is_full() {
            break;
        }
        decoder.child(&mut block, node, None);
    }
    decoder.settle(&mut block);
    block
}

struct Decoder<'a> {
    format: Format,
    problems: &'a mut Problems,
}

impl Decoder<'_> {
    /// How the file's format spells a form's name.
    fn word(&self, form: &Form) -> &'static str {
        match self.format {
            Format::Kdl => form.name,
            Format::Yaml => form.key,
        }
    }

    /// What to call one of a form, where YAML's word for it is a plural.
    fn one(&self, form: &Form) -> &'static str {
        match form.body() {
            Some(body) if body.written.repeats() => form.name,
            _ => self.word(form),
        }
    }

    fn push(&mut self, code: &'static str, message: String, at: &Place, text: &str, help: impl Into<String>) {
        self.problems
            .push(Diagnostic::new(code, message, at, text).with_help(help));
    }

    /// Decodes a node that is a block.
    fn block(&mut self, node: Node, form: &'static Form, body: &'static Body) -> Block {
        let mut args = node.args.into_iter();
        let mut label = None;
        let mut flawed = node.flawed;
        let word = self.one(form);
        match (&body.label, args.next()) {
            (Label::None, None) | (Label::Optional { .. }, None) => {}
            (Label::None, Some(value)) => {
                let fields = self.known(body);
                self.push(
                    "spec::unexpected-value",
                    format!("\"{word}\" takes no value of its own"),
                    &value.at,
                    "not expected here",
                    format!("it holds {fields}"),
                );
            }
            (Label::Required { kind, key }, None) => {
                let help = match self.format {
                    Format::Kdl => format!("write it after the word, as in `{word} …`: {}", kind.description()),
                    Format::Yaml => format!("add \"{key}\": {}", kind.description()),
                };
                self.push(
                    "spec::missing-label",
                    format!("this \"{word}\" does not say its {key}"),
                    &node.at,
                    "here",
                    help,
                );
            }
            (Label::Optional { kind, .. } | Label::Required { kind, .. }, Some(value)) => {
                if self.fits(&value, *kind, word) {
                    label = Some(value);
                } else {
                    flawed = true;
                }
            }
        }
        if let Some(extra) = args.next() {
            self.push(
                "spec::unexpected-value",
                format!("\"{word}\" takes one value, this is one more"),
                &extra.at,
                "not expected here",
                "properties are written `name=value`",
            );
        }
        let mut block = Block {
            body,
            label,
            entries: Vec::new(),
            open: Vec::new(),
            flawed,
            at: node.at,
        };
        for (name, value) in node.props {
            self.property(&mut block, form, name, value);
        }
        for child in node.children {
            self.child(&mut block, child, Some(form));
        }
        self.settle(&mut block);
        for form in body.forms().filter(|form| form.required) {
            if block.flawed {
                break;
            }
            if block.entry(form.name).is_none() {
                let field = self.word(form);
                let description = match &form.shape {
                    Shape::Value(kind) => kind.description(),
                    _ => "what it holds".to_owned(),
                };
                self.push(
                    "spec::missing-property",
                    format!("this \"{word}\" has no \"{field}\""),
                    &block.at,
                    "needs one more property",
                    format!("add \"{field}\": {description}"),
                );
            }
        }
        block
    }

    /// `name=value` in KDL, `name: value` in YAML.
    fn property(&mut self, block: &mut Block, parent: &'static Form, name: Name, value: Value) {
        let Some(form) = block.body.forms().find(|form| form.name == name.text) else {
            if block.body.open {
                self.open(block, name, value);
            } else {
                self.unknown(block, Some(parent), &name);
            }
            return;
        };
        match &form.shape {
            Shape::Value(kind) => {
                let value = self.taken(value, *kind, self.word(form));
                block.entries.push(Entry {
                    form,
                    content: Content::Value(value),
                    at: name.at,
                });
            }
            _ => self.push(
                "spec::wrong-type",
                format!("\"{}\" is a node of its own, not a property", form.name),
                &name.at,
                "not a property",
                format!("write it between braces: `{{ {} … }}`", form.name),
            ),
        }
    }

    /// A setting of a backend.
    fn open(&mut self, block: &mut Block, name: Name, value: Value) {
        if self.fits(&value, Type::Note, &name.text) {
            block.open.push((name, value));
        }
    }

    /// A node in a block.
    fn child(&mut self, block: &mut Block, mut node: Node, parent: Option<&'static Form>) {
        let Some(form) = block.body.forms().find(|form| form.name == node.name.text) else {
            if !block.body.open {
                return self.unknown(block, parent, &node.name);
            }
            let word = node.name.text.clone();
            if let Some(value) = self.only_value(&mut node, Type::Note, &word) {
                self.open(block, node.name, value);
            }
            return;
        };
        let word = self.word(form);
        let at = node.name.at.clone();
        let content = match &form.shape {
            Shape::Value(kind) => {
                let value = self.only_value(&mut node, *kind, word);
                Content::Value(value.unwrap_or_else(|| broken(&at)))
            }
            Shape::Values(kind) => Content::Values(self.values(node, form, *kind)),
            Shape::Map { keys, values } => Content::Map(self.map(node, form, (*keys, *values))),
            Shape::Block(body) => {
                let inner = self.block(node, form, body);
                // Without the label that it needs nothing can be said of it that has not been said.
                let needs = matches!(body.label, Label::Required { .. }) || inner.flawed;
                if body.written.repeats() && inner.label.is_none() && needs {
                    block.flawed |= inner.flawed;
                    return;
                }
                Content::Block(inner)
            }
        };
        block.entries.push(Entry { form, content, at });
    }

    fn settle(&mut self, block: &mut Block) {
        let format = self.format;
        let word = |entry: &Entry| match format {
            Format::Kdl => entry.form.name,
            Format::Yaml => entry.form.key,
        };
        settle(block, word, self.problems);
    }

    fn only_value(&mut self, node: &mut Node, kind: Type, word: &str) -> Option<Value> {
        for (name, _) in &node.props {
            self.push(
                "spec::unknown-property",
                unknown("property", &name.text, []),
                &name.at,
                "not known here",
                format!("\"{word}\" holds one value and no properties"),
            );
        }
        for child in &node.children {
            self.push(
                "spec::unknown-property",
                unknown("property", &child.name.text, []),
                &child.name.at,
                "not known here",
                format!("\"{word}\" holds one value and nothing more"),
            );
        }
        match node.args.as_slice() {
            [_] => node.args.pop().filter(|value| self.fits(value, kind, word)),
            [] => {
                self.push(
                    "spec::missing-value",
                    format!("\"{word}\" has no value"),
                    &node.name.at,
                    "says nothing",
                    format!("expected {}", kind.description()),
                );
                None
            }
            [_, extra, ..] => {
                self.push(
                    "spec::unexpected-value",
                    format!("\"{word}\" takes one value, this is one more"),
                    &extra.at,
                    "not expected here",
                    format!("expected {}", kind.description()),
                );
                None
            }
        }
    }

    fn values(&mut self, node: Node, form: &'static Form, kind: Type) -> Vec<Value> {
        let word = self.word(form);
        let names = node
            .props
            .iter()
            .map(|(name, _)| name)
            .chain(node.children.iter().map(|child| &child.name));
        for name in names {
            self.push(
                "spec::unknown-property",
                unknown("property", &name.text, []),
                &name.at,
                "not known here",
                format!("\"{word}\" holds values only"),
            );
        }
        if node.args.is_empty() {
            self.push(
                "spec::missing-value",
                format!("\"{word}\" has no value"),
                &node.name.at,
                "says nothing",
                format!("expected {}", kind.description()),
            );
        }
        let mut values = node.args;
        values.retain(|value| self.fits(value, kind, word));
        values
    }

    fn map(&mut self, node: Node, form: &'static Form, (keys, values): (Type, Type)) -> Vec<(Name, Value)> {
        let word = self.word(form);
        let mut pairs = Vec::new();
        for value in &node.args {
            self.push(
                "spec::unexpected-value",
                format!("\"{word}\" takes names with values, this has no name"),
                &value.at,
                "has no name",
                format!("write `{word} NAME=\"value\"`"),
            );
        }
        let mut found: Vec<(Name, Option<Value>)> = Vec::new();
        found.extend(node.props.into_iter().map(|(name, value)| (name, Some(value))));
        for mut child in node.children {
            let word = child.name.text.clone();
            let value = self.only_value(&mut child, values, &word);
            found.push((child.name, value));
        }
        for (name, value) in found {
            let Some(value) = value else { continue };
            if let Err(complaint) = keys.check(&name.text) {
                self.push(
                    complaint.code,
                    complaint.message,
                    &name.at,
                    "not allowed here",
                    complaint.help,
                );
                continue;
            }
            if !self.fits(&value, values, &name.text) {
                continue;
            }
            pairs.push((name, value));
        }
        pairs
    }

    /// Whether the value is of a kind that its type can read.
    fn fits(&mut self, value: &Value, kind: Type, word: &str) -> bool {
        let fits = match value.scalar {
            Scalar::Plain => true,
            Scalar::String => kind.takes_string() || (kind.expands() && value.text.contains("${")),
            Scalar::Number => kind.takes_number(),
            Scalar::Boolean => kind.takes_boolean(),
            Scalar::Null => false,
            Scalar::Invalid => return false,
        };
        if fits {
            return true;
        }
        let expected = kind.description();
        let (code, message, help) = if value.scalar == Scalar::Null {
            (
                "spec::missing-value",
                format!("\"{word}\" has no value"),
                format!("expected {expected}"),
            )
        } else {
            let help = match value.scalar {
                Scalar::String
                    if value.text.bytes().all(|b| b.is_ascii_alphanumeric()) && kind.check(&value.text).is_ok() =>
                {
                    "remove the quotes".to_owned()
                }
                Scalar::Number if kind.takes_string() && kind.check(&value.text).is_ok() => {
                    "put it in quotes".to_owned()
                }
                _ => format!("write {expected}"),
            };
            let found = value.description();
            (
                "spec::wrong-type",
                format!("\"{word}\" is {expected}, not {found}"),
                help,
            )
        };
        let text = if value.scalar == Scalar::Null {
            "nothing here"
        } else {
            "of the wrong type"
        };
        self.push(code, message, &value.at, text, help);
        false
    }

    /// The value, or what stands for one that has been complained of.
    fn taken(&mut self, value: Value, kind: Type, word: &str) -> Value {
        if self.fits(&value, kind, word) {
            value
        } else {
            broken(&value.at)
        }
    }

    fn known(&self, body: &'static Body) -> String {
        let mut names: Vec<&str> = body.forms().map(|form| self.word(form)).collect();
        names.sort_unstable();
        if names.is_empty() {
            "nothing more".to_owned()
        } else {
            names.join(", ")
        }
    }

    fn unknown(&mut self, block: &mut Block, parent: Option<&'static Form>, name: &Name) {
        block.flawed = true;
        let body = block.body;
        let what = match (parent, self.format) {
            (Some(_), _) => "property",
            (None, Format::Kdl) => "node",
            (None, Format::Yaml) => "key",
        };
        // `file` in YAML and `files` in KDL are the commonest slips.
        let slip = body
            .forms()
            .find(|form| form.name == name.text || form.key == name.text)
            .map(|form| self.word(form));
        let candidate = slip.or_else(|| nearest(&name.text, body.forms().map(|form| self.word(form))));
        let message = match candidate {
            Some(candidate) => format!("unknown {what} \"{}\", did you mean \"{candidate}\"?", name.text),
            None => format!("unknown {what} \"{}\"", name.text),
        };
        let code = if parent.is_some() {
            "spec::unknown-property"
        } else {
            "spec::unknown-node"
        };
        let help = match (parent, name.text.as_str()) {
            (_, "<<") => "merge keys are not part of YAML 1.2; use `templates` for what sandboxes share".to_owned(),
            (Some(parent), _) => format!("\"{}\" holds {}", self.one(parent), self.known(body)),
            (None, _) => format!("a spec holds {}", self.known(body)),
        };
        self.push(code, message, &name.at, "not known here", help);
    }
}

/// What stands for a value that has been complained of, so that nobody finds it missing as well.
fn broken(at: &Place) -> Value {
    Value {
        scalar: Scalar::Invalid,
        text: String::new(),
        at: at.clone(),
    }
}
