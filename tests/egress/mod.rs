//! Outbound network policy, with an internet of the tests' own.

mod attacks;
mod guest;
mod incus;
mod internet;
mod ipv6;
mod learn;
mod local;
mod peers;
mod scene;
