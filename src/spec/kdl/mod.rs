//! KDL, versions 1 and 2, read into the tree.
//!
//! Two parsers read it, one for each version; [`scan`] looks at the text itself for what neither of them
//! guards against or tells of: nesting without bound, and properties given twice.

mod one;
mod parse;
mod plain;
mod scan;
mod two;

pub(super) use parse::parse;
