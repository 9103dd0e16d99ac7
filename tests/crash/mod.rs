//! The program killed, interrupted, and robbed of its daemon, as a real process with real sandboxes: the next run
//! puts everything right, and nothing is left behind.
//!
//! `SBX_KILLS` says how many times it is killed, 24 unless given; `SBX_SEED` which instants chance picks.

mod daemon;
mod disk;
mod diskless;
mod ending;
mod kills;
mod leftovers;
mod private;
mod process;
mod script;
mod stopped;
mod two;
mod upload;
mod world;
