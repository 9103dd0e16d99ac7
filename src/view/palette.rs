//! The colours, by what they mean.

use std::fmt::Display;

use owo_colors::{OwoColorize as _, Style};

/// What a colour stands for. The sixteen colours of every terminal only, so that its own scheme applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    /// Something is made.
    Added,
    /// Something is changed.
    Changed,
    /// Something goes.
    Removed,
    /// Something starts or runs.
    Active,
    /// Something to be careful about.
    Warning,
    /// Something is wrong.
    Wrong,
    /// Less important than its neighbours.
    Faint,
    /// More important than its neighbours.
    Strong,
}

/// The text in its colour. The output strips it where colours are not wanted.
pub(super) fn paint(tone: Tone, text: impl Display) -> String {
    let style = Style::new();
    let style = match tone {
        Tone::Added => style.green(),
        Tone::Changed => style.yellow(),
        Tone::Removed => style.red(),
        Tone::Active => style.cyan(),
        Tone::Warning => style.yellow().bold(),
        Tone::Wrong => style.red().bold(),
        Tone::Faint => style.dimmed(),
        Tone::Strong => style.bold(),
    };
    text.style(style).to_string()
}
