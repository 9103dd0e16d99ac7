//! Sandboxes that wait for each other.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use petgraph::algo::tarjan_scc;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef as _;

use crate::model::{Diagnostic, Place};
use crate::spec::problems::Problems;
use crate::spec::resolve::Declared;

use super::references::base_of;

/// Reports every circle of `clone-from` and `depends-on`, whole.
pub(crate) fn cycles(sandboxes: &[Declared], problems: &mut Problems) {
    let by_base: BTreeMap<&str, &Declared> = sandboxes.iter().map(|s| (s.block.name(), s)).collect();
    let mut graph: DiGraph<&str, Place> = DiGraph::new();
    let nodes: BTreeMap<&str, NodeIndex> = sandboxes
        .iter()
        .map(|s| (s.block.name(), graph.add_node(s.block.name())))
        .collect();
    for sandbox in sandboxes {
        let source = sandbox.block.block("clone-from").and_then(|clone| clone.label.as_ref());
        for needed in source.into_iter().chain(sandbox.block.values("depends-on")) {
            let base = match nodes.get(needed.text.as_str()) {
                Some(node) => Some(*node),
                None => base_of(&needed.text, &by_base).and_then(|of| nodes.get(of.block.name()).copied()),
            };
            if let (Some(from), Some(to)) = (nodes.get(sandbox.block.name()), base) {
                graph.add_edge(*from, to, needed.at.clone());
            }
        }
    }
    for component in tarjan_scc(&graph) {
        let members: BTreeSet<NodeIndex> = component.iter().copied().collect();
        // The one that the spec names first, so that the message does not depend on the algorithm.
        let Some(start) = members.first().copied() else {
            continue;
        };
        let Some(circle) = shortest_circle(&graph, start, &members) else {
            continue;
        };
        let mut names: Vec<&str> = circle.iter().map(|(node, _)| graph[*node]).collect();
        names.push(graph[start]);
        let path = names.join(" → ");
        let mut marks = circle.iter().zip(names.iter().skip(1));
        let Some(((node, place), next)) = marks.next() else {
            continue;
        };
        let text = |node: NodeIndex, next: &str| format!("\"{}\" needs \"{next}\"", graph[node]);
        let mut diagnostic = Diagnostic::new(
            "spec::cycle",
            format!("sandboxes need each other in a circle: {path}"),
            place,
            text(*node, next),
        );
        for ((node, place), next) in marks.take(15) {
            diagnostic = diagnostic.with_mark(place, text(*node, next));
        }
        problems.push(diagnostic.with_help("remove one of these, so that one of the sandboxes can be made first"));
    }
}

/// The nodes of the shortest way from `start` back to it, each with the place of the edge that leaves it.
fn shortest_circle(
    graph: &DiGraph<&str, Place>,
    start: NodeIndex,
    members: &BTreeSet<NodeIndex>,
) -> Option<Vec<(NodeIndex, Place)>> {
    let mut came_from: BTreeMap<NodeIndex, (NodeIndex, Place)> = BTreeMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(node) = queue.pop_front() {
        let mut edges: Vec<_> = graph
            .edges(node)
            .filter(|edge| members.contains(&edge.target()))
            .collect();
        edges.sort_by(|one, other| one.weight().cmp(other.weight()));
        for edge in edges {
            if edge.target() == start {
                let mut circle = vec![(node, edge.weight().clone())];
                let mut at = node;
                while at != start {
                    let (before, place) = came_from.get(&at)?.clone();
                    circle.push((before, place));
                    at = before;
                }
                circle.reverse();
                return Some(circle);
            }
            if edge.target() != start && !came_from.contains_key(&edge.target()) {
                came_from.insert(edge.target(), (node, edge.weight().clone()));
                queue.push_back(edge.target());
            }
        }
    }
    None
}
