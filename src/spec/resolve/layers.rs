//! Layers: a sandbox over its templates over the defaults.

use std::collections::{HashMap, HashSet};

use crate::spec::decode::{Block, Content, Entry};
use crate::spec::syntax::Value;

/// What two entries have in common when the nearer replaces, or adds to, the outer one.
type Key = (&'static str, String);

/// Entries in their order; a replaced one keeps its place.
#[derive(Default)]
struct Merged {
    slots: Vec<Option<Entry>>,
    index: HashMap<Key, usize>,
}

/// Merges layers, the outermost first. The innermost one, the sandbox itself, gives its label and place.
pub(super) fn merge(layers: &[&Block], own: Block) -> Block {
    let mut merged = Merged::default();
    let outer = layers.iter().flat_map(|layer| layer.entries.iter().cloned());
    outer.chain(own.entries).for_each(|entry| merged.put(entry));
    Block {
        entries: merged.slots.into_iter().flatten().collect(),
        open: Vec::new(),
        flawed: own.flawed || layers.iter().any(|layer| layer.flawed),
        ..own
    }
}

fn key(entry: &Entry) -> Key {
    let repeats = entry.form.body().is_some_and(|body| body.written.repeats());
    let label = match &entry.content {
        Content::Block(block) if repeats => block.name().to_owned(),
        _ => String::new(),
    };
    (entry.form.name, label)
}

impl Merged {
    fn put(&mut self, nearer: Entry) {
        // A nearer one of the two replaces the outer one of either.
        let replaced = match nearer.form.name {
            "image" => Some("clone-from"),
            "clone-from" => Some("image"),
            _ => None,
        };
        if let Some(index) = replaced.and_then(|name| self.index.remove(&(name, String::new()))) {
            self.slots[index] = None;
        }
        let key = key(&nearer);
        if let Some(slot) = self.index.get(&key).and_then(|index| self.slots.get_mut(*index)) {
            match slot {
                Some(outer) => add(outer, nearer),
                None => *slot = Some(nearer),
            }
            return;
        }
        self.index.insert(key, self.slots.len());
        self.slots.push(Some(nearer));
    }
}

fn add(outer: &mut Entry, nearer: Entry) {
    match (&mut outer.content, nearer) {
        (
            Content::Values(outer),
            Entry {
                content: Content::Values(inner),
                ..
            },
        ) => {
            let known: HashSet<String> = outer.iter().map(|value| value.text.clone()).collect();
            outer.extend(inner.into_iter().filter(|value| !known.contains(&value.text)));
        }
        (
            Content::Map(outer),
            Entry {
                content: Content::Map(inner),
                ..
            },
        ) => {
            let known: HashMap<String, usize> = outer
                .iter()
                .enumerate()
                .map(|(index, (key, _))| (key.text.clone(), index))
                .collect();
            for pair in inner {
                match known.get(&pair.0.text) {
                    Some(index) => outer[*index] = pair,
                    None => outer.push(pair),
                }
            }
        }
        (_, nearer) => *outer = nearer,
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
