//! The TrueNAS backend: containers of one TrueNAS SCALE system, driven through its JSON-RPC interface.
//!
//! The rooms: `opener` turns settings into a connection, `auth` logs in, `client` carries calls and awaits jobs,
//! `dialect` knows what differs between 25.04, 25.10 and 26, and `convert` how labels stand in what these keep. On these
//! stand `observe`, `lifecycle`, `disks`, `snapshots` and `notes`. Commands, consoles and files go another way, by `ssh` into the
//! sandbox itself; `exec`, `files` and `egress` are what the traits ask of it, and `webshell` is for where there is no SSH.
//!
//! Facts about the API come from the server's own sources, 25.04.2, 25.10 and 26.0; no appliance was at hand.
//! `src/docs/truenas.md` tells how it is built. Nothing in here reads the caller's environment.

mod auth;
mod backend;
mod client;
mod convert;
mod dialect;
mod disks;
mod egress;
mod examine;
mod exec;
mod files;
mod lifecycle;
mod notes;
mod observe;
mod opener;
mod snapshots;
mod ssh;
mod webshell;

pub use backend::TrueNas;
pub use opener::Opener;
