//! What only Incus can get wrong: its transport, what its copies inherit, what its guests plant, how many
//! requests things take. What every backend promises is in `conformance`.

mod adopt;
pub(crate) mod api;
mod cluster;
mod fence;
mod files;
mod gc;
mod instances;
mod mounted;
mod notes;
mod observing;
mod read_only;
mod secrets;
mod secure;
mod transport;
