//! The vocabulary: names, quantities, what a spec asks for ([`Desired`]), what a backend holds ([`Live`]),
//! and the flat normal form ([`Facts`]) in which the two are compared.
//!
//! The lowest floor. Plain data and pure functions: no I/O, no clock, no printing, and no import from any
//! other floor.

mod capabilities;
mod clean;
mod desired;
mod diagnostic;
mod digest;
mod egress;
mod facts;
mod field;
mod file;
mod ignored;
mod label;
mod learned;
mod lifetime;
mod live;
mod mask;
mod name;
mod notes;
mod place;
mod preset;
mod quantity;
mod request;
mod run;
mod sandbox;
mod secret;
mod spec_file;
mod user;
mod workspace;

pub use capabilities::{Bounds, Capabilities, Capability};
pub use clean::{clean, steers};
pub use desired::{BackendChoice, Desired};
pub use diagnostic::{Diagnostic, Mark};
pub use digest::{Digest, Hasher};
pub use egress::{
    Destination, EgressMode, EgressRule, Enforcement, Fault, LivePolicy, LookInside, METADATA, METADATA_IPV6, Opening,
    PinnedPolicy, Policy, PolicyKey, PortRange, Protocol, Resolved, addresses_to_open,
};
pub use facts::Facts;
pub use field::{Field, Kind, ParseFieldError};
pub use file::{Content, Data, Entry, File, FileState, GuestPath, InvalidGuestPath, Tree, When};
pub use ignored::{Date, Ignored};
pub use label::{Labels, Ownership};
pub use learned::{Connection, Learned, Lookup, Missing};
pub use lifetime::Lifetime;
pub use live::{
    Found, HostMount, Inspection, Instance, Live, LiveInstance, LiveSnapshot, Query, Shape, Snapshot, Status,
};
pub use mask::Mask;
pub use name::{EnvironmentName, InstanceName, InvalidName, SandboxName, SnapshotName, StepName};
pub use notes::{Note, NoteKey};
pub use place::Place;
pub use preset::{PresetEntry, agent_preset};
pub use quantity::{Bytes, InvalidQuantity, Memory, Mode, Seconds};
pub use request::{Changes, CreateOpts, FileChange};
pub use run::{Ready, Run, Script};
pub use sandbox::{OnStale, Origin, Power, Sandbox, Sourced};
pub use secret::{SecretHashes, SecretKey, SecretTexts, Secrets};
pub use spec_file::{SpecEntry, SpecFile, SpecRecord};
pub use user::{Owner, User};
pub use workspace::{
    Attach, AttachedMount, AttachedVolume, GuestPort, HotPlug, InvalidPort, Mount, Port, Volume, VolumeKey, Workspace,
};
