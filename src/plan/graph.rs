//! The order of steps, as a graph.

use std::collections::HashMap;

use petgraph::algo::{tarjan_scc, toposort};
use petgraph::graph::{DiGraph, NodeIndex};

use super::{Step, StepId};

/// Steps and what each needs. An edge leads from a step to one that waits for it.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    inner: DiGraph<usize, ()>,
}

impl Graph {
    /// The graph of some steps; a need that is not among them counts as met.
    #[must_use]
    pub fn of(steps: &[Step]) -> Self {
        let mut inner = DiGraph::with_capacity(steps.len(), steps.len() * 2);
        let mut nodes: HashMap<&StepId, NodeIndex> = HashMap::with_capacity(steps.len());
        for (index, step) in steps.iter().enumerate() {
            nodes.insert(&step.id, inner.add_node(index));
        }
        for step in steps {
            for need in &step.needs {
                if let (Some(from), Some(to)) = (nodes.get(need), nodes.get(&step.id)) {
                    inner.update_edge(*from, *to, ());
                }
            }
        }
        Self { inner }
    }

    /// Indices of steps, each after all that it needs.
    ///
    /// # Errors
    /// The indices of the steps of a cycle, in its order.
    pub fn order(&self) -> Result<Vec<usize>, Vec<usize>> {
        match toposort(&self.inner, None) {
            Ok(nodes) => Ok(nodes.into_iter().map(|node| self.inner[node]).collect()),
            Err(_) => Err(self.cycles().into_iter().next().unwrap_or_default()),
        }
    }

    /// Indices of the steps that wait for this one.
    pub fn waiting_for(&self, step: usize) -> impl Iterator<Item = usize> {
        self.inner.neighbors(NodeIndex::new(step)).map(|node| self.inner[node])
    }

    /// How many steps this one waits for.
    #[must_use]
    pub fn waits(&self, step: usize) -> usize {
        self.inner
            .neighbors_directed(NodeIndex::new(step), petgraph::Direction::Incoming)
            .count()
    }

    fn cycles(&self) -> Vec<Vec<usize>> {
        tarjan_scc(&self.inner)
            .into_iter()
            .filter(|component| {
                component.len() > 1
                    || component
                        .first()
                        .is_some_and(|node| self.inner.contains_edge(*node, *node))
            })
            .map(|component| component.into_iter().map(|node| self.inner[node]).collect())
            .collect()
    }
}
