//! Layers: a sandbox over its templates over the defaults.

use crate::spec::decode::{Block, Content, Entry};
use crate::spec::syntax::Value;

/// Merges layers, the outermost first. The innermost one, the sandbox itself, gives its label and place.
///
/// # Panics
/// Never: without a layer the result would have no place, and every sandbox is a layer of its own.
pub(super) fn merge(layers: &[&Block]) -> Block {
    let mut merged = layers.last().map_or_else(nothing, |own| Block {
        body: own.body,
        label: own.label.clone(),
        entries: Vec::new(),
        open: Vec::new(),
        at: own.at.clone(),
    });
    for layer in layers {
        for entry in &layer.entries {
            put(&mut merged.entries, entry);
        }
    }
    merged
}

fn nothing() -> Block {
    Block {
        body: &crate::spec::language::DOCUMENT,
        label: None,
        entries: Vec::new(),
        open: Vec::new(),
        at: crate::model::Place::nowhere(),
    }
}

fn put(entries: &mut Vec<Entry>, nearer: &Entry) {
    // A nearer one of the two replaces the outer one of either.
    match nearer.form.name {
        "image" => entries.retain(|entry| entry.form.name != "clone-from"),
        "clone-from" => entries.retain(|entry| entry.form.name != "image"),
        _ => {}
    }
    let repeats = nearer.form.body().is_some_and(|body| body.written.repeats());
    let same = entries
        .iter_mut()
        .find(|entry| match (&entry.content, &nearer.content) {
            _ if entry.form.name != nearer.form.name => false,
            (Content::Block(outer), Content::Block(inner)) if repeats => outer.name() == inner.name(),
            _ => true,
        });
    let Some(outer) = same else {
        entries.push(nearer.clone());
        return;
    };
    match (&mut outer.content, &nearer.content) {
        (Content::Values(outer), Content::Values(inner)) => {
            for value in inner {
                let same = |other: &Value| other.text == value.text;
                if !outer.iter().any(same) {
                    outer.push(value.clone());
                }
            }
        }
        (Content::Map(outer), Content::Map(inner)) => {
            for (key, value) in inner {
                match outer.iter_mut().find(|(other, _)| other.text == key.text) {
                    Some(slot) => *slot = (key.clone(), value.clone()),
                    None => outer.push((key.clone(), value.clone())),
                }
            }
        }
        _ => *outer = nearer.clone(),
    }
}

/// How many bytes a block's texts have, roughly, bookkeeping included.
pub(super) fn weight(block: &Block) -> u64 {
    const EACH: u64 = 256;
    let of = |value: &Value| EACH + value.text.len() as u64;
    let label = block.label.as_ref().map_or(0, of);
    let entries = block.entries.iter().map(|entry| match &entry.content {
        Content::Value(value) => of(value),
        Content::Values(values) => values.iter().map(of).sum(),
        Content::Map(pairs) => pairs.iter().map(|(key, value)| of(value) + key.text.len() as u64).sum(),
        Content::Block(inner) => weight(inner),
    });
    EACH + label + entries.sum::<u64>()
}
