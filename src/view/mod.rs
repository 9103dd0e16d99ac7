//! What people and programs get to see.
//!
//! This floor turns plans, events and diagnostics into text. It reads nothing but what it is handed.

pub mod diagnostics;
