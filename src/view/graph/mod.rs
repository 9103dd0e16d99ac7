//! The steps of a plan as a graph: in the languages of Graphviz and Mermaid, and as a picture.

mod dot;
mod lanes;
mod mermaid;
mod svg;

pub use dot::dot;
pub use mermaid::mermaid;
pub use svg::svg;
