//! Names that must be those of something.

use std::collections::BTreeMap;

use crate::model::{Diagnostic, EnvironmentName, InstanceName, SandboxName};
use crate::spec::decode::Block;
use crate::spec::problems::Problems;
use crate::spec::resolve::Declared;
use crate::spec::suggest::unknown;
use crate::spec::syntax::{Scalar, Value};

/// Checks every reference between sandboxes, and the names that counts and the environment lead to.
pub(crate) fn references(sandboxes: &[Declared], environment: Option<&EnvironmentName>, problems: &mut Problems) {
    let by_base: BTreeMap<&str, &Declared> = sandboxes.iter().map(|s| (s.block.name(), s)).collect();
    names(sandboxes, environment, problems);
    for sandbox in sandboxes {
        clone_source(&sandbox.block, &by_base, problems);
        for value in sandbox.block.values("depends-on") {
            if !by_base.contains_key(value.text.as_str()) && base_of(&value.text, &by_base).is_none() {
                problems.push(missing("sandbox", value, by_base.keys().copied()));
            }
        }
        on_change(&sandbox.block, problems);
    }
}

/// The counted sandbox that a numbered name such as `task-2` is one of.
pub(super) fn base_of<'a>(name: &str, by_base: &BTreeMap<&str, &'a Declared>) -> Option<&'a Declared> {
    let (base, number) = name.rsplit_once('-')?;
    let declared = by_base.get(base)?;
    // `task-02` is not the name of any.
    let number: u64 = number.parse().ok().filter(|n: &u64| n.to_string() == number)?;
    (declared.count? >= number && number > 0).then_some(*declared)
}

fn missing<'a>(what: &str, value: &Value, known: impl Iterator<Item = &'a str> + Clone) -> Diagnostic {
    let names: Vec<&str> = known.clone().take(12).collect();
    let help = if names.is_empty() {
        format!("this spec declares no {what}")
    } else {
        format!("declared are {}", names.join(", "))
    };
    Diagnostic::new(code(what), unknown(what, &value.text, known), &value.at, "no such name").with_help(help)
}

fn code(what: &str) -> &'static str {
    match what {
        "snapshot" => "spec::unknown-snapshot",
        "template" => "spec::unknown-template",
        "egress policy" => "spec::unknown-egress",
        _ => "spec::unknown-sandbox",
    }
}

/// A template or policy that is not declared.
pub(crate) fn undeclared<'a>(what: &str, value: &Value, known: impl Iterator<Item = &'a str> + Clone) -> Diagnostic {
    missing(what, value, known)
}

fn clone_source(sandbox: &Block, by_base: &BTreeMap<&str, &Declared>, problems: &mut Problems) {
    let Some(clone) = sandbox.block("clone-from") else {
        return;
    };
    let Some(source) = &clone.label else { return };
    let Some(declared) = by_base.get(source.text.as_str()) else {
        if let Some(counted) = base_of(&source.text, by_base) {
            problems.push(counted_source(source, counted));
        } else {
            problems.push(missing("sandbox", source, by_base.keys().copied()));
        }
        return;
    };
    if declared.count.is_some() {
        problems.push(counted_source(source, declared));
        return;
    }
    // What has been complained of stands there without a text.
    if let Some(snapshot) = clone.value("snapshot").filter(|value| value.scalar != Scalar::Invalid) {
        let known = declared.block.values("snapshot");
        if !known.iter().any(|known| known.text == snapshot.text) {
            let mut diagnostic = missing("snapshot", snapshot, known.iter().map(|known| known.text.as_str()))
                .with_mark(declared.block.label_at(), "the sandbox that should have it");
            if known.is_empty() {
                diagnostic = diagnostic.with_help(format!(
                    "sandbox \"{}\" declares no snapshots; give it one: snapshot \"{}\"",
                    source.text, snapshot.text
                ));
            }
            problems.push(diagnostic);
        }
    }
}

fn counted_source(source: &Value, counted: &Declared) -> Diagnostic {
    let place = counted
        .block
        .value("count")
        .map_or(counted.block.label_at(), |count| &count.at);
    Diagnostic::new(
        "spec::clone-of-counted",
        format!("\"{}\" is counted, and a counted sandbox cannot be cloned", source.text),
        &source.at,
        "cannot be a source",
    )
    .with_mark(place, "counted here")
    .with_help("clone from one without a count, and let both start from it")
}

fn on_change(sandbox: &Block, problems: &mut Problems) {
    for run in sandbox.blocks("run") {
        let Some(path) = run.value("on-change").filter(|value| value.scalar != Scalar::Invalid) else {
            continue;
        };
        let known = || sandbox.blocks("file").chain(sandbox.blocks("tree")).map(Block::name);
        if known().any(|known| known == path.text) {
            continue;
        }
        let declared: Vec<&str> = known().take(12).collect();
        let help = if declared.is_empty() {
            format!("sandbox \"{}\" declares neither", sandbox.name())
        } else {
            format!("sandbox \"{}\" declares {}", sandbox.name(), declared.join(", "))
        };
        problems.push(
            Diagnostic::new(
                "spec::unknown-path",
                unknown("file or tree", &path.text, known()),
                &path.at,
                "not declared",
            )
            .with_help(help),
        );
    }
}

/// Counted names must not meet others, and whole names must fit.
fn names(sandboxes: &[Declared], environment: Option<&EnvironmentName>, problems: &mut Problems) {
    let by_base: BTreeMap<&str, &Declared> = sandboxes.iter().map(|s| (s.block.name(), s)).collect();
    for sandbox in sandboxes {
        let Some(label) = &sandbox.block.label else { continue };
        if let Some(counted) = base_of(&label.text, &by_base) {
            problems.push(
                Diagnostic::new(
                    "spec::name-clash",
                    format!(
                        "\"{}\" is also the name of one of the counted \"{}\"",
                        label.text,
                        counted.block.name()
                    ),
                    &label.at,
                    "the same name",
                )
                .with_mark(counted.block.label_at(), "counted: its names end in a number")
                .with_help("give one of the two another name"),
            );
        }
        let longest = match sandbox.count {
            Some(count) => format!("{}-{}", label.text, count.max(1)),
            None => label.text.clone(),
        };
        let Some(environment) = environment else { continue };
        // A name that is none has been reported.
        if SandboxName::new(label.text.as_str()).is_err() {
            continue;
        }
        let fits = SandboxName::new(longest.as_str()).is_ok_and(|name| InstanceName::of(environment, &name).is_ok());
        if !fits {
            let length = environment.as_str().len() + 1 + longest.len();
            problems.push(
                Diagnostic::new(
                    "spec::name-too-long",
                    format!("the instance \"{environment}-{longest}\" would have a name of {length} characters"),
                    &label.at,
                    "too long with the environment's name before it",
                )
                .with_help("an instance's name has at most 63 characters: shorten this name or the environment's"),
            );
        }
    }
}
