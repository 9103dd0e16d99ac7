//! The allow list of a backend's own settings.

use crate::model::Diagnostic;
use crate::spec::decode::{Block, Content};
use crate::spec::problems::Problems;

/// Keys that the language has a word for.
const OWN_WORDS: [(&str, &str); 3] = [
    ("limits.cpu", "cpu"),
    ("limits.memory", "memory"),
    ("environment.", "env"),
];

/// Keys that belong to the backend or to this tool. Those that end in `.` or `-` stand for all that begin so.
const REFUSED: [(&str, &str); 4] = [
    ("volatile.", "the backend keeps its own state there"),
    ("image.", "the backend copies it from the image"),
    ("user.sbx-apply.", "labels of what sbx-apply owns"),
    ("user.sbx-apply-", "notes of what sbx-apply did"),
];

/// Keys that reach nothing outside the sandbox. Those that end in `.` stand for all below.
const ALLOWED: [&str; 6] = [
    "limits.",
    "boot.",
    "security.nesting",
    "security.guestapi",
    "security.syscalls.intercept.",
    "user.",
];

fn matches(key: &str, pattern: &str) -> bool {
    if pattern.ends_with(['.', '-']) {
        key.starts_with(pattern)
    } else {
        key == pattern
    }
}

/// Whether a spec may set a key without its caller's leave.
pub(crate) fn is_allowed(key: &str) -> bool {
    let refused = OWN_WORDS
        .iter()
        .chain(&REFUSED)
        .any(|(pattern, _)| matches(key, pattern));
    !refused && ALLOWED.iter().any(|pattern| matches(key, pattern))
}

/// Checks every `config` of a file. `unsafe_keys` are those that the caller lets through.
pub(crate) fn config(block: &Block, unsafe_keys: &[String], problems: &mut Problems) {
    for (key, _) in block.map("config") {
        let text = key.text.as_str();
        let complaint = if let Some((_, word)) = OWN_WORDS.iter().find(|(pattern, _)| matches(text, pattern)) {
            Diagnostic::new(
                "spec::config-has-own-word",
                format!("setting \"{text}\" has a word of its own: \"{word}\""),
                &key.at,
                "not here",
            )
            .with_help(format!("write \"{word}\" in the sandbox itself"))
        } else if let Some((_, why)) = REFUSED.iter().find(|(pattern, _)| matches(text, pattern)) {
            Diagnostic::new(
                "spec::config-refused",
                format!("setting \"{text}\" cannot be set by a spec"),
                &key.at,
                *why,
            )
            .with_help("remove it")
        } else if ALLOWED.iter().any(|pattern| matches(text, pattern)) || unsafe_keys.contains(&key.text) {
            continue;
        } else {
            Diagnostic::new(
                "spec::unsafe-config",
                format!("setting \"{text}\" is not on the list of those known to be harmless"),
                &key.at,
                "may reach the host",
            )
            .with_help(format!(
                "allowed are limits.*, boot.*, security.nesting, security.guestapi, security.syscalls.intercept.* and \
                 user.*; if you trust this spec: --allow-unsafe-config {text}"
            ))
        };
        problems.push(complaint);
    }
    for entry in &block.entries {
        if let Content::Block(inner) = &entry.content {
            config(inner, unsafe_keys, problems);
        }
    }
}
