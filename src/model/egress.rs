//! Outbound network policy.

use std::fmt;

use ipnet::IpNet;

use super::Place;

/// What a sandbox may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EgressMode {
    /// Anything.
    Unrestricted,
    /// What the `agent` preset lists, and the policy's own rules.
    Agent,
    /// The policy's own rules.
    Allowlist,
    /// Nothing.
    None,
}

impl fmt::Display for EgressMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Unrestricted => "unrestricted",
            Self::Agent => "agent",
            Self::Allowlist => "allowlist",
            Self::None => "none",
        })
    }
}

/// Where a policy is enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enforcement {
    /// Outside the guest, so that its root cannot undo it.
    Host,
    /// Inside the guest: best effort.
    Guest,
}

/// Where a rule leads.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Destination {
    /// A host name, lower case, without a closing dot.
    Domain(String),
    /// An address or a network.
    Network(IpNet),
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Domain(name) => f.pad(name),
            Self::Network(network) if network.prefix_len() == network.max_prefix_len() => {
                f.pad(&network.addr().to_string())
            }
            Self::Network(network) => f.pad(&network.to_string()),
        }
    }
}

/// Transport protocol of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A range of ports, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortRange {
    /// Lowest.
    pub first: u16,
    /// Highest.
    pub last: u16,
}

/// One allowed destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EgressRule {
    /// Where to.
    pub to: Destination,
    /// Which ports; all when none.
    pub ports: Option<PortRange>,
    /// Which protocol; TCP and UDP when none.
    pub protocol: Option<Protocol>,
    /// Where the spec says so.
    pub at: Place,
}

/// A policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Its name, when it is a shared one.
    pub name: Option<String>,
    /// What is allowed.
    pub mode: EgressMode,
    /// Destinations, in the order of the spec.
    pub allow: Vec<EgressRule>,
    /// Where it is enforced; the backend's best when none.
    pub enforce: Option<Enforcement>,
    /// Where the sandbox says so.
    pub at: Place,
}
