//! Mounts, volumes and ports, on real backends.

mod incus;
mod scene;
