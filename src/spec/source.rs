//! Texts of spec files: reading them within bounds, and turning byte offsets into lines and columns.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::inputs::Read;
use crate::model::{Diagnostic, Place};

/// The most bytes that one spec file may have.
pub const FILE_LIMIT: usize = 1 << 20;

/// The texts of all files that were read, by the name that [`Place::file`] carries: what the view draws
/// excerpts from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    texts: BTreeMap<Arc<str>, Arc<str>>,
    /// The files and folders that the spec names.
    pub(super) read: Vec<Read>,
}

impl Sources {
    /// The text of a file; none for the command line and for files that could not be read.
    #[must_use]
    pub fn get(&self, file: &str) -> Option<&str> {
        self.texts.get(file).map(AsRef::as_ref)
    }

    /// All names, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.texts.keys().map(AsRef::as_ref)
    }

    /// Keeps a text.
    pub fn insert(&mut self, source: &Source) {
        self.texts.insert(source.name.clone(), source.text.clone());
    }
}

/// How many bytes lie between two remembered character counts.
const STRIDE: usize = 512;

/// One text, with what it takes to find a line and a column quickly: a file of one single long line holds as
/// many values as any other.
#[derive(Debug, Clone)]
pub struct Source {
    /// Its name, as places carry it.
    pub name: Arc<str>,
    /// Its text, without a byte order mark at the start.
    pub text: Arc<str>,
    lines: Vec<usize>,
    counts: Vec<usize>,
}

impl Source {
    /// A text that is known to be well-formed.
    #[must_use]
    pub fn new(name: &str, text: &str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let lines = std::iter::once(0)
            .chain(
                text.bytes()
                    .enumerate()
                    .filter(|(_, b)| *b == b'\n')
                    .map(|(i, _)| i + 1),
            )
            .collect();
        let mut counts = Vec::with_capacity(text.len() / STRIDE + 1);
        let mut count = 0;
        for stretch in text.as_bytes().chunks(STRIDE) {
            counts.push(count);
            count += characters(stretch);
        }
        Self {
            name: Arc::from(name),
            text: Arc::from(text),
            lines,
            counts,
        }
    }

    /// Takes the bytes of a file.
    ///
    /// # Errors
    /// When there are more than [`FILE_LIMIT`], when they are not UTF-8, or when the text has a NUL or a byte
    /// order mark other than at its start. The second value is the text to draw the excerpt from.
    pub fn from_bytes(name: &str, bytes: &[u8]) -> Result<Self, (Box<Diagnostic>, Self)> {
        let failed = |diagnostic: Diagnostic, text: &str| Err((Box::new(diagnostic), Self::new(name, text)));
        if bytes.len() > FILE_LIMIT {
            let diagnostic = Diagnostic::new(
                "spec::file-too-large",
                format!("this file has more than {FILE_LIMIT} bytes, the most a spec may have"),
                &Self::new(name, "").place(0, 0),
                "",
            )
            .with_help("keep long contents in files of their own and name them with `source` or `script`");
            return failed(diagnostic, "");
        }
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                let good = String::from_utf8_lossy(&bytes[..error.valid_up_to()]).into_owned();
                let source = Self::new(name, &good);
                let diagnostic = Diagnostic::new(
                    "spec::invalid-utf8",
                    format!(
                        "this file is not UTF-8: byte {} starts no character",
                        error.valid_up_to()
                    ),
                    &source.place(source.text.len(), 0),
                    "the text is readable up to here",
                )
                .with_help("save the file as UTF-8");
                return Err((Box::new(diagnostic), source));
            }
        };
        let source = Self::new(name, text);
        let unwanted = source
            .text
            .char_indices()
            .find(|(_, c)| *c == '\u{feff}' || (c.is_control() && !matches!(c, '\n' | '\r' | '\t')));
        if let Some((offset, character)) = unwanted {
            let what = match character {
                '\0' => "a NUL character".to_owned(),
                '\u{feff}' => "a byte order mark in the middle of the text".to_owned(),
                other => format!("the control character U+{:04X}", u32::from(other)),
            };
            let diagnostic = Diagnostic::new(
                "spec::invalid-character",
                format!("this file contains {what}"),
                &source.place(offset, character.len_utf8()),
                "here",
            )
            .with_help("a spec is plain text; remove the character, or write it as an escape in a string");
            return Err((Box::new(diagnostic), source));
        }
        Ok(source)
    }

    /// The stretch of `length` bytes at `offset`. Offsets beyond the end, or inside a character, are moved back.
    #[must_use]
    pub fn place(&self, offset: usize, length: usize) -> Place {
        let offset = self.boundary(offset);
        let end = self.boundary(offset.saturating_add(length));
        let line = self.lines.partition_point(|start| *start <= offset).max(1);
        let start = self.lines.get(line - 1).copied().unwrap_or(0);
        Place {
            file: self.name.clone(),
            line,
            column: self.characters(start, offset) + 1,
            offset,
            length: end.saturating_sub(offset),
        }
    }

    fn boundary(&self, offset: usize) -> usize {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        offset
    }

    /// How many characters lie between two offsets.
    fn characters(&self, start: usize, end: usize) -> usize {
        if end - start <= STRIDE {
            return characters(&self.text.as_bytes()[start..end]);
        }
        self.characters_before(end) - self.characters_before(start)
    }

    fn characters_before(&self, offset: usize) -> usize {
        let stride = (offset / STRIDE).min(self.counts.len().saturating_sub(1));
        let counted = self.counts.get(stride).copied().unwrap_or(0);
        let rest = &self.text.as_bytes()[(stride * STRIDE).min(offset)..offset];
        counted + characters(rest)
    }
}

/// How many characters start in a stretch of UTF-8: every byte that does not continue one does (RFC 3629).
fn characters(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte & 0xC0 != 0x80).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_and_offsets_bytes() {
        let text = format!("ä = 1\r\n{}ö x", "ü".repeat(700));
        let source = Source::new("f", &text);
        let place = source.place(text.len() - 1, 1);
        assert_eq!((place.line, place.column, place.length), (2, 703, 1));
        let start = source.place(1, 1);
        assert_eq!(
            (start.line, start.column, start.offset),
            (1, 1, 0),
            "inside a character"
        );
        assert_eq!(source.place(usize::MAX, 9).offset, text.len());
    }

    #[test]
    fn bytes_become_text_or_a_diagnostic() {
        assert_eq!(
            &*Source::from_bytes("f", b"\xEF\xBB\xBFa")
                .expect("a mark at the start")
                .text,
            "a"
        );
        for (bytes, code) in [
            (&b"a\0"[..], "spec::invalid-character"),
            (b"a\xEF\xBB\xBF", "spec::invalid-character"),
            (b"a\xFF", "spec::invalid-utf8"),
            (&vec![b'a'; FILE_LIMIT + 1], "spec::file-too-large"),
        ] {
            assert_eq!(Source::from_bytes("f", bytes).expect_err(code).0.code, code);
        }
    }
}
