//! YAML, read into the tree.
//!
//! [`events`] builds a plain tree of maps, lists and scalars, aliases expanded within a budget; [`lower`] turns
//! it into nodes as KDL has them, by the language's own table.

mod events;
mod lower;

use crate::model::Diagnostic;
use crate::spec::source::Source;
use crate::spec::syntax::Nodes;

/// Reads YAML.
///
/// # Errors
/// The first syntax error, since YAML has no way to go on after one.
pub(super) fn parse(source: &Source) -> Result<Nodes, Vec<Diagnostic>> {
    match events::read(source) {
        Ok(Some(tree)) => Ok(lower::document(&tree)),
        Ok(None) => Ok((Vec::new(), Vec::new())),
        Err(diagnostic) => Err(vec![*diagnostic]),
    }
}
