//! TrueNAS SCALE, as far as it can be tested without an appliance.

mod hostile;
mod knobs;
#[allow(dead_code, reason = "as above")]
pub(crate) mod plain;
mod secure;
pub(crate) mod shared;
#[allow(dead_code, reason = "the backend's tests, which use the rest, come next")]
pub(crate) mod sim;
mod simulated;
mod strictness;
mod whole;
