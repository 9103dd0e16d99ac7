//! The embedded backend: real sandboxes on this machine, by Linux namespaces, with nothing installed.
//!
//! Two sides talk over a socket. This side is part of the tool: `state` keeps records, layers and locks on
//! disk, `image` knows what a disk is made from, and `observe`, `lifecycle`, `exec` and `files` answer the
//! traits. The other side, `inside`, is the same program started again with an empty environment
//! ([`helper`]): one process with one thread for each task, because only such a one may enter namespaces. It
//! builds mounts, becomes a sandbox's pid 1, runs commands, and reaches files.
//!
//! Nothing stays but the sandboxes' own processes: each has a pid 1 of ours, and one beside it that forwards its
//! ports where it has some; what it needs to be found again is in the state folder. `src/docs/local.md` tells how it is built.

mod cgroup;
mod console;
mod etc;
mod examine;
mod exec;
mod files;
mod helper;
mod ids;
mod image;
mod inside;
mod learn;
mod lifecycle;
mod network;
mod notes;
mod observe;
mod opener;
mod policy;
mod ports;
mod power;
mod probe;
mod running;
mod snapshots;
mod state;
mod wire;
mod workspace;

pub use inside::{ENTRY, main as helper};
pub use network::own_addresses;
pub use opener::{Local, Opener};
