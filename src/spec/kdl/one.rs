//! KDL 1, by the syntax tree of the `knuffel` package where the text is not [`plain`].

use knuffel::ast::{Literal, SpannedNode};
use knuffel::span::Span;
use miette::Diagnostic as _;

use crate::model::Diagnostic;
use crate::spec::source::Source;
use crate::spec::syntax::{Name, Node, Nodes, Scalar, Value};

use super::{plain, scan};

pub(super) fn parse(source: &Source) -> Result<Nodes, Vec<Diagnostic>> {
    match plain::read(source) {
        Some(nodes) => Ok((nodes, Vec::new())),
        None => by_grammar(source),
    }
}

pub(super) fn by_grammar(source: &Source) -> Result<Nodes, Vec<Diagnostic>> {
    match knuffel::parse_ast::<Span>(&*source.name, &source.text) {
        Ok(document) => {
            let mut problems = Vec::new();
            let nodes = document.nodes.iter().map(|n| node(source, n, &mut problems)).collect();
            Ok((nodes, problems))
        }
        Err(error) => {
            let errors: Vec<Diagnostic> = error
                .related()
                .into_iter()
                .flatten()
                .map(|e| diagnostic(source, e))
                .collect();
            if errors.is_empty() {
                return Err(vec![syntax(source, "this is not KDL", 0, 0, "")]);
            }
            Err(errors)
        }
    }
}

fn syntax(source: &Source, message: &str, offset: usize, length: usize, label: &str) -> Diagnostic {
    Diagnostic::new("spec::syntax", message, &source.place(offset, length), label)
}

fn diagnostic(source: &Source, error: &dyn miette::Diagnostic) -> Diagnostic {
    let mut labels = error.labels().into_iter().flatten();
    let said = error.to_string();
    // What could stand instead is a long list of signs; the place and the sign that stands there say more.
    let found = said
        .strip_prefix("found ")
        .and_then(|rest| rest.split_once(", expected "))
        .map(|(found, _)| found);
    let message = found.map_or_else(|| said.clone(), |found| format!("unexpected {found}"));
    let mut diagnostic = match labels.next() {
        Some(label) => {
            let text = if found.is_some() {
                "not expected here"
            } else {
                label.label().unwrap_or("here")
            };
            syntax(source, &message, label.offset(), label.len(), text)
        }
        None => syntax(source, &message, 0, 0, ""),
    };
    for label in labels {
        let place = source.place(label.offset(), label.len());
        diagnostic = diagnostic.with_mark(&place, label.label().unwrap_or("and here"));
    }
    let help = match (error.help(), found) {
        (Some(help), _) => help.to_string(),
        (None, Some("`=`")) => "properties are written name=\"value\", without blanks around the sign".to_owned(),
        (None, Some("`}`")) => {
            "in KDL 1, every node ends with `;` or the line's end, the last one before a `}` too".to_owned()
        }
        (None, Some(_)) => {
            "a node is a name, strings in double quotes and name=\"value\" pairs, then braces, `;` or the line's end"
                .to_owned()
        }
        (None, None) if said.starts_with("unclosed") => "add what closes it".to_owned(),
        (None, None) => return diagnostic,
    };
    diagnostic.with_help(help)
}

fn name(source: &Source, text: &str, span: Span) -> Name {
    Name {
        text: text.to_owned(),
        at: source.place(span.0, span.length()),
    }
}

fn value(source: &Source, value: &knuffel::ast::Value<Span>, problems: &mut Vec<Diagnostic>) -> Value {
    let span = *value.literal.span();
    if let Some(annotation) = &value.type_name {
        let span = *annotation.span();
        problems.push(scan::annotation(source, span.0, span.length()));
    }
    let raw = source.text.get(span.0..span.1).unwrap_or_default();
    let (scalar, text) = match &*value.literal {
        Literal::Null => (Scalar::Null, "null".to_owned()),
        Literal::Bool(is) => (Scalar::Boolean, is.to_string()),
        Literal::Int(_) | Literal::Decimal(_) => (Scalar::Number, raw.to_owned()),
        Literal::String(text) => (Scalar::String, text.to_string()),
    };
    Value {
        scalar,
        text,
        at: source.place(span.0, span.length()),
    }
}

fn node(source: &Source, parsed: &SpannedNode<Span>, problems: &mut Vec<Diagnostic>) -> Node {
    let own = name(source, &parsed.node_name, *parsed.node_name.span());
    if let Some(annotation) = &parsed.type_name {
        let span = *annotation.span();
        problems.push(scan::annotation(source, span.0, span.length()));
    }
    let args: Vec<Value> = parsed.arguments.iter().map(|v| value(source, v, problems)).collect();
    let mut props: Vec<(Name, Value)> = parsed
        .properties
        .iter()
        .map(|(key, v)| (name(source, key, *key.span()), value(source, v, problems)))
        .collect();
    props.sort_by_key(|(key, _)| key.at.offset);
    // The tree keeps one of two properties with the same name, so the text has to tell.
    for (first, second) in scan::doubled_properties(&source.text, own.at.offset + own.at.length) {
        problems.push(scan::doubled(source, first, second));
    }
    let at = scan::node_place(source, &own, &args);
    Node {
        name: own,
        args,
        props,
        children: parsed.children().map(|n| node(source, n, problems)).collect(),
        at,
        flawed: false,
    }
}
