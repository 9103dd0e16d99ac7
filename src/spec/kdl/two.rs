//! KDL 2, by the `kdl` package.

use kdl::{KdlDocument, KdlEntry, KdlNode, KdlValue};

use crate::model::Diagnostic;
use crate::spec::source::Source;
use crate::spec::syntax::{Name, Node, Nodes, Scalar, Value};

use super::scan;

pub(super) fn parse(source: &Source) -> Result<Nodes, Vec<Diagnostic>> {
    match KdlDocument::parse_v2(&source.text) {
        Ok(document) => {
            let mut problems = Vec::new();
            let nodes = document
                .nodes()
                .iter()
                .map(|n| node(source, n, &mut problems))
                .collect();
            Ok((nodes, problems))
        }
        Err(error) => Err(error.diagnostics.iter().map(|d| diagnostic(source, d)).collect()),
    }
}

fn diagnostic(source: &Source, error: &kdl::KdlDiagnostic) -> Diagnostic {
    let message = error.message.as_deref().unwrap_or("this is not KDL");
    let (offset, length) = last_line(&source.text, error.span.offset(), error.span.len());
    let place = source.place(offset, length);
    let label = error.label.as_deref().unwrap_or("here");
    let diagnostic = Diagnostic::new("spec::syntax", message.trim_end_matches('.'), &place, label);
    match &error.help {
        Some(help) => diagnostic.with_help(help),
        None => diagnostic,
    }
}

/// The parser marks everything from where it began to where it gave up; only the last line says anything.
fn last_line(text: &str, offset: usize, length: usize) -> (usize, usize) {
    let Some(marked) = text.get(offset..offset.saturating_add(length).min(text.len())) else {
        return (offset, length);
    };
    let marked = marked.trim_end();
    match marked.rsplit_once('\n') {
        Some((before, last)) => {
            let blank = last.len() - last.trim_start().len();
            (offset + before.len() + 1 + blank, last.len() - blank)
        }
        None => (offset, marked.len()),
    }
}

fn name(source: &Source, identifier: &kdl::KdlIdentifier) -> Name {
    Name {
        text: identifier.value().to_owned(),
        at: source.place(identifier.span().offset(), identifier.span().len()),
    }
}

/// The value of an entry. The parser tells where the whole entry is and how its value was spelled; the value
/// stands at the entry's end.
fn value(source: &Source, entry: &KdlEntry, problems: &mut Vec<Diagnostic>) -> Value {
    let span = entry.span();
    let whole = source
        .text
        .get(span.offset()..span.offset() + span.len())
        .unwrap_or_default();
    let raw = entry.format().map_or("", |format| format.value_repr.as_str());
    let offset = span.offset() + whole.rfind(raw).unwrap_or(0);
    let length = if raw.is_empty() { span.len() } else { raw.len() };
    if let Some(annotation) = entry.ty() {
        problems.push(scan::annotation(
            source,
            annotation.span().offset(),
            annotation.span().len(),
        ));
    }
    let (scalar, text) = match entry.value() {
        KdlValue::Null => (Scalar::Null, "null".to_owned()),
        KdlValue::Bool(is) => (Scalar::Boolean, is.to_string()),
        KdlValue::Integer(_) | KdlValue::Float(_) => (Scalar::Number, raw.to_owned()),
        KdlValue::String(text) => (Scalar::String, text.clone()),
    };
    Value {
        scalar,
        text,
        at: source.place(offset, length),
    }
}

fn node(source: &Source, parsed: &KdlNode, problems: &mut Vec<Diagnostic>) -> Node {
    let own = name(source, parsed.name());
    if let Some(annotation) = parsed.ty() {
        problems.push(scan::annotation(
            source,
            annotation.span().offset(),
            annotation.span().len(),
        ));
    }
    let mut args = Vec::new();
    let mut props: Vec<(Name, Value)> = Vec::new();
    for entry in parsed.entries() {
        let value = value(source, entry, problems);
        match entry.name() {
            None => args.push(value),
            // Doubled ones are kept: the decoder complains of them.
            Some(key) => props.push((name(source, key), value)),
        }
    }
    let at = scan::node_place(source, &own, &args);
    let children = parsed.children().map_or(&[][..], KdlDocument::nodes);
    Node {
        name: own,
        args,
        props,
        children: children.iter().map(|n| node(source, n, problems)).collect(),
        at,
        flawed: false,
    }
}
