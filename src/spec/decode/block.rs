//! A block: what a node holds, sorted by the language's forms.

use crate::model::Place;
use crate::spec::language::{Body, Form};
use crate::spec::syntax::{Name, Value};

/// The contents of one node, or of a whole file.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    /// What the language says it may hold.
    pub body: &'static Body,
    /// The label, if it has one.
    pub label: Option<Value>,
    /// What it holds, in the text's order.
    pub entries: Vec<Entry>,
    /// Names outside the language, where the body is open to them.
    pub open: Vec<(Name, Value)>,
    /// Whether something in it was not understood, so that what is missing may only be misspelt.
    pub(crate) flawed: bool,
    /// Where it stands.
    pub at: Place,
}

/// One thing that a block holds.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// Which.
    pub form: &'static Form,
    /// What it says.
    pub content: Content,
    /// Where its name stands.
    pub at: Place,
}

/// What an entry says.
#[derive(Debug, Clone)]
pub(crate) enum Content {
    /// One value.
    Value(Value),
    /// Several.
    Values(Vec<Value>),
    /// Values by name.
    Map(Vec<(Name, Value)>),
    /// A block.
    Block(Block),
}

impl Block {
    /// An entry by its form's name in KDL.
    pub(crate) fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.form.name == name)
    }

    /// A value.
    pub(crate) fn value(&self, name: &str) -> Option<&Value> {
        match &self.entry(name)?.content {
            Content::Value(value) => Some(value),
            _ => None,
        }
    }

    /// The text of a value.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.value(name).map(|value| value.text.as_str())
    }

    /// Whether a value is `true`.
    pub(crate) fn is_true(&self, name: &str) -> bool {
        self.text(name) == Some("true")
    }

    /// Several values; none of them where there is no such entry.
    pub(crate) fn values(&self, name: &str) -> &[Value] {
        match self.entry(name).map(|entry| &entry.content) {
            Some(Content::Values(values)) => values,
            _ => &[],
        }
    }

    /// Values by name.
    pub(crate) fn map(&self, name: &str) -> &[(Name, Value)] {
        match self.entry(name).map(|entry| &entry.content) {
            Some(Content::Map(values)) => values,
            _ => &[],
        }
    }

    /// Every block of one form.
    pub(crate) fn blocks<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Self> {
        self.entries
            .iter()
            .filter(move |entry| entry.form.name == name)
            .filter_map(|entry| match &entry.content {
                Content::Block(block) => Some(block),
                _ => None,
            })
    }

    /// The only block of a form.
    pub(crate) fn block<'a>(&'a self, name: &'a str) -> Option<&'a Self> {
        self.blocks(name).next()
    }

    /// The label's text; empty where there is none.
    pub(crate) fn name(&self) -> &str {
        self.label.as_ref().map_or("", |label| label.text.as_str())
    }

    /// The place of the label, else of the block.
    pub(crate) fn label_at(&self) -> &Place {
        self.label.as_ref().map_or(&self.at, |label| &label.at)
    }
}
