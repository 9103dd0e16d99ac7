//! Where sandboxes live: the traits that every backend answers, their errors, and the registry that opens a
//! backend by name.
//!
//! Async I/O stands here and nowhere below. Reading ([`Reader`]) and changing ([`Sandboxes`]) are separate
//! traits: what plan and check are handed can only read. This floor knows the model, not specs or plans.

mod attachable;
mod error;
mod fence;
mod finding;
pub mod incus;
mod inside;
mod kept;
pub mod local;
mod marked;
pub mod memory;
mod names;
mod netlink;
mod nft;
mod options;
mod pinned;
mod registry;
mod retry;
mod sftp;
mod source;
mod strict;
mod tls;
mod traits;
pub mod truenas;
mod unique_local;
mod watch;

pub use crate::model::{Changes, CreateOpts, FileChange};
pub use error::{Error, ErrorKind, Objection, Result, has_no_disk, is_not_found, is_untouched};
pub use fence::{Fence, may_change};
pub use finding::{Examination, Finding, Health};
pub use local::own_addresses;
pub use names::resolve;
pub use options::{
    Account, ConsoleOpts, ExecOpts, FileEntry, Moment, Output, Scope, Settings, Stop, Streams, Terminal,
};
pub use registry::{Opener, Registry};
pub use traits::{
    Backend, Doing, Exec, Files, KeepNotes, NetworkPolicy, Observe, ReadFiles, ReadNotes, ReadPolicy, Reader, Sandboxes,
};
