//! Mounts, volumes and ports, on real backends.

mod incus;
mod local;
mod scene;

pub(crate) use scene::free_port;
