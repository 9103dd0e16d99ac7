//! Mermaid's language.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::super::clean;
use super::lanes::by_sandbox;
use crate::plan::Plan;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_quotes() {
        assert_eq!(entities("a\"]; click <b>"), "a#34;#93;#59; click #60;b#62;");
    }
}
