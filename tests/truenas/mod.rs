//! TrueNAS SCALE, as far as it can be tested without an appliance.

mod faults;
mod fenced;
mod hold;
mod hostile;
mod knobs;
pub(crate) mod plain;
mod rare;
mod refused;
mod requests;
mod secure;
pub(crate) mod shared;
pub(crate) mod sim;
mod simulated;
mod strictness;
mod whole;
