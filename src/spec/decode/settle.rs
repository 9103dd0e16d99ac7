//! What stands in a block more than once: joined where that is how lists and maps are written, else reported.

use std::collections::{HashMap, HashSet};

use crate::model::{Diagnostic, Place};
use crate::spec::language::{Shape, Type};
use crate::spec::problems::Problems;
use crate::spec::syntax::{Name, Value};

use super::{Block, Content, Entry};

/// What must not come twice: a form, the label of one that repeats or the sandbox that stands in its place, and what else
/// tells two of them apart.
type Key = (&'static str, String, [Option<String>; 3]);

/// Puts a block's entries into the text's order, joins and reports what is there twice. `word` spells a form's
/// name as the file's format does.
pub(super) fn settle(block: &mut Block, word: impl Fn(&Entry) -> &'static str, problems: &mut Problems) {
    block.entries.sort_by_key(|entry| entry.at.offset);
    let mut settled: Vec<Entry> = Vec::with_capacity(block.entries.len());
    let mut seen: HashMap<Key, usize> = HashMap::new();
    for entry in std::mem::take(&mut block.entries) {
        let key = key(&entry);
        let Some(first) = seen.get(&key).and_then(|index| settled.get_mut(*index)) else {
            seen.insert(key, settled.len());
            settled.push(entry);
            continue;
        };
        match (&mut first.content, entry.content) {
            (Content::Values(before), Content::Values(more)) => before.extend(more),
            (Content::Map(before), Content::Map(more)) => before.extend(more),
            (Content::Block(before), Content::Block(inner)) if !key.1.is_empty() => {
                twice(entry.form.name, &key.1, before.label_at(), inner.label_at(), problems);
            }
            (_, content) => {
                let entry = Entry { content, ..entry };
                twice("property", word(&entry), &first.at, &entry.at, problems);
            }
        }
    }
    for entry in &mut settled {
        match (&mut entry.content, &entry.form.shape) {
            // The same pattern twice does no harm, and order matters among patterns.
            (Content::Values(values), Shape::Values(kind)) if *kind != Type::Pattern => {
                distinct_values(values, entry.form.name, problems);
            }
            (Content::Map(pairs), _) => distinct_names(pairs, "key", problems),
            _ => {}
        }
    }
    distinct_names(&mut block.open, "property", problems);
    block.entries = settled;
}

fn key(entry: &Entry) -> Key {
    let name = entry.form.name;
    match (&entry.content, entry.form.body()) {
        // Two rules for one destination are not the same, when they let different ports through.
        (Content::Block(inner), Some(body)) if body.written.repeats() => {
            let text = |field| inner.text(field).map(str::to_owned);
            let label = Some(inner.name()).filter(|label| !label.is_empty());
            let label = label.or(inner.text("sandbox")).unwrap_or_default();
            let apart = ["port", "protocol", "sandbox"].map(text);
            (name, label.to_owned(), apart)
        }
        _ => (name, String::new(), [const { None }; 3]),
    }
}

fn distinct_values(values: &mut Vec<Value>, what: &str, problems: &mut Problems) {
    let mut seen: HashMap<String, Place> = HashMap::new();
    values.retain(|value| match seen.get(&value.text) {
        Some(first) => {
            twice(what, &value.text, first, &value.at, problems);
            false
        }
        None => {
            seen.insert(value.text.clone(), value.at.clone());
            true
        }
    });
}

fn distinct_names(pairs: &mut Vec<(Name, Value)>, what: &str, problems: &mut Problems) {
    pairs.sort_by_key(|(name, _)| name.at.offset);
    let names: HashSet<&str> = pairs.iter().map(|(name, _)| name.text.as_str()).collect();
    if names.len() == pairs.len() {
        return;
    }
    let mut seen: HashMap<String, Place> = HashMap::new();
    pairs.retain(|(name, _)| match seen.get(&name.text) {
        Some(first) => {
            twice(what, &name.text, first, &name.at, problems);
            false
        }
        None => {
            seen.insert(name.text.clone(), name.at.clone());
            true
        }
    });
}

fn twice(what: &str, name: &str, first: &Place, second: &Place, problems: &mut Problems) {
    let (code, message, help) = match what {
        "property" => (
            "spec::duplicate-property",
            format!("property \"{name}\" is given twice"),
            "keep one of the two",
        ),
        "key" => (
            "spec::duplicate-name",
            format!("key \"{name}\" is declared twice"),
            "keep one of the two",
        ),
        _ => (
            "spec::duplicate-name",
            format!("{what} \"{name}\" is declared twice"),
            "keep one of the two, or give one of them another name",
        ),
    };
    problems.push(
        Diagnostic::new(code, message, second, "again here")
            .with_mark(first, "first here")
            .with_help(help),
    );
}
