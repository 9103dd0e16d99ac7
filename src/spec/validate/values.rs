//! Every value against its type.

use crate::model::Diagnostic;
use crate::spec::decode::{Block, Content};
use crate::spec::language::{Shape, Type};
use crate::spec::problems::Problems;
use crate::spec::syntax::{Scalar, Value};

/// Checks all values of a block. While variables are not yet `expanded`, values that use one are left alone.
pub(crate) fn values(block: &Block, expanded: bool, problems: &mut Problems) {
    if let (Some(label), Some((_, kind))) = (&block.label, block.body.label.parts()) {
        value(label, kind, expanded, problems);
    }
    for (_, setting) in &block.open {
        value(setting, Type::Text, expanded, problems);
    }
    for entry in &block.entries {
        match (&entry.content, &entry.form.shape) {
            (Content::Value(one), Shape::Value(kind)) => value(one, *kind, expanded, problems),
            (Content::Values(many), Shape::Values(kind)) => {
                many.iter().for_each(|one| value(one, *kind, expanded, problems));
            }
            (Content::Map(pairs), Shape::Map { values: kind, .. }) => {
                pairs.iter().for_each(|(_, one)| value(one, *kind, expanded, problems));
            }
            (Content::Block(inner), _) => values(inner, expanded, problems),
            _ => {}
        }
    }
}

fn value(value: &Value, kind: Type, expanded: bool, problems: &mut Problems) {
    // What could not be expanded has been reported, and has no text to check.
    if value.scalar == Scalar::Invalid || (!expanded && kind.expands() && value.text.contains("${")) {
        return;
    }
    if let Err(complaint) = kind.check(&value.text) {
        let expected = format!("expected {}", kind.description());
        problems
            .push(Diagnostic::new(complaint.code, complaint.message, &value.at, expected).with_help(complaint.help));
    }
}
