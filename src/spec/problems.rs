//! The problems found so far.

use crate::model::Diagnostic;

/// Collects diagnostics; handed down through every step so that none hides another.
#[derive(Debug, Default)]
pub(super) struct Problems(Vec<Diagnostic>);

/// The most diagnostics that are kept: what comes after so many helps nobody.
const LIMIT: usize = 1_000;

impl Problems {
    /// Adds one.
    pub(super) fn push(&mut self, diagnostic: Diagnostic) {
        if self.0.len() < LIMIT && !self.0.contains(&diagnostic) {
            self.0.push(diagnostic);
        }
    }

    /// Adds many.
    pub(super) fn extend(&mut self, diagnostics: impl IntoIterator<Item = Diagnostic>) {
        diagnostics.into_iter().for_each(|diagnostic| self.push(diagnostic));
    }

    /// Whether there is one with this code.
    pub(super) fn has(&self, code: &str) -> bool {
        self.0.iter().any(|diagnostic| diagnostic.code == code)
    }

    /// Whether more would not be kept.
    pub(super) fn is_full(&self) -> bool {
        self.0.len() >= LIMIT
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them, by file and place.
    pub(super) fn into_sorted(mut self) -> Vec<Diagnostic> {
        let place = |diagnostic: &Diagnostic| {
            diagnostic
                .marks
                .first()
                .map(|mark| (mark.place.file.clone(), mark.place.offset))
        };
        self.0.sort_by_key(place);
        self.0
    }
}
