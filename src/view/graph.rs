//! The steps of a plan as a graph, in the languages of Graphviz and Mermaid.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::clean;
use crate::plan::{Plan, Step};

/// Graphviz's DOT: one cluster for each sandbox, an edge from each step to those that wait for it.
#[must_use]
pub fn dot(plan: &Plan) -> String {
    let mut text = String::from("digraph plan {\n    rankdir = LR\n    node [shape = box]\n");
    for (index, (sandbox, steps)) in by_sandbox(plan).into_iter().enumerate() {
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(text, "    subgraph cluster_{index} {{");
        let _ = writeln!(text, "        label = {}", quoted(sandbox));
        for step in steps {
            let _ = writeln!(
                text,
                "        {} [label = {}]",
                quoted(step.id.as_str()),
                quoted(&step.title)
            );
        }
        text.push_str("    }\n");
    }
    for step in &plan.steps {
        for need in &step.needs {
            let _ = writeln!(text, "    {} -> {}", quoted(need.as_str()), quoted(step.id.as_str()));
        }
    }
    text.push('}');
    text
}

/// A quoted string of DOT: only the quote itself is special in one, and a backslash before it or an `n`.
fn quoted(text: &str) -> String {
    format!("\"{}\"", clean(text).replace('\\', "\\\\").replace('"', "\\\""))
}

/// A Mermaid flowchart: one subgraph for each sandbox.
#[must_use]
pub fn mermaid(plan: &Plan) -> String {
    let mut text = String::from("flowchart LR");
    let numbers: BTreeMap<&str, usize> = plan
        .steps
        .iter()
        .enumerate()
        .map(|(number, step)| (step.id.as_str(), number))
        .collect();
    for (index, (sandbox, steps)) in by_sandbox(plan).into_iter().enumerate() {
        let _ = write!(text, "\n    subgraph s{index}[\"{}\"]", entities(sandbox));
        for step in steps {
            let number = numbers.get(step.id.as_str()).copied().unwrap_or_default();
            let _ = write!(text, "\n        n{number}[\"{}\"]", entities(&step.title));
        }
        text.push_str("\n    end");
    }
    for step in &plan.steps {
        let to = numbers.get(step.id.as_str()).copied().unwrap_or_default();
        for from in step.needs.iter().filter_map(|need| numbers.get(need.as_str())) {
            let _ = write!(text, "\n    n{from} --> n{to}");
        }
    }
    text
}

/// A text within a Mermaid label: whatever its parser or HTML could take for more than text, as an entity code.
fn entities(text: &str) -> String {
    let mut safe = String::new();
    for character in clean(text).chars() {
        if character.is_alphanumeric() || " .,:/_-@…".contains(character) {
            safe.push(character);
        } else {
            let _ = write!(safe, "#{};", u32::from(character));
        }
    }
    safe
}

fn by_sandbox(plan: &Plan) -> Vec<(&str, Vec<&Step>)> {
    let mut groups: Vec<(&str, Vec<&Step>)> = Vec::new();
    for step in &plan.steps {
        match groups.iter_mut().find(|(name, _)| *name == step.sandbox.as_str()) {
            Some((_, steps)) => steps.push(step),
            None => groups.push((step.sandbox.as_str(), vec![step])),
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_quotes() {
        assert_eq!(quoted(r#"a" -> "b\"#), r#""a\" -> \"b\\""#);
        assert_eq!(entities("a\"]; click <b>"), "a#34;#93;#59; click #60;b#62;");
    }
}
