//! Files over SFTP, whoever serves it: the Incus daemon, or an SSH server inside a sandbox.
//!
//! `packet` is the protocol's form, `session` the pipelined exchange, `inspect` reads, `change` writes in the
//! order that `schedule` finds, and `files` is what backends call on an open session.
//!
//! Protocol: draft-ietf-secsh-filexfer-02, version 3, with OpenSSH's extension `posix-rename@openssh.com`. A
//! client of our own, because names inside a guest are bytes, which the crates at hand take for text, and
//! because every reply here has a deadline: the guest decides what stands at a path.
//!
//! A server is confined to the sandbox's root (the daemon's), or runs inside (that of SSH), so links followed by it stay
//! inside.

mod change;
mod files;
mod inspect;
mod mounts;
mod packet;
mod read;
mod remove;
mod schedule;
mod session;

pub(super) use change::change;
pub(super) use files::{LOOK, bounded, first_bytes, list_folder, write_from};
pub(super) use inspect::inspect;
pub(super) use session::Session;
