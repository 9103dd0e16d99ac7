//! A look at the characters of KDL: just enough of its grammar to skip strings and comments.

use std::ops::Range;

use crate::model::{Diagnostic, Place};
use crate::spec::source::Source;
use crate::spec::syntax::{Name, Value};

/// Where a string, a raw string of either version, or a comment that starts at `at` ends; none where no such
/// thing starts. What is never closed ends with the text.
fn skip(text: &str, at: usize) -> Option<usize> {
    let rest = &text[at..];
    let end_of = |close: &str, from: usize| {
        rest[from..]
            .find(close)
            .map_or(text.len(), |i| at + from + i + close.len())
    };
    if rest.starts_with("//") {
        return Some(rest.find('\n').map_or(text.len(), |i| at + i));
    }
    if rest.starts_with("/*") {
        return Some(skip_comment(text, at));
    }
    let before = text[..at].chars().next_back();
    let starts_word = before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != '-');
    let raw = if starts_word {
        rest.strip_prefix('r').unwrap_or(rest)
    } else {
        rest
    };
    let hashes = raw.bytes().take_while(|b| *b == b'#').count();
    if (hashes > 0 || raw.len() < rest.len()) && raw[hashes..].starts_with('"') {
        let open = rest.len() - raw.len() + hashes;
        let quotes = if rest[open..].starts_with("\"\"\"") { 3 } else { 1 };
        let close = format!("{}{}", "\"".repeat(quotes), "#".repeat(hashes));
        return Some(end_of(&close, open + quotes));
    }
    if rest.starts_with("\"\"\"")
        && rest[3..].contains("\"\"\"")
        && rest[3..].trim_start_matches([' ', '\t', '\r']).starts_with('\n')
    {
        return Some(end_of("\"\"\"", 3));
    }
    if rest.starts_with('"') {
        let mut escaped = false;
        for (index, byte) in rest.bytes().enumerate().skip(1) {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => return Some(at + index + 1),
                _ => {}
            }
        }
        return Some(text.len());
    }
    None
}

/// Comments between `/*` and `*/` nest.
fn skip_comment(text: &str, at: usize) -> usize {
    comment(text, at, usize::MAX).unwrap_or(text.len())
}

/// The end of the comment that starts at `at`, or where it nests deeper than `limit`.
fn comment(text: &str, at: usize, limit: usize) -> Result<usize, usize> {
    let bytes = text.as_bytes();
    let mut depth = 0_usize;
    let mut index = at;
    while index + 1 < bytes.len() {
        match &bytes[index..index + 2] {
            b"/*" => {
                depth += 1;
                if depth > limit {
                    return Err(index);
                }
                index += 2;
            }
            b"*/" => {
                depth -= 1;
                index += 2;
                if depth == 0 {
                    return Ok(index);
                }
            }
            _ => index += 1,
        }
    }
    Ok(text.len())
}

/// What is too much of a text for the parsers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TooMuch {
    /// Braces, parentheses or comments nest too deep; the first one too many is here.
    Nesting(usize),
    /// There are more words and signs than [`WORDS`]; the first one too many is here.
    Words(usize),
    /// There are more bytes outside strings than [`BARE`]; the first one too many is here.
    Bare(usize),
}

/// How many words, strings and signs a text may have. The parsers take about ten microseconds for each.
pub(super) const WORDS: usize = 30_000;
/// How many bytes a text may have outside strings, comments included, which one of the parsers reads no faster
/// than words.
pub(super) const BARE: usize = 256 << 10;
/// How deep braces may nest when strings are not told from the rest. A parser that recovers from an error may
/// take the inside of a string for the outside, and must not run out of stack then.
const RAW_DEPTH: usize = 1_000;

/// Holds a text against the bounds; none where it keeps them.
pub(super) fn too_much(text: &str, limit: usize) -> Option<TooMuch> {
    let bytes = text.as_bytes();
    let (mut depth, mut raw, mut words, mut bare) = (0_usize, 0_usize, 0_usize, 0_usize);
    for (index, byte) in bytes.iter().enumerate() {
        match byte {
            b'{' | b'(' => raw += 1,
            b'*' if index > 0 && bytes[index - 1] == b'/' => raw += 1,
            b'}' | b')' => raw = raw.saturating_sub(1),
            _ => {}
        }
        if raw > RAW_DEPTH {
            return Some(TooMuch::Nesting(index));
        }
    }
    let mut in_word = false;
    let mut index = 0;
    while index < bytes.len() {
        if words > WORDS {
            return Some(TooMuch::Words(index));
        }
        if bare > BARE {
            return Some(TooMuch::Bare(index));
        }
        // The parsers recurse for comments too.
        if bytes[index..].starts_with(b"/*") {
            match comment(text, index, limit) {
                Ok(end) => {
                    bare += end - index;
                    index = end;
                }
                Err(at) => return Some(TooMuch::Nesting(at)),
            }
            words += 1;
            continue;
        }
        // A quote or a hash may start a string; no other byte can, and testing each would be slow.
        if matches!(bytes[index], b'"' | b'#' | b'r' | b'/')
            && let Some(end) = skip(text, index)
        {
            if bytes[index] == b'/' {
                bare += end - index;
            }
            words += 1;
            in_word = false;
            index = end.max(index + 1);
            continue;
        }
        bare += 1;
        match bytes[index] {
            b'{' | b'(' => depth += 1,
            b'}' | b')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > limit {
            return Some(TooMuch::Nesting(index));
        }
        let byte = bytes[index];
        let part_of_word = byte.is_ascii_alphanumeric() || byte >= 0x80 || matches!(byte, b'-' | b'_' | b'.');
        if byte == b' ' || byte == b'\t' || byte == b'\r' {
            in_word = false;
        } else if !part_of_word || !in_word {
            // Every sign and line counts like a word.
            words += 1;
            in_word = part_of_word;
        }
        index += 1;
    }
    (bare > BARE).then_some(TooMuch::Bare(index))
}

/// Pairs of places where a node that has its name before `from` gives a property twice: first and later one.
pub(super) fn doubled_properties(text: &str, from: usize) -> Vec<(Range<usize>, Range<usize>)> {
    let mut seen: Vec<(String, Range<usize>)> = Vec::new();
    let mut doubled = Vec::new();
    let mut dropped = false;
    let mut index = from;
    let bytes = text.as_bytes();
    while index < bytes.len() {
        let rest = &text[index..];
        if rest.starts_with("/-") {
            dropped = true;
            index += 2;
            continue;
        }
        if rest.starts_with("//") {
            break;
        }
        if rest.starts_with("/*") {
            index = skip_comment(text, index);
            continue;
        }
        match bytes[index] {
            b'\\' => {
                // A line continued: all up to the line's end is blank or comment.
                index = rest.find('\n').map_or(text.len(), |i| index + i + 1);
            }
            b' ' | b'\t' => index += 1,
            b'(' => index = rest.find(')').map_or(text.len(), |i| index + i + 1),
            b'\n' | b'\r' | b';' | b'{' | b'}' => break,
            _ => {
                let end = word(text, index);
                if bytes.get(end) != Some(&b'=') {
                    dropped = false;
                    index = end;
                    continue;
                }
                let key = text[index..end].trim_matches('"').to_owned();
                if !std::mem::take(&mut dropped) {
                    match seen.iter().find(|(first, _)| *first == key) {
                        Some((_, first)) => doubled.push((first.clone(), index..end)),
                        None => seen.push((key, index..end)),
                    }
                }
                index = end + 1;
                if bytes.get(index) == Some(&b'(') {
                    index = text[index..].find(')').map_or(text.len(), |i| index + i + 1);
                }
                if index < text.len() {
                    index = word(text, index);
                }
            }
        }
    }
    doubled
}

/// The end of the string or bare word that starts at `at`; always beyond `at`.
fn word(text: &str, at: usize) -> usize {
    if let Some(end) = skip(text, at) {
        return end.max(at + 1);
    }
    let rest = &text[at..];
    let stop = |c: char| c.is_whitespace() || matches!(c, '=' | ';' | '{' | '}' | '(' | ')' | '"');
    let length = rest
        .char_indices()
        .find(|(i, c)| *i > 0 && stop(*c))
        .map_or(rest.len(), |(i, _)| i);
    at + length.max(1)
}

/// A property that a node has twice.
pub(super) fn doubled(source: &Source, first: Range<usize>, second: Range<usize>) -> Diagnostic {
    let text = source.text.get(second.clone()).unwrap_or_default().trim_matches('"');
    Diagnostic::new(
        "spec::duplicate-property",
        format!("property \"{text}\" is given twice"),
        &source.place(second.start, second.len()),
        "given again here",
    )
    .with_mark(&source.place(first.start, first.len()), "first given here")
    .with_help("keep one of the two")
}

/// A KDL type annotation, which the language has no use for.
pub(super) fn annotation(source: &Source, offset: usize, length: usize) -> Diagnostic {
    Diagnostic::new(
        "spec::type-annotation",
        "a type annotation means nothing here",
        &source.place(offset, length),
        "not needed",
    )
    .with_help("remove the parentheses and what is in them")
}

/// A node's name, and its first argument where that stands on the same line.
pub(super) fn node_place(source: &Source, name: &Name, args: &[Value]) -> Place {
    match args.first() {
        Some(first) if first.at.line == name.at.line && first.at.offset >= name.at.offset => {
            let end = first.at.offset + first.at.length;
            let text = &source.text[name.at.offset..end];
            let length = text.find('\n').unwrap_or(text.len());
            source.place(name.at.offset, length)
        }
        _ => name.at.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doubled_names(text: &str) -> Vec<&str> {
        let from = text.find(' ').unwrap_or(0);
        doubled_properties(text, from)
            .into_iter()
            .map(|(_, second)| &text[second])
            .collect()
    }

    #[test]
    fn doubled_properties_are_found_in_the_text() {
        for (text, doubled) in [
            ("a x=1 x=2", vec!["x"]),
            ("a x=1 \\\n  x=2", vec!["x"]),
            ("a \"x\"=1 x=2", vec!["x"]),
            ("a x=\"x=1\" y=r#\" x=2 \"# { x 3; }", vec![]),
            ("a x=1 /-x=2", vec![]),
            ("a x=1 /* x=2 */ y=3 // x=4", vec![]),
            ("a x=1; b x=2", vec![]),
            ("a \"l\" x=true y=false x=null", vec!["x"]),
        ] {
            assert_eq!(doubled_names(text), doubled, "{text}");
        }
    }

    #[test]
    fn depth_counts_braces_outside_strings() {
        assert_eq!(too_much(&"a {".repeat(65), 64), Some(TooMuch::Nesting(64 * 3 + 2)));
        assert_eq!(too_much(&format!("a \"{}\"", "{".repeat(100)), 64), None);
        assert_eq!(too_much(&format!("a r#\"{}\"#", "{\"".repeat(100)), 64), None);
        assert_eq!(too_much(&format!("// {}", "{".repeat(100)), 64), None);
        assert!(matches!(too_much(&"/*".repeat(500), 64), Some(TooMuch::Nesting(_))));
        assert!(matches!(
            too_much(&format!("a \"{}\"", "{".repeat(2_000)), 64),
            Some(TooMuch::Nesting(_))
        ));
    }

    #[test]
    fn words_and_bare_bytes_are_bounded() {
        assert!(matches!(too_much(&"a ".repeat(WORDS + 1), 64), Some(TooMuch::Words(_))));
        assert!(matches!(too_much(&"\"".repeat(3 * WORDS), 64), Some(TooMuch::Words(_))));
        assert!(matches!(
            too_much(&format!("//{}", "x".repeat(BARE)), 64),
            Some(TooMuch::Bare(_))
        ));
        assert!(matches!(too_much(&"x".repeat(BARE + 2), 64), Some(TooMuch::Bare(_))));
        assert_eq!(too_much(&format!("a \"{}\"", "x".repeat(BARE + 2)), 64), None);
    }
}
