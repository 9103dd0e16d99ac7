//! Mounts, volumes and ports, on real backends.

mod incus;
mod inner;
mod local;
mod ports;
mod scene;
mod trust;

pub(crate) use scene::free_port;
