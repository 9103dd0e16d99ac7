//! Texts of others, short and harmless.

use std::borrow::Cow;

pub use crate::model::clean;
use crate::model::steers;

/// A JSON text that means the same, and has no such character in it but line breaks: outside of its strings, JSON has none.
#[must_use]
pub(super) fn json(text: String) -> String {
    let harmful = |character: char| character != '\n' && steers(character);
    if !text.contains(harmful) {
        return text;
    }
    let mut cleaned = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if harmful(character) {
            let units = &mut [0; 2];
            // RFC 8259, section 7: beyond the basic plane two units stand for one character.
            for unit in character.encode_utf16(units) {
                cleaned.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            cleaned.push(character);
        }
    }
    cleaned
}

/// The harmless text, cut to at most `most` characters, an ellipsis included.
#[must_use]
pub(super) fn short(text: &str, most: usize) -> Cow<'_, str> {
    // Enough characters to fill the room; what is behind them need not be looked at.
    let end = text.char_indices().nth(most + 1).map_or(text.len(), |(end, _)| end);
    let cleaned = clean(&text[..end]);
    if end == text.len() && cleaned.chars().count() <= most {
        return cleaned;
    }
    let mut cut: String = cleaned.chars().take(most.saturating_sub(1)).collect();
    cut.push('…');
    Cow::Owned(cut)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_means_the_same_without_them() {
        let value = "a\u{9b}1m\u{202e}\u{e0001}\u{1b}ä";
        let text = json(format!("[\n{}]", serde_json::to_string(value).expect("a string")));
        assert_eq!(text, "[\n\"a\\u009b1m\\u202e\\udb40\\udc01\\u001bä\"]");
        assert_eq!(serde_json::from_str::<[String; 1]>(&text).expect("JSON"), [value]);
    }

    #[test]
    fn long_texts_are_cut() {
        assert_eq!(short("abcdef", 6), "abcdef");
        assert_eq!(short("abcdefg", 6), "abcde…");
        assert_eq!(short("ä\u{1b}bcdefg", 6), "ä\\u{1…");
    }
}
