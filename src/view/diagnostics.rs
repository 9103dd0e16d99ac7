//! Diagnostics over the text that they are about.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use miette::{
    GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteError, MietteSpanContents, Severity, SourceCode,
    SourceSpan, SpanContents,
};

use super::hidden::without_secrets;
use crate::model::{Diagnostic, Place};
use crate::spec::Sources;

/// How wide a diagnostic may be, and whether it has colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// Columns of the terminal.
    pub width: usize,
    /// Whether to use colours.
    pub color: bool,
}

impl Default for Style {
    fn default() -> Self {
        Self {
            width: 100,
            color: false,
        }
    }
}

/// The longest line of a text that is shown whole; longer ones are drawn without an excerpt, which would fill
/// the screen and say nothing.
const LONGEST_LINE: usize = 2_000;

/// Renders diagnostics, an empty line between them: message, `file:line:column`, excerpt, marks, help, code.
#[must_use]
pub fn render(diagnostics: &[Diagnostic], sources: &Sources, style: Style) -> String {
    let theme = if style.color {
        GraphicalTheme::unicode()
    } else {
        GraphicalTheme::unicode_nocolor()
    };
    let handler = GraphicalReportHandler::new_themed(theme)
        .with_width(style.width)
        .with_context_lines(1)
        .with_links(false);
    let texts = Texts::of(diagnostics, sources);
    let mut text = String::new();
    for (index, diagnostic) in diagnostics.iter().enumerate() {
        if index > 0 {
            text.push('\n');
        }
        for report in reports(diagnostic, &texts) {
            // Writing to a String cannot fail; a report that cannot be drawn is still told in one line.
            let mut drawn = String::new();
            if handler.render_report(&mut drawn, &report).is_err() {
                drawn = format!("{report}\n");
            }
            text.push_str(&drawn);
        }
    }
    text
}

/// One report for the file of the first mark, and one note for each further file that has marks.
fn reports<'a>(diagnostic: &'a Diagnostic, texts: &'a Texts<'a>) -> Vec<Report<'a>> {
    let mut files: Vec<&str> = Vec::new();
    for mark in &diagnostic.marks {
        if !files.contains(&&*mark.place.file) {
            files.push(&mark.place.file);
        }
    }
    let first = files.first().copied().unwrap_or_default();
    let mut reports = vec![Report::of(diagnostic, first, texts, true)];
    reports.extend(
        files
            .iter()
            .skip(1)
            .map(|file| Report::of(diagnostic, file, texts, false)),
    );
    // Help and code close the whole.
    if let Some(last) = reports.last_mut() {
        last.help = diagnostic.help.as_deref().map(|help| harmless(help).into_owned());
    }
    reports
}

/// The texts that excerpts are taken from, made harmless once each.
struct Texts<'a>(BTreeMap<&'a str, Cow<'a, str>>);

impl<'a> Texts<'a> {
    fn of(diagnostics: &'a [Diagnostic], sources: &'a Sources) -> Self {
        let files = diagnostics
            .iter()
            .flat_map(|diagnostic| &diagnostic.marks)
            .map(|mark| &*mark.place.file);
        let mut texts = BTreeMap::new();
        for file in files {
            if let (false, Some(text)) = (texts.contains_key(file), sources.get(file)) {
                let text = match without_secrets(file, text, diagnostics) {
                    Cow::Borrowed(text) => harmless_excerpt(text),
                    Cow::Owned(text) => Cow::Owned(harmless_excerpt(&text).into_owned()),
                };
                texts.insert(file, text);
            }
        }
        Self(texts)
    }

    fn get(&self, file: &str) -> Option<&str> {
        self.0.get(file).map(AsRef::as_ref)
    }
}

struct Report<'a> {
    message: String,
    code: Option<&'static str>,
    help: Option<String>,
    severity: Severity,
    source: Option<Excerpts<'a>>,
    labels: Vec<LabeledSpan>,
}

impl<'a> Report<'a> {
    fn of(diagnostic: &'a Diagnostic, file: &str, texts: &'a Texts<'a>, chief: bool) -> Self {
        let marks = diagnostic.marks.iter().filter(|mark| &*mark.place.file == file);
        let text = texts.get(file).filter(|text| {
            !text.is_empty() && marks.clone().all(|mark| line_length(text, &mark.place) <= LONGEST_LINE)
        });
        let labels = marks
            .clone()
            .enumerate()
            .map(|(index, mark)| {
                let label = (!mark.text.is_empty()).then(|| harmless(&mark.text).into_owned());
                let span = SourceSpan::new(mark.place.offset.into(), mark.place.length);
                // The excerpt's heading names the place of the chief mark.
                if index == 0 {
                    LabeledSpan::new_primary_with_span(label, span)
                } else {
                    LabeledSpan::new_with_span(label, span)
                }
            })
            .collect();
        let place = marks.clone().next().map(|mark| &mark.place);
        let message = match (chief, text, place) {
            (true, Some(_), _) | (true, None, None) => Cow::Borrowed(diagnostic.message.as_str()),
            // What the command line says has no text to point into.
            (true, None, Some(place)) if place.offset == 0 && place.length == 0 && texts.get(file).is_none() => {
                let said = marks.clone().next().map_or("", |mark| mark.text.as_str());
                if said.is_empty() {
                    Cow::Borrowed(diagnostic.message.as_str())
                } else {
                    Cow::Owned(format!("{said}: {}", diagnostic.message))
                }
            }
            (true, None, Some(place)) => Cow::Owned(format!("{place}: {}", diagnostic.message)),
            (false, Some(_), _) => Cow::Borrowed("see also"),
            (false, None, _) => Cow::Owned(format!(
                "see also {}",
                place.map(ToString::to_string).unwrap_or_default()
            )),
        };
        Self {
            message: harmless(&message).into_owned(),
            code: chief.then_some(diagnostic.code),
            help: None,
            severity: if chief { Severity::Error } else { Severity::Advice },
            source: text.map(|text| Excerpts {
                file: harmless(file).into_owned(),
                text,
            }),
            labels: if text.is_some() { labels } else { Vec::new() },
        }
    }
}

/// A text that excerpts are taken from without copying, or reading, all of it for each.
struct Excerpts<'a> {
    file: String,
    text: &'a str,
}

impl SourceCode for Excerpts<'_> {
    fn read_span<'b>(
        &'b self,
        span: &SourceSpan,
        before: usize,
        after: usize,
    ) -> Result<Box<dyn SpanContents<'b> + 'b>, MietteError> {
        let bytes = self.text.as_bytes();
        let end = span.offset() + span.len();
        if end > bytes.len() {
            return Err(MietteError::OutOfBounds);
        }
        let line_start = |at: usize| {
            bytes[..at]
                .iter()
                .rposition(|b| *b == b'\n')
                .map_or(0, |index| index + 1)
        };
        let line_end = |at: usize| {
            bytes[at..]
                .iter()
                .position(|b| *b == b'\n')
                .map_or(bytes.len(), |index| at + index)
        };
        let mut start = line_start(span.offset());
        let column = self
            .text
            .get(start..span.offset())
            .map_or(0, |text| text.chars().count());
        for _ in 0..before {
            start = line_start(start.saturating_sub(1));
        }
        // A stretch that ends with a line break ends on that line.
        let last = if end > span.offset() && bytes[end - 1] == b'\n' {
            end - 1
        } else {
            end
        };
        let mut stop = line_end(last);
        for _ in 0..after {
            if stop < bytes.len() {
                stop = line_end(stop + 1);
            }
        }
        Ok(Box::new(MietteSpanContents::new_named(
            self.file.clone(),
            &bytes[start..stop],
            SourceSpan::new(start.into(), stop - start),
            bytes[..start].iter().filter(|b| **b == b'\n').count(),
            if before == 0 { column } else { 0 },
            bytes.len(),
        )))
    }
}

/// Whether a character could make a terminal do something, or turn the direction of what follows.
fn is_harmful(character: char) -> bool {
    (character.is_control() && !matches!(character, '\n' | '\t' | '\r'))
        || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
}

/// A text that a terminal can be shown: specs are untrusted, and their words end up in messages.
fn harmless(text: &str) -> Cow<'_, str> {
    if text.chars().any(|c| is_harmful(c) || c.is_control()) {
        let replace = |c: char| if is_harmful(c) || c.is_control() { '\u{fffd}' } else { c };
        Cow::Owned(text.chars().map(replace).collect())
    } else {
        Cow::Borrowed(text)
    }
}

/// The same for a source text: every character keeps its number of bytes, so that places stay right.
fn harmless_excerpt(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_harmful) {
        return Cow::Borrowed(text);
    }
    let replace = |character: char| match (is_harmful(character), character.len_utf8()) {
        (false, _) => character,
        (true, 1) => '?',
        (true, 2) => '\u{bf}',
        (true, _) => '\u{fffd}',
    };
    Cow::Owned(text.chars().map(replace).collect())
}

fn line_length(text: &str, place: &Place) -> usize {
    let offset = place.offset.min(text.len());
    let before = text.get(..offset).unwrap_or_default();
    let after = text.get(offset..).unwrap_or_default();
    let start = before.rfind('\n').map_or(0, |index| index + 1);
    let end = after.find('\n').map_or(text.len(), |index| offset + index);
    end - start
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Report<'_> {}

impl miette::Diagnostic for Report<'_> {
    fn code<'b>(&'b self) -> Option<Box<dyn fmt::Display + 'b>> {
        self.code.map(|code| Box::new(code) as Box<dyn fmt::Display>)
    }

    fn severity(&self) -> Option<Severity> {
        Some(self.severity)
    }

    fn help<'b>(&'b self) -> Option<Box<dyn fmt::Display + 'b>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.source.as_ref().map(|source| source as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        (!self.labels.is_empty())
            .then(|| Box::new(self.labels.iter().cloned()) as Box<dyn Iterator<Item = LabeledSpan>>)
    }
}
