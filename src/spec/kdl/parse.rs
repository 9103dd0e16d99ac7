//! Which version of KDL a text is, and whose errors to report.

use crate::model::Diagnostic;
use crate::spec::source::Source;
use crate::spec::syntax::{DEPTH_LIMIT, Nodes};

use super::scan::{self, TooMuch};
use super::{one, two};

/// Reads KDL 1 or KDL 2.
///
/// # Errors
/// When the text is neither: the errors of KDL 2 where the text has a mark of it, else those of KDL 1.
pub(crate) fn parse(source: &Source) -> Result<Nodes, Vec<Diagnostic>> {
    let text = &*source.text;
    if let Some(too_much) = scan::too_much(text, DEPTH_LIMIT) {
        return Err(vec![refusal(source, too_much)]);
    }
    match version(text) {
        Some(1) => one::parse(source),
        Some(_) => two::parse(source),
        None if looks_like_two(text) => two::parse(source).or_else(|errors| one::parse(source).map_err(|_| errors)),
        None => one::parse(source).or_else(|errors| two::parse(source).map_err(|_| errors)),
    }
}

fn refusal(source: &Source, too_much: TooMuch) -> Diagnostic {
    let (code, message, offset, label, help) = match too_much {
        TooMuch::Nesting(offset) => (
            "spec::nesting-too-deep",
            format!("nodes lie more than {DEPTH_LIMIT} deep in each other"),
            offset,
            "one level too many",
            "a spec needs no more than four levels",
        ),
        TooMuch::Words(offset) => (
            "spec::file-too-large",
            format!(
                "this file has more than {} words and signs, the most that one file may have",
                scan::WORDS
            ),
            offset,
            "one too many",
            "use `template` for what sandboxes share, and `include` for the rest",
        ),
        TooMuch::Bare(offset) => (
            "spec::file-too-large",
            format!("this file has more than {} KiB besides its strings", scan::BARE >> 10),
            offset.min(source.text.len()),
            "one too many",
            "shorten comments, or move a part to a file of its own and `include` that",
        ),
    };
    Diagnostic::new(code, message, &source.place(offset, 1), label).with_help(help)
}

/// The version that a marker at the top of the text names (KDL 2.0.0, "Version marker").
fn version(text: &str) -> Option<u8> {
    let rest = text.trim_start().strip_prefix("/-")?.trim_start();
    let rest = rest.strip_prefix("kdl-version")?.trim_start();
    match rest.split_whitespace().next()? {
        "1" => Some(1),
        "2" => Some(2),
        _ => None,
    }
}

fn looks_like_two(text: &str) -> bool {
    ["#true", "#false", "#null", "\"\"\""]
        .iter()
        .any(|mark| text.contains(mark))
}
