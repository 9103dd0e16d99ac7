//! A *simulated* backend that lives in memory, for tests: no program offers it, and nothing in it runs.
//!
//! It is strict where a real daemon is: names, images, snapshots and members must be what they say, two
//! operations on one instance at once are refused as busy (and not retried, so that a caller who does that
//! finds out), and a capability that was taken away is missed by every call that needs it. Time is a counter.
//! Commands are answered by a few imitated shell commands, or by what a test hooks in.
//!
//! A test keeps a clone of [`Memory`] as its handle: to read the [journal](Memory::journal), and to change
//! things behind the tool's back ([`Memory::edit`]).

mod change;
mod disk;
mod exec;
mod files;
mod handle;
mod hold;
mod image;
mod lifecycle;
mod look;
mod machine;
mod notes;
mod observe;
mod policy;
mod shell;
#[cfg(test)]
mod tests;
mod walk;
mod words;
mod workspace;
mod world;

pub use disk::Disk;
pub use handle::Memory;
pub use machine::{KeptDisk, Machine};
