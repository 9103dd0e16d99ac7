//! From one format to the other, meaning kept. Comments and layout are lost: they are no part of the tree.
//!
//! KDL is written as version 1. But for booleans it keeps to what both versions have, so that `true` to
//! `#true` is all that makes it KDL 2.

use std::fmt::Write as _;

use indexmap::IndexMap;
use serde_yaml::{Mapping, Value as Yaml};

use super::decode::{Block, Content, Entry};
use super::language::{Form, Shape, Type, Written};
use super::load::{Rejected, decoded};
use super::syntax::{Format, Value};

/// Rewrites one file. Its includes are left as they are named, but for the extension, which becomes the new
/// format's: convert them too.
///
/// # Errors
/// Everything that is wrong with the text, as `check_text` tells it.
pub fn convert(name: &str, bytes: &[u8], from: Format, to: Format) -> Result<String, Rejected> {
    let block = decoded(name, bytes, from)?;
    Ok(text_of(&block, to))
}

/// A whole file as text.
pub(super) fn text_of(block: &Block, format: Format) -> String {
    match format {
        Format::Kdl => {
            let mut text = String::new();
            for entry in &block.entries {
                kdl_entry(&mut text, entry, 0);
            }
            text
        }
        Format::Yaml => yaml_text(block),
    }
}

/// A string of KDL, with the escapes that versions 1 and 2 share.
fn kdl_string(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            // Also what KDL 2 takes for line breaks or refuses in a text (KDL 2.0.0, "Disallowed Literal Code
            // Points").
            other
                if other.is_control()
                    || matches!(other, '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}') =>
            {
                // Writing to a String cannot fail.
                let _ = write!(quoted, "\\u{{{:x}}}", u32::from(other));
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

/// A name of KDL, in quotes unless both versions take it bare.
fn kdl_name(text: &str) -> String {
    let mut rest = text.chars();
    let bare = rest.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && rest.all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
        && !matches!(text, "true" | "false" | "null" | "inf" | "nan" | "r");
    if bare { text.to_owned() } else { kdl_string(text) }
}

/// Whether the type is written without quotes: a number or a boolean, and not a variable that stands for one.
fn is_bare(value: &Value, kind: Type) -> bool {
    match kind {
        Type::Integer { .. } | Type::Port => !value.text.is_empty() && value.text.bytes().all(|b| b.is_ascii_digit()),
        Type::Boolean => matches!(value.text.as_str(), "true" | "false"),
        _ => false,
    }
}

fn kdl_value(value: &Value, kind: Type) -> String {
    if is_bare(value, kind) {
        value.text.clone()
    } else {
        kdl_string(&extension(value, kind, "kdl"))
    }
}

/// An include's name with the extension of the new format.
fn extension(value: &Value, kind: Type, extension: &str) -> String {
    match value.text.rsplit_once('.') {
        Some((stem, "kdl" | "yaml" | "yml")) if kind == Type::Include => format!("{stem}.{extension}"),
        _ => value.text.clone(),
    }
}

/// Whether what the block holds stands on lines of its own, rather than as properties.
fn is_long(form: &Form) -> bool {
    matches!(form.name, "defaults" | "template" | "sandbox" | "backend")
}

fn kdl_entry(text: &mut String, entry: &Entry, depth: usize) {
    let indent = "    ".repeat(depth);
    let name = entry.form.name;
    match (&entry.content, &entry.form.shape) {
        (Content::Value(value), Shape::Value(kind)) => {
            let _ = writeln!(text, "{indent}{name} {}", kdl_value(value, *kind));
        }
        (Content::Values(values), Shape::Values(kind)) => {
            let values: Vec<String> = values.iter().map(|value| kdl_value(value, *kind)).collect();
            if !values.is_empty() {
                let _ = writeln!(text, "{indent}{name} {}", values.join(" "));
            }
        }
        (Content::Map(pairs), Shape::Map { values, .. }) => {
            let pairs: Vec<String> = pairs
                .iter()
                .map(|(key, value)| format!("{}={}", kdl_name(&key.text), kdl_value(value, *values)))
                .collect();
            if !pairs.is_empty() {
                let _ = writeln!(text, "{indent}{name} {}", pairs.join(" "));
            }
        }
        (Content::Block(block), _) => kdl_block(text, entry.form, block, depth),
        _ => {}
    }
}

fn kdl_block(text: &mut String, form: &'static Form, block: &Block, depth: usize) {
    let indent = "    ".repeat(depth);
    let long = is_long(form);
    let _ = write!(text, "{indent}{}", form.name);
    if let (Some(label), Some((_, kind))) = (&block.label, block.body.label.parts()) {
        let _ = write!(text, " {}", kdl_value(label, kind));
    }
    let mut inner = String::new();
    for entry in &block.entries {
        match (&entry.content, &entry.form.shape) {
            (Content::Value(value), Shape::Value(kind)) if !long => {
                let _ = write!(text, " {}={}", entry.form.name, kdl_value(value, *kind));
            }
            _ => kdl_entry(&mut inner, entry, depth + 1),
        }
    }
    for (key, value) in &block.open {
        let _ = writeln!(
            inner,
            "{indent}    {} {}",
            kdl_name(&key.text),
            kdl_value(value, Type::Note)
        );
    }
    if inner.is_empty() {
        text.push('\n');
    } else {
        let _ = writeln!(text, " {{\n{inner}{indent}}}");
    }
}

/// Line breaks of Unicode, which the YAML emitter writes as they are and YAML readers then fold, with YAML's escapes
/// for them (YAML 1.2.2, section 5.7).
const BREAKS: [(char, &str); 3] = [('\u{85}', "\\N"), ('\u{2028}', "\\L"), ('\u{2029}', "\\P")];

fn yaml_text(block: &Block) -> String {
    let plain = Yaml::Mapping(yaml_fields(block));
    // Maps of strings always serialize.
    let text = serde_yaml::to_string(&plain).unwrap_or_default();
    if !text.contains(BREAKS.map(|(character, _)| character)) {
        return text;
    }
    // A control character makes the emitter escape the string that it is in. So a mark that starts with one
    // stands for each break until all is written.
    let mark = (0..)
        .map(|number| format!("{number}."))
        .find(|mark| !text.contains(mark.as_str()));
    let Some(mark) = mark else { return text };
    let marked = BREAKS.iter().enumerate().fold(plain, |tree, (index, (character, _))| {
        substitute(tree, *character, &format!("\u{1}{mark}{index};"))
    });
    let text = serde_yaml::to_string(&marked).unwrap_or_default();
    BREAKS.iter().enumerate().fold(text, |text, (index, (_, escape))| {
        ["\\x01", "\\u0001"]
            .iter()
            .fold(text, |text, one| text.replace(&format!("{one}{mark}{index};"), escape))
    })
}

fn substitute(tree: Yaml, character: char, mark: &str) -> Yaml {
    match tree {
        Yaml::String(text) => Yaml::String(text.replace(character, mark)),
        Yaml::Sequence(items) => Yaml::Sequence(
            items
                .into_iter()
                .map(|item| substitute(item, character, mark))
                .collect(),
        ),
        Yaml::Mapping(map) => Yaml::Mapping(
            map.into_iter()
                .map(|(key, value)| (substitute(key, character, mark), substitute(value, character, mark)))
                .collect(),
        ),
        other => other,
    }
}

fn yaml_value(value: &Value, kind: Type) -> Yaml {
    if is_bare(value, kind) {
        if let Ok(number) = value.text.parse::<u64>() {
            return Yaml::Number(number.into());
        }
        return Yaml::Bool(value.text == "true");
    }
    Yaml::String(extension(value, kind, "yaml"))
}

/// What a block holds, as a map.
fn yaml_fields(block: &Block) -> Mapping {
    let mut fields: IndexMap<&'static str, Yaml> = IndexMap::new();
    for entry in &block.entries {
        let key = entry.form.key;
        match (&entry.content, &entry.form.shape) {
            (Content::Value(value), Shape::Value(kind)) => {
                fields.insert(key, yaml_value(value, *kind));
            }
            (Content::Values(values), Shape::Values(kind)) => {
                fields.insert(
                    key,
                    Yaml::Sequence(values.iter().map(|value| yaml_value(value, *kind)).collect()),
                );
            }
            (Content::Map(pairs), Shape::Map { values, .. }) => {
                let pairs = pairs
                    .iter()
                    .map(|(key, value)| (Yaml::String(key.text.clone()), yaml_value(value, *values)));
                fields.insert(key, Yaml::Mapping(pairs.collect()));
            }
            (Content::Block(inner), Shape::Block(body)) => match body.written {
                Written::Once => {
                    fields.insert(key, yaml_once(inner));
                }
                Written::Tagged | Written::Map => {
                    let slot = fields.entry(key).or_insert_with(|| Yaml::Mapping(Mapping::new()));
                    if let Yaml::Mapping(map) = slot {
                        let held = yaml_fields(inner);
                        let held = if held.is_empty() {
                            Yaml::Null
                        } else {
                            Yaml::Mapping(held)
                        };
                        map.insert(Yaml::String(inner.name().to_owned()), held);
                    }
                }
                Written::List => {
                    let slot = fields.entry(key).or_insert_with(|| Yaml::Sequence(Vec::new()));
                    if let Yaml::Sequence(list) = slot {
                        list.push(Yaml::Mapping(yaml_labelled(inner)));
                    }
                }
            },
            _ => {}
        }
    }
    let open = block
        .open
        .iter()
        .map(|(key, value)| (Yaml::String(key.text.clone()), yaml_value(value, Type::Note)));
    fields
        .into_iter()
        .map(|(key, value)| (Yaml::String(key.to_owned()), value))
        .chain(open)
        .collect()
}

/// The same with the label among the keys, at their head.
fn yaml_labelled(block: &Block) -> Mapping {
    let mut map = Mapping::new();
    if let (Some(label), Some((key, kind))) = (&block.label, block.body.label.parts()) {
        map.insert(Yaml::String(key.to_owned()), yaml_value(label, kind));
    }
    map.extend(yaml_fields(block));
    map
}

fn yaml_once(block: &Block) -> Yaml {
    match (&block.label, block.body.label.parts()) {
        (Some(label), Some((_, kind))) if block.entries.is_empty() => yaml_value(label, kind),
        _ => {
            let map = yaml_labelled(block);
            if map.is_empty() { Yaml::Null } else { Yaml::Mapping(map) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_survive_every_way() {
        for text in [
            "",
            "a\"b\\c",
            "line\nline\r\n\ttab\n",
            "yes",
            "0755",
            "~",
            "null",
            "ü→\u{2028}",
            "\u{85}a\u{2029} \n b",
            " spaces ",
            "# no",
            "a: b",
            "$${x}",
            "\u{1}\u{1b}[0m",
            "{",
            "- x",
            "'",
            "|",
            "\n",
            "\n\n x\n",
            "true",
            "1e3",
            "<<",
        ] {
            let kdl = format!(
                "sandbox \"a\" {{\n    image \"i\"\n    file \"/x\" content={}\n}}\n",
                kdl_string(text)
            );
            let yaml = convert("a.kdl", kdl.as_bytes(), Format::Kdl, Format::Yaml).expect(text);
            let back = convert("a.yaml", yaml.as_bytes(), Format::Yaml, Format::Kdl)
                .unwrap_or_else(|r| panic!("{yaml} {r:?}"));
            assert_eq!(back, kdl, "{yaml}");
            assert!(kdl::KdlDocument::parse_v2(&kdl).is_ok(), "{kdl}");
        }
    }
}
