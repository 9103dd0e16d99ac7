//! The `sbx-apply` program.
fn main() {}
