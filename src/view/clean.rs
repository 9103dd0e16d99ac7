//! Texts of others, short and harmless.

use std::borrow::Cow;

pub use crate::model::clean;

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
    fn long_texts_are_cut() {
        assert_eq!(short("abcdef", 6), "abcdef");
        assert_eq!(short("abcdefg", 6), "abcde…");
        assert_eq!(short("ä\u{1b}bcdefg", 6), "ä\\u{1…");
    }
}
