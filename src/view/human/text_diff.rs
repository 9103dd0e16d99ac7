//! What changes inside a file.

use similar::{ChangeTag, TextDiff};

use super::super::clean::short;
use super::super::palette::{Tone, paint};
use crate::plan::TextChange;

/// How many lines of a diff are shown.
const LINES: usize = 40;

/// How much of each line is shown.
const WIDTH: usize = 160;

/// How a file changes, in lines: a unified diff of texts, sizes of anything else.
pub(in super::super) fn text_diff(change: &TextChange) -> Vec<String> {
    match (text(&change.before), text(&change.after)) {
        (Some(before), Some(after)) => unified(before, after),
        _ => vec![format!(
            "binary, {} → {} bytes",
            change.before.len(),
            change.after.len()
        )],
    }
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))
}

fn unified(before: &str, after: &str) -> Vec<String> {
    let diff = TextDiff::configure()
        // Only what helps a reader is worth waiting for.
        .timeout(std::time::Duration::from_millis(200))
        .diff_lines(before, after);
    let mut lines = Vec::new();
    for hunk in diff.unified_diff().context_radius(2).iter_hunks() {
        lines.push(paint(Tone::Active, hunk.header()));
        for change in hunk.iter_changes() {
            let (sign, tone) = match change.tag() {
                ChangeTag::Delete => ('-', Some(Tone::Removed)),
                ChangeTag::Insert => ('+', Some(Tone::Added)),
                ChangeTag::Equal => (' ', None),
            };
            let text = change.value();
            let ended = text.strip_suffix('\n');
            // A carriage return would be invisible, and is then the whole difference.
            let line = format!("{sign}{}", short(ended.unwrap_or(text), WIDTH));
            lines.push(tone.map_or(line.clone(), |tone| paint(tone, line)));
            if ended.is_none() {
                lines.push(paint(Tone::Faint, "\\ no line end"));
            }
        }
    }
    let more = lines.len().saturating_sub(LINES);
    // One line in the place of one line says less than the line.
    if more > 1 {
        lines.truncate(LINES);
        lines.push(paint(Tone::Faint, format!("… {more} more lines")));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(before: impl AsRef<[u8]>, after: impl AsRef<[u8]>) -> Vec<String> {
        let change = TextChange {
            before: before.as_ref().into(),
            after: after.as_ref().into(),
        };
        let plain = |line: String| anstream::adapter::strip_str(&line).to_string();
        text_diff(&change).into_iter().map(plain).collect()
    }

    #[test]
    fn texts_have_a_unified_diff() {
        assert_eq!(
            lines("a\nb\nc\nd\ne\n", "a\nb\nx\nd\ne\n"),
            ["@@ -1,5 +1,5 @@", " a", " b", "-c", "+x", " d", " e"]
        );
        assert_eq!(lines("a\r\n", "a"), ["@@ -1 +1 @@", "-a\\r", "+a", "\\ no line end"]);
    }

    #[test]
    fn what_is_hostile_or_binary_or_long_is_tamed() {
        assert_eq!(
            lines("", "\u{1b}]0;owned\u{7}\n"),
            ["@@ -0,0 +1 @@", "+\\u{1b}]0;owned\\u{7}"]
        );
        assert_eq!(lines("\0", "\0\0"), ["binary, 1 → 2 bytes"]);
        assert_eq!(lines(b"\xff", "a"), ["binary, 1 → 1 bytes"]);
        let long = lines("", "line\n".repeat(100));
        assert_eq!((long.len(), long[40].as_str()), (41, "… 61 more lines"));
    }
}
