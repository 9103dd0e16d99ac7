//! Errors: what was tried, the chain of causes, what to do about it.

use std::error::Error;

use super::super::clean;
use super::super::palette::{Tone, paint};
use crate::apply::StepError;

/// How many of the last lines of a command's output are shown with its failure.
const TAIL: usize = 20;

/// An error with its causes and a hint.
#[must_use]
pub fn error(message: &str, causes: Option<&(dyn Error + 'static)>, hint: Option<&str>) -> String {
    let mut text = format!("{} {}", paint(Tone::Wrong, "error:"), lines(message));
    text.push_str(&chain(causes, message, ""));
    if let Some(hint) = hint {
        text.push_str(&format!("\n{} {}", paint(Tone::Active, "hint:"), lines(hint)));
    }
    text
}

/// A step's error, indented below what names the step.
#[must_use]
pub fn step_error(error: &StepError) -> String {
    let message = error.to_string();
    let mut text = format!("    {}", lines(&message));
    text.push_str(&chain(error.source(), &message, "    "));
    if let Some(tail) = error.tail() {
        let all: Vec<&str> = tail.lines().collect();
        for line in &all[all.len().saturating_sub(TAIL)..] {
            text.push_str(&format!("\n    {} {}", paint(Tone::Faint, "|"), clean(line)));
        }
    }
    if let Some(hint) = error.hint() {
        text.push_str(&format!("\n    {} {}", paint(Tone::Active, "hint:"), lines(&hint)));
    }
    text
}

/// The causes, outermost first; one that says what was just said is left out.
fn chain(mut cause: Option<&(dyn Error + 'static)>, message: &str, indent: &str) -> String {
    let mut text = String::new();
    let mut last = message.to_owned();
    while let Some(error) = cause {
        let said = error.to_string();
        if said != last && !last.ends_with(&format!(": {said}")) {
            text.push_str(&format!(
                "\n{indent}  {} {}",
                paint(Tone::Faint, "because:"),
                lines(&said)
            ));
        }
        last = said;
        cause = error.source();
    }
    text
}

/// Harmless text whose lines stay lines.
fn lines(text: &str) -> String {
    text.trim_end().lines().map(clean).collect::<Vec<_>>().join("\n  ")
}
