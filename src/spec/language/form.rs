//! The grammar of the description.

use super::Type;

/// One node of KDL, or one key of YAML.
#[derive(Debug)]
pub(crate) struct Form {
    /// Its name in KDL.
    pub name: &'static str,
    /// Its name in YAML; a plural where YAML has a map or a list of them.
    pub key: &'static str,
    /// What it means: one or two sentences for the schema.
    pub doc: &'static str,
    /// What it holds.
    pub shape: Shape,
    /// Whether it must be there.
    pub required: bool,
}

/// What a form holds.
#[derive(Debug)]
pub(crate) enum Shape {
    /// One value: `cpu 2` or `cpu=2`; `cpu: 2`.
    Value(Type),
    /// Any number of values: `use "a" "b"`; `use: [a, b]`.
    Values(Type),
    /// Names that the author chooses, with a value each: `env A="1"`; `env: { A: "1" }`.
    Map {
        /// What a name is.
        keys: Type,
        /// What a value is.
        values: Type,
    },
    /// Forms of its own, with or without a label.
    Block(Body),
}

/// What a block holds.
#[derive(Debug)]
pub(crate) struct Body {
    /// Its label, the argument of the node.
    pub label: Label,
    /// How YAML writes it, and whether it may come more than once.
    pub written: Written,
    /// What may stand in it.
    pub fields: &'static [&'static [Form]],
    /// Whether names outside `fields` are taken as a map of texts: a backend's settings.
    pub open: bool,
    /// Fields of which there must be exactly one.
    pub(crate) one_of: &'static [&'static str],
}

/// The label of a block.
#[derive(Debug)]
pub(crate) enum Label {
    /// There is none.
    None,
    /// There may be one.
    Optional {
        /// Its key where YAML writes the block as a map.
        key: &'static str,
        /// What it is.
        kind: Type,
    },
    /// There must be one.
    Required {
        /// Its key where YAML writes the block as a map.
        key: &'static str,
        /// What it is.
        kind: Type,
    },
}

impl Label {
    /// Its key and type, where there is one.
    pub(crate) fn parts(&self) -> Option<(&'static str, Type)> {
        match self {
            Self::None => None,
            Self::Optional { key, kind } | Self::Required { key, kind } => Some((key, *kind)),
        }
    }
}

/// How YAML writes a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    /// Once at most: as its label alone or as a map that has the label among its keys.
    Once,
    /// Once at most: as its label alone, or as a map of one label to what it holds.
    Tagged,
    /// As a map of labels to what they hold.
    Map,
    /// As a list of maps that have the label among their keys.
    List,
}

impl Written {
    /// Whether it may come more than once.
    pub(crate) fn repeats(self) -> bool {
        matches!(self, Self::Map | Self::List)
    }
}

impl Body {
    /// Every form that may stand in it.
    pub(crate) fn forms(&self) -> impl Iterator<Item = &'static Form> + use<> {
        self.fields.iter().flat_map(|group| group.iter())
    }
}

impl Form {
    /// The body of a block.
    pub(crate) fn body(&self) -> Option<&Body> {
        match &self.shape {
            Shape::Block(body) => Some(body),
            _ => None,
        }
    }

    /// A value that may be left out.
    pub(super) const fn value(name: &'static str, kind: Type, doc: &'static str) -> Self {
        Self {
            name,
            key: name,
            doc,
            shape: Shape::Value(kind),
            required: false,
        }
    }

    /// A value that must be there.
    pub(super) const fn required(name: &'static str, kind: Type, doc: &'static str) -> Self {
        Self {
            required: true,
            ..Self::value(name, kind, doc)
        }
    }

    /// Any number of values.
    pub(super) const fn values(name: &'static str, key: &'static str, kind: Type, doc: &'static str) -> Self {
        Self {
            name,
            key,
            doc,
            shape: Shape::Values(kind),
            required: false,
        }
    }

    /// A map.
    pub(super) const fn map(name: &'static str, keys: Type, values: Type, doc: &'static str) -> Self {
        Self {
            name,
            key: name,
            doc,
            shape: Shape::Map { keys, values },
            required: false,
        }
    }

    /// A block.
    pub(super) const fn block(name: &'static str, key: &'static str, doc: &'static str, body: Body) -> Self {
        Self {
            name,
            key,
            doc,
            shape: Shape::Block(body),
            required: false,
        }
    }
}
