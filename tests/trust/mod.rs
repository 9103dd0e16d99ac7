//! What can be relied on, with real sandboxes on every backend: hand edits are found and repaired, what is stale is
//! made anew, one works at a time, and a kept plan is done exactly or not at all.

mod hand_edits;
mod saved;
mod stale;
