//! Files of running and stopped instances, over SFTP.
//!
//! `packet` is the protocol's form, `session` the pipelined exchange, `inspect` reads, `change` writes in the
//! order that `schedule` finds, and `files` is what the backend calls.
//!
//! Protocol: draft-ietf-secsh-filexfer-02, version 3, with OpenSSH's extension `posix-rename@openssh.com`. A
//! client of our own, because names inside a guest are bytes, which the crates at hand take for text, and
//! because every reply here has a deadline: the guest decides what stands at a path.
//!
//! The daemon's server is confined to the instance's root, so links followed by it stay inside.

mod change;
mod files;
mod inspect;
mod mounts;
mod packet;
mod read;
mod remove;
mod schedule;
mod session;
