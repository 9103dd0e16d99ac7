//! Keys that exclude or need each other.

use std::collections::HashMap;

use crate::model::Diagnostic;
use crate::spec::decode::{Block, Content, Entry};
use crate::spec::language::{self, BACKENDS};
use crate::spec::problems::Problems;
use crate::spec::suggest::unknown;

/// Checks a file's blocks, each by itself.
pub(crate) fn rules(document: &Block, problems: &mut Problems) {
    for entry in &document.entries {
        let Content::Block(block) = &entry.content else {
            continue;
        };
        match entry.form.name {
            "backend" => backend(block, problems),
            "egress" => policy(block, problems),
            "defaults" | "template" | "sandbox" => sandbox(block, problems),
            _ => {}
        }
    }
}

fn sandbox(block: &Block, problems: &mut Problems) {
    if let (Some(image), Some(clone)) = (block.entry("image"), block.entry("clone-from")) {
        let (first, second) = if image.at <= clone.at {
            (image, clone)
        } else {
            (clone, image)
        };
        problems.push(
            Diagnostic::new(
                "spec::conflicting-keys",
                "a sandbox has an image or a sandbox that it is cloned from, not both",
                &second.at,
                "and this too",
            )
            .with_mark(&first.at, "this is given")
            .with_help("remove one of the two"),
        );
    }
    let mut seen: HashMap<(&str, &str, &str), &Block> = HashMap::new();
    for entry in &block.entries {
        let Content::Block(inner) = &entry.content else {
            continue;
        };
        // What was written alike has been reported; variables can make alike what was not.
        if entry.form.body().is_some_and(|body| body.written.repeats()) && inner.label_is_known() {
            // A port is one for each protocol.
            let protocol = inner.value("protocol").map_or("tcp", |value| value.text.as_str());
            let of = if entry.form.name == "port" { protocol } else { "" };
            match seen.get(&(entry.form.name, inner.name(), of)) {
                Some(first) => problems.push(
                    Diagnostic::new(
                        "spec::duplicate-name",
                        format!("{} \"{}\" is declared twice", entry.form.name, inner.name()),
                        inner.label_at(),
                        "again here, with its variables expanded",
                    )
                    .with_mark(first.label_at(), "first here")
                    .with_help("keep one of the two"),
                ),
                None => {
                    seen.insert((entry.form.name, inner.name(), of), inner);
                }
            }
        }
        match entry.form.name {
            "file" => file(inner, problems),
            "run" => one_of(inner, "run step", problems),
            "egress" => own_egress(inner, problems),
            _ => {}
        }
    }
}

/// Checks that exactly one of some keys is given.
fn one_of(block: &Block, what: &str, problems: &mut Problems) {
    let keys = block.body.one_of;
    let mut given: Vec<&Entry> = keys.iter().filter_map(|key| block.entry(key)).collect();
    // `absent=false` says nothing.
    given.retain(|entry| {
        entry.form.name != "absent" || block.is_true("absent") || block.text("absent") != Some("false")
    });
    if given.len() == 1 {
        return;
    }
    given.sort_by(|one, other| one.at.cmp(&other.at));
    let quoted: Vec<String> = keys.iter().map(|key| format!("\"{key}\"")).collect();
    let list = match quoted.split_last() {
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => String::new(),
    };
    match given.as_slice() {
        // What is missing may be what was misspelt.
        [] if block.flawed => {}
        [] => problems.push(
            Diagnostic::new(
                "spec::missing-property",
                format!("this {what} has none of {list}"),
                block.label_at(),
                "needs one of them",
            )
            .with_help(format!("add {list}")),
        ),
        [first, others @ ..] => {
            for other in others {
                problems.push(
                    Diagnostic::new(
                        "spec::conflicting-keys",
                        format!("\"{}\" and \"{}\" exclude each other", first.form.name, other.form.name),
                        &other.at,
                        "and this too",
                    )
                    .with_mark(&first.at, "this is given")
                    .with_help(format!("a {what} has one of {list}")),
                );
            }
        }
    }
}

fn file(block: &Block, problems: &mut Problems) {
    one_of(block, "file", problems);
    let Some(absent) = block.entry("absent").filter(|_| block.is_true("absent")) else {
        return;
    };
    for key in ["mode", "owner", "group", "when"] {
        if let Some(entry) = block.entry(key) {
            problems.push(
                Diagnostic::new(
                    "spec::conflicting-keys",
                    format!("a file that must be absent has no \"{key}\""),
                    &entry.at,
                    "means nothing then",
                )
                .with_mark(&absent.at, "because of this")
                .with_help("remove one of the two"),
            );
        }
    }
}

fn own_egress(block: &Block, problems: &mut Problems) {
    match (&block.label, block.entries.first()) {
        (Some(label), Some(entry)) => problems.push(
            Diagnostic::new(
                "spec::conflicting-keys",
                "a sandbox uses a shared egress policy or has one of its own, not both",
                &entry.at,
                "part of one of its own",
            )
            .with_mark(&label.at, "the name of a shared one")
            .with_help("put the rules into the shared policy, or leave out its name"),
        ),
        (None, None) if block.flawed => {}
        (None, None) => problems.push(
            Diagnostic::new(
                "spec::missing-property",
                "this egress policy says nothing",
                &block.at,
                "empty",
            )
            .with_help("name a shared policy, or give it a \"mode\" or \"allow\"; mode \"none\" allows nothing"),
        ),
        _ => {}
    }
    policy(block, problems);
}

/// A rule leads somewhere, and to one place.
fn leads_somewhere(rule: &Block, problems: &mut Problems) {
    match (&rule.label, rule.entry("sandbox")) {
        (Some(label), Some(entry)) => problems.push(
            Diagnostic::new(
                "spec::conflicting-keys",
                "a rule opens a destination or another sandbox, not both",
                &entry.at,
                "and this too",
            )
            .with_mark(&label.at, "this is given")
            .with_help("make two rules of it"),
        ),
        (None, None) if rule.flawed => {}
        (None, None) => problems.push(
            Diagnostic::new(
                "spec::missing-label",
                "this \"allow\" does not say what it opens",
                &rule.at,
                "here",
            )
            .with_help("name a destination (a host name, an address or a network), or a sandbox: sandbox=\"db\""),
        ),
        _ => {}
    }
}

fn policy(block: &Block, problems: &mut Problems) {
    for rule in block.blocks("allow") {
        leads_somewhere(rule, problems);
    }
    let Some(mode) = block
        .value("mode")
        .filter(|mode| matches!(mode.text.as_str(), "none" | "unrestricted"))
    else {
        return;
    };
    if let Some(rule) = block.entry("allow") {
        problems.push(
            Diagnostic::new(
                "spec::conflicting-keys",
                format!("a policy with mode \"{}\" has no rules", mode.text),
                &rule.at,
                "means nothing then",
            )
            .with_mark(&mode.at, "because of this")
            .with_help("mode \"allowlist\" allows what the rules say and nothing else"),
        );
    }
}

/// Checks a backend's name and the keys of its settings.
fn backend(block: &Block, problems: &mut Problems) {
    let Some(label) = &block.label else { return };
    let names = || BACKENDS.iter().map(|backend| backend.name);
    let Some(backend) = language::backend(&label.text) else {
        problems.push(
            Diagnostic::new(
                "spec::unknown-backend",
                unknown("backend", &label.text, names()),
                &label.at,
                "no such backend",
            )
            .with_help(format!("the backends are {}", names().collect::<Vec<_>>().join(", "))),
        );
        return;
    };
    for (key, _) in &block.open {
        if backend.keys.iter().any(|(known, _)| *known == key.text) {
            continue;
        }
        let lower = key.text.to_ascii_lowercase();
        let secret = [
            "secret",
            "password",
            "token",
            "api-key",
            "api_key",
            "apikey",
            "private-key",
            "client-key",
        ];
        if secret.iter().any(|word| lower.contains(word)) {
            problems.push(
                Diagnostic::new(
                    "spec::secret-in-spec",
                    format!("\"{}\" is a secret, and secrets are never taken from a spec", key.text),
                    &key.at,
                    "does not belong here",
                )
                .with_help("remove it, here and from the history of the repository, and give it by the environment"),
            );
            continue;
        }
        let known: Vec<&str> = backend.keys.iter().map(|(known, _)| *known).collect();
        let help = match known.as_slice() {
            [] => format!("backend \"{}\" has no settings", backend.name),
            known => format!("backend \"{}\" takes {}", backend.name, known.join(", ")),
        };
        problems.push(
            Diagnostic::new(
                "spec::unknown-setting",
                unknown("setting", &key.text, known.iter().copied()),
                &key.at,
                "not known here",
            )
            .with_help(help),
        );
    }
}

/// Checks a sandbox with its layers merged.
pub(crate) fn layered(sandbox: &Block, problems: &mut Problems) {
    let name = sandbox.name();
    if sandbox.entry("image").is_none() && sandbox.entry("clone-from").is_none() && !sandbox.flawed {
        problems.push(
            Diagnostic::new(
                "spec::missing-image",
                format!("sandbox \"{name}\" has neither an image nor a sandbox that it is cloned from"),
                sandbox.label_at(),
                "made from nothing",
            )
            .with_help("add \"image\" or \"clone-from\", here, in a template or in \"defaults\"; the backend \"local\" has \"host\""),
        );
    }
    if let Some(user) = sandbox.block("user")
        && let (Some(label), Some(uid)) = (&user.label, user.value("uid"))
        && uid.text == "0"
        && label.text != "root"
    {
        problems.push(
            Diagnostic::new(
                "spec::invalid-user",
                "uid 0 belongs to root, in every image",
                &uid.at,
                format!("not for \"{}\"", label.text),
            )
            .with_help("choose another number, or name the user \"root\""),
        );
    }
    let stale = sandbox.block("clone-from").and_then(|clone| clone.value("on-stale"));
    if let (Some(protect), Some(stale)) = (sandbox.value("protect"), stale)
        && protect.text == "true"
        && stale.text == "replace"
    {
        problems.push(
            Diagnostic::new(
                "spec::conflicting-keys",
                format!("sandbox \"{name}\" is protected, so it can never be replaced when its source changes"),
                &stale.at,
                "asks for it to be replaced",
            )
            .with_mark(&protect.at, "refuses that")
            .with_help("write on-stale \"keep\", or remove \"protect\""),
        );
    }
}
