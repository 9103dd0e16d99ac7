//! From maps and lists to nodes: YAML's plurals (`sandboxes: { a: … }`) become labelled nodes (`sandbox "a"`),
//! as the language's table says. Names that the table does not have are kept, for the decoder to complain of.

use crate::model::{Diagnostic, Place};
use crate::spec::language::{Body, DOCUMENT, Form, Shape, Written};
use crate::spec::syntax::{Name, Node, Nodes, Scalar, Value};

use super::events::Item;

pub(super) fn document(item: &Item) -> Nodes {
    let mut lowering = Lowering { problems: Vec::new() };
    let mut node = lowering.empty(
        Name {
            text: String::new(),
            at: item.at().clone(),
        },
        None,
    );
    match item {
        Item::Map(entries, _) => lowering.entries(&mut node, entries, &DOCUMENT, None),
        Item::Scalar(value) if value.scalar == Scalar::Null => {}
        other => lowering.expected("a spec", "a map such as `environment: demo`", other),
    }
    // At the top every entry is a node, as in KDL.
    let scalars = node.props.into_iter().map(|(name, value)| Node {
        at: name.at.clone(),
        name,
        args: vec![value],
        props: Vec::new(),
        children: Vec::new(),
        flawed: false,
    });
    let mut nodes: Vec<Node> = scalars.chain(node.children).collect();
    nodes.sort_by_key(|node| node.at.offset);
    (nodes, lowering.problems)
}

struct Lowering {
    problems: Vec<Diagnostic>,
}

impl Lowering {
    fn empty(&self, name: Name, label: Option<Value>) -> Node {
        Node {
            at: label.as_ref().map_or_else(|| name.at.clone(), |label| label.at.clone()),
            name,
            args: label.into_iter().collect(),
            props: Vec::new(),
            children: Vec::new(),
            flawed: false,
        }
    }

    fn expected(&mut self, what: &str, form: &str, found: &Item) {
        let at = first_line(found.at());
        self.problems.push(
            Diagnostic::new(
                "spec::wrong-type",
                format!("{what} is {form}, not {}", found.description()),
                &at,
                format!("this is {}", found.description()),
            )
            .with_help(format!("write {form}")),
        );
    }

    /// Puts the entries of a map into a node. `label` is the key that stands for the node's argument.
    fn entries(&mut self, node: &mut Node, entries: &[(Value, Item)], body: &'static Body, label: Option<&str>) {
        let mut label_seen: Option<Place> = None;
        for (key, item) in entries {
            let name = Name {
                text: key.text.clone(),
                at: key.at.clone(),
            };
            if label == Some(key.text.as_str()) {
                match item {
                    Item::Scalar(value) => {
                        if let Some(first) = label_seen.replace(key.at.clone()) {
                            self.doubled(&name, &first);
                        } else {
                            node.at = value.at.clone();
                            node.args.push(value.clone());
                        }
                    }
                    other => self.expected(&format!("\"{}\"", key.text), "a single value", other),
                }
                continue;
            }
            match body.forms().find(|form| form.key == key.text) {
                Some(form) => self.entry(node, name, form, item),
                // KDL's singular, which the decoder would take for right.
                None if body.forms().any(|form| form.name == key.text) => {
                    let form = body.forms().find(|form| form.name == key.text);
                    self.singular(&name, form.map_or("", |form| form.key));
                    node.flawed = true;
                }
                None => match item {
                    Item::Scalar(value) => node.props.push((name, value.clone())),
                    // Inner parts of what is unknown say nothing more.
                    _ => {
                        let unknown = self.empty(name, None);
                        node.children.push(unknown);
                    }
                },
            }
        }
    }

    fn singular(&mut self, name: &Name, plural: &str) {
        self.problems.push(
            Diagnostic::new(
                "spec::unknown-property",
                format!("unknown property \"{}\", did you mean \"{plural}\"?", name.text),
                &name.at,
                "not known here",
            )
            .with_help(format!("in YAML it is \"{plural}\", which holds any number of them")),
        );
    }

    fn doubled(&mut self, name: &Name, first: &Place) {
        self.problems.push(
            Diagnostic::new(
                "spec::duplicate-property",
                format!("property \"{}\" is given twice", name.text),
                &name.at,
                "given again here",
            )
            .with_mark(first, "first given here")
            .with_help("keep one of the two"),
        );
    }

    fn entry(&mut self, node: &mut Node, name: Name, form: &'static Form, item: &Item) {
        let quoted = format!("\"{}\"", form.key);
        let name = Name {
            text: form.name.to_owned(),
            at: name.at,
        };
        match (&form.shape, item) {
            (Shape::Value(_), Item::Scalar(value)) => node.props.push((name, value.clone())),
            (Shape::Value(_), other) => {
                self.expected(&quoted, "a single value", other);
                let value = Value {
                    scalar: Scalar::Invalid,
                    text: String::new(),
                    at: first_line(other.at()),
                };
                node.props.push((name, value));
            }
            (Shape::Values(_), Item::Scalar(value)) => {
                let mut child = self.empty(name, None);
                child.args.push(value.clone());
                node.children.push(child);
            }
            (Shape::Values(_), Item::List(items, _)) => {
                let mut child = self.empty(name, None);
                for item in items {
                    match item {
                        Item::Scalar(value) => child.args.push(value.clone()),
                        other => self.expected(&format!("an entry of {quoted}"), "a single value", other),
                    }
                }
                if !child.args.is_empty() {
                    node.children.push(child);
                }
            }
            (Shape::Values(_), other) => self.expected(&quoted, "a list", other),
            (Shape::Map { .. }, Item::Map(entries, _)) => {
                let mut child = self.empty(name, None);
                for (key, item) in entries {
                    let key_name = Name {
                        text: key.text.clone(),
                        at: key.at.clone(),
                    };
                    match item {
                        Item::Scalar(value) => child.props.push((key_name, value.clone())),
                        other => self.expected(&format!("\"{}\"", key.text), "a single value", other),
                    }
                }
                node.children.push(child);
            }
            (Shape::Map { .. }, other) => self.expected(&quoted, "a map", other),
            (Shape::Block(body), item) => self.block(node, name, form, body, item),
        }
    }

    fn block(&mut self, node: &mut Node, name: Name, form: &'static Form, body: &'static Body, item: &Item) {
        let quoted = format!("\"{}\"", form.key);
        let label = body.label.parts().map(|(key, _)| key);
        match (body.written, item) {
            (Written::Once, Item::Map(entries, _)) => {
                let mut child = self.empty(name, None);
                self.entries(&mut child, entries, body, label);
                node.children.push(child);
            }
            (Written::Once | Written::Tagged, Item::Scalar(value)) if label.is_some() => {
                let child = self.empty(name, Some(value.clone()));
                node.children.push(child);
            }
            (Written::Once, Item::Scalar(value)) if value.scalar == Scalar::Null => {
                let child = self.empty(name, None);
                node.children.push(child);
            }
            (Written::Once, other) => self.expected(&quoted, "a map", other),
            (Written::Map | Written::Tagged, Item::Map(entries, _)) => {
                if body.written == Written::Tagged && entries.len() != 1 {
                    return self.expected(&quoted, "a name, or a map of one name to its settings", item);
                }
                for (key, item) in entries {
                    let mut child = self.empty(name.clone(), Some(key.clone()));
                    match item {
                        Item::Map(entries, _) => self.entries(&mut child, entries, body, None),
                        Item::Scalar(value) if value.scalar == Scalar::Null => {}
                        other => {
                            self.expected(&format!("\"{}\" in {quoted}", key.text), "a map", other);
                            continue;
                        }
                    }
                    node.children.push(child);
                }
            }
            (Written::Tagged, other) => self.expected(&quoted, "a name, or a map of one name to its settings", other),
            (Written::Map, other) => self.expected(&quoted, "a map", other),
            (Written::List, Item::List(items, _)) => {
                for item in items {
                    match item {
                        Item::Map(entries, at) => {
                            let mut child = self.empty(name.clone(), None);
                            child.at = first_line(at);
                            self.entries(&mut child, entries, body, label);
                            node.children.push(child);
                        }
                        Item::Scalar(value) if label.is_some() && value.scalar != Scalar::Null => {
                            let child = self.empty(name.clone(), Some(value.clone()));
                            node.children.push(child);
                        }
                        other => self.expected(&format!("an entry of {quoted}"), "a map", other),
                    }
                }
            }
            (Written::List, other) => self.expected(&quoted, "a list", other),
        }
    }
}

/// The beginning of a place that may go over many lines.
fn first_line(at: &Place) -> Place {
    Place {
        length: at.length.min(1),
        ..at.clone()
    }
}
