//! Local sandboxes: what hostile ones cannot do, hostile archives, networks, limits, and the same promises for
//! ordinary users. What they share with every backend is in the conformance suite.

mod archives;
mod attempts;
mod closed;
mod hostile;
mod limits;
mod network;
mod packages;
mod pasta;
mod planning;
mod ports;
mod reboot;
mod still;
mod user;
