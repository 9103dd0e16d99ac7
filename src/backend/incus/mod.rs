//! The Incus backend: system containers of one daemon or cluster, driven through its REST API.
//!
//! The rooms: `opener` and `remote` turn settings and the incus client's configuration into a connection,
//! `client` carries requests, `operation` awaits what runs in the background, `wire`
//! holds the API's own shapes and `convert` alone translates between them and the model. On these stand
//! `observe`, `instance`, `notes`, `snapshot`, `image`, `exec` and `files`, one for each thing that sandboxes do.
//!
//! Facts about the API come from the documentation of Incus 6.0 (`doc/rest-api.md`, `doc/api-extensions.md`)
//! and from trying them on 6.0.4. Nothing in here reads the caller's environment.

mod backend;
mod client;
mod console;
mod convert;
mod disk;
mod egress;
mod examine;
mod exec;
mod failure;
mod files;
mod image;
mod instance;
mod notes;
mod observe;
mod opener;
mod operation;
mod remote;
mod snapshot;
mod websocket;
mod wire;
mod workspace;

pub use backend::Incus;
pub use opener::Opener;
