//! A picture: a lane for each sandbox, a column for each turn, time from left to right.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::super::clean::{clean, short};
use super::lanes::by_sandbox;
use crate::plan::{Graph, Plan};

/// Sizes in pixels, of a box, of what lies around it, and of a character in it.
const BOX: (usize, usize) = (212, 28);
const GAP: (usize, usize) = (46, 12);
const MARGIN: usize = 16;
const HEAD: usize = 26;
const TITLE: usize = 27;

const STYLE: &str = "text{font:12px ui-monospace,monospace;fill:#1f2328}.name{font-weight:bold}\
.lane{fill:#f6f8fa;stroke:#d0d7de}.step{fill:#fff;stroke:#57606a}.need{fill:none;stroke:#8c959f}";

/// The graph as SVG 1.1 (<https://www.w3.org/TR/SVG11/>): a document of its own, with no script and no reference to anything outside.
///
/// A step stands in the first column in which all that it needs lies to its left. What is too long for a box is cut, and whole in its tooltip.
#[must_use]
pub fn svg(plan: &Plan) -> String {
    let columns = columns(plan);
    let mut boxes: HashMap<&str, (usize, usize)> = HashMap::new();
    let mut body = String::new();
    let mut top = MARGIN;
    let count = columns.values().max().map_or(0, |last| last + 1);
    let width = MARGIN * 2 + GAP.0 + count * (BOX.0 + GAP.0);
    for (sandbox, steps) in by_sandbox(plan) {
        // Steps of one column stand one below the other.
        let mut taken = vec![0; count];
        let placed: Vec<_> = steps
            .into_iter()
            .map(|step| {
                let column = columns.get(step.id.as_str()).copied().unwrap_or_default();
                taken[column] += 1;
                let x = MARGIN + GAP.0 + column * (BOX.0 + GAP.0);
                let y = top + HEAD + (taken[column] - 1) * (BOX.1 + GAP.1);
                boxes.insert(step.id.as_str(), (x, y));
                (step, x, y)
            })
            .collect();
        let rows = taken.into_iter().max().unwrap_or_default();
        let height = HEAD + rows * (BOX.1 + GAP.1);
        // Writing to a String cannot fail, here and below.
        let _ = write!(
            body,
            "\n<rect class=\"lane\" x=\"{MARGIN}\" y=\"{top}\" width=\"{}\" height=\"{height}\" rx=\"6\"/>\
             <text class=\"name\" x=\"{}\" y=\"{}\">{}</text>",
            width - MARGIN * 2,
            MARGIN + 10,
            top + 17,
            escaped(&clean(sandbox)),
        );
        for (step, x, y) in placed {
            let _ = write!(
                body,
                "\n<g><title>{}</title><rect class=\"step\" x=\"{x}\" y=\"{y}\" width=\"{}\" height=\"{}\" rx=\"4\"/>\
                 <text x=\"{}\" y=\"{}\">{}</text></g>",
                escaped(&clean(&step.title)),
                BOX.0,
                BOX.1,
                x + 8,
                y + 18,
                escaped(&short(&step.title, TITLE)),
            );
        }
        top += height + GAP.1;
    }
    let height = top - GAP.1.min(top) + MARGIN;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\">\n\
         <style>{STYLE}</style>\n\
         <defs><marker id=\"end\" markerWidth=\"8\" markerHeight=\"8\" refX=\"7\" refY=\"4\" orient=\"auto\">\
         <path d=\"M0,0 L8,4 L0,8 z\" fill=\"#8c959f\"/></marker></defs>{body}{}\n</svg>",
        arrows(plan, &boxes),
    )
}

/// The column of each step by its name.
fn columns(plan: &Plan) -> HashMap<&str, usize> {
    let mut columns: HashMap<&str, usize> = HashMap::new();
    // A plan has no cycles; one that had would be drawn in its own order.
    let order = Graph::of(&plan.steps)
        .order()
        .unwrap_or_else(|_| (0..plan.steps.len()).collect());
    for step in order.into_iter().map(|index| &plan.steps[index]) {
        let needs = step.needs.iter().filter_map(|need| columns.get(need.as_str()));
        let column = needs.max().map_or(0, |last| last + 1);
        columns.insert(step.id.as_str(), column);
    }
    columns
}

/// A line from each step to those that wait for it.
fn arrows(plan: &Plan, boxes: &HashMap<&str, (usize, usize)>) -> String {
    let mut text = String::new();
    for step in &plan.steps {
        let Some((to_x, to_y)) = boxes.get(step.id.as_str()) else {
            continue;
        };
        for (from_x, from_y) in step.needs.iter().filter_map(|need| boxes.get(need.as_str())) {
            let (x1, y1, x2, y2) = (from_x + BOX.0, from_y + BOX.1 / 2, *to_x, to_y + BOX.1 / 2);
            let bend = GAP.0;
            let _ = write!(
                text,
                "\n<path class=\"need\" marker-end=\"url(#end)\" d=\"M{x1},{y1} C{},{y1} {},{y2} {x2},{y2}\"/>",
                x1 + bend,
                x2.saturating_sub(bend),
            );
        }
    }
    text
}

/// A text between tags.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_tags() {
        assert_eq!(escaped("</text><script>&"), "&lt;/text&gt;&lt;script&gt;&amp;");
    }
}
