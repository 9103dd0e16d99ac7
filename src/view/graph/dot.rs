//! Graphviz's language.

use std::fmt::Write as _;

use super::super::clean;
use super::lanes::by_sandbox;
use crate::plan::Plan;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_quotes() {
        assert_eq!(quoted(r#"a" -> "b\"#), r#""a\" -> \"b\\""#);
    }
}
