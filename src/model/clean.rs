//! Texts of others, made harmless and short: names, values and contents come from specs and from inside
//! sandboxes, and must not be able to steer a terminal.

use std::borrow::Cow;

/// The text with every character that could steer a terminal, or hide what is there, written as an escape.
/// Tabs stay.
#[must_use]
pub fn clean(text: &str) -> Cow<'_, str> {
    if !text.chars().any(steers) {
        return Cow::Borrowed(text);
    }
    let mut cleaned = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        if steers(character) {
            cleaned.extend(character.escape_default());
        } else {
            cleaned.push(character);
        }
    }
    Cow::Owned(cleaned)
}

/// Controls, and the format characters that reorder or hide what stands beside them (Unicode TR 36, 3.2).
#[must_use]
pub fn steers(character: char) -> bool {
    (character.is_control() && character != '\t')
        || matches!(character,
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_steers_a_terminal() {
        assert_eq!(clean("plain ä text\t"), "plain ä text\t");
        assert_eq!(
            clean("\u{1b}[2J\u{9b}1m\r\n\u{202e}\u{7}"),
            "\\u{1b}[2J\\u{9b}1m\\r\\n\\u{202e}\\u{7}"
        );
    }
}
