//! Outbound network policy.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;

use super::{EnvironmentName, Place, SandboxName};

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

impl EgressMode {
    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unrestricted => "unrestricted",
            Self::Agent => "agent",
            Self::Allowlist => "allowlist",
            Self::None => "none",
        }
    }
}

impl fmt::Display for EgressMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
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
    /// Another sandbox of the environment, at the address that it has. In text, `sandbox/db`.
    Sandbox(SandboxName),
}

/// Before the name of a sandbox, in the text of a destination: no host name has a slash.
const SANDBOX: &str = "sandbox/";

impl Destination {
    /// The name under which a policy keeps its addresses; none of what is an address itself.
    #[must_use]
    pub fn pinned_as(&self) -> Option<String> {
        match self {
            Self::Domain(name) => Some(name.clone()),
            Self::Sandbox(_) => Some(self.to_string()),
            Self::Network(_) => None,
        }
    }

    /// The destination whose addresses a policy keeps under a name: the other way round.
    #[must_use]
    pub fn of_pinned(name: &str) -> Self {
        let sandbox = name.strip_prefix(SANDBOX).and_then(|name| SandboxName::new(name).ok());
        sandbox.map_or_else(|| Self::Domain(name.to_owned()), Self::Sandbox)
    }

    /// The other sandbox that it leads to.
    #[must_use]
    pub fn sandbox(&self) -> Option<&SandboxName> {
        match self {
            Self::Sandbox(name) => Some(name),
            Self::Domain(_) | Self::Network(_) => None,
        }
    }
}

impl FromStr for Opening {
    type Err = ();

    /// Reads what [`Opening`] prints.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (rest, protocol) = match (text.strip_suffix("/tcp"), text.strip_suffix("/udp")) {
            (Some(rest), _) => (rest, Some(Protocol::Tcp)),
            (_, Some(rest)) => (rest, Some(Protocol::Udp)),
            _ => (text, None),
        };
        let read = |text: &str| text.parse::<u16>().map_err(drop);
        let (to, ports) = match rest.rsplit_once(':') {
            _ if rest.parse::<IpAddr>().is_ok() || rest.parse::<IpNet>().is_ok() => (rest, None),
            Some((to, "*")) => (to, None),
            Some((to, ports)) => {
                let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
                let (first, last) = (read(first)?, read(last)?);
                (to, Some(PortRange { first, last }))
            }
            None => (rest, None),
        };
        let to = to.strip_prefix('[').and_then(|to| to.strip_suffix(']')).unwrap_or(to);
        let to = match (to.parse::<IpAddr>(), to.parse::<IpNet>()) {
            _ if to.starts_with(SANDBOX) => {
                let name = to.strip_prefix(SANDBOX).unwrap_or_default();
                Destination::Sandbox(SandboxName::new(name).map_err(drop)?)
            }
            (Ok(address), _) => Destination::Network(IpNet::from(address)),
            (_, Ok(network)) => Destination::Network(network),
            _ => Destination::Domain(to.to_owned()),
        };
        Ok(Self { to, ports, protocol })
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Domain(name) => f.pad(name),
            Self::Sandbox(name) => f.pad(&format!("{SANDBOX}{name}")),
            Self::Network(network) if network.prefix_len() == network.max_prefix_len() => {
                f.pad(&network.addr().to_string())
            }
            Self::Network(network) => f.pad(&network.to_string()),
        }
    }
}

/// Transport protocol of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// A range of ports, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortRange {
    /// Lowest.
    pub first: u16,
    /// Highest.
    pub last: u16,
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
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
    /// Whether it comes from the `agent` preset, and nobody wrote it down.
    pub preset: bool,
    /// Where the spec says so; of a rule of the preset, where it asks for that.
    pub at: Place,
}

impl EgressRule {
    /// What it opens.
    #[must_use]
    pub fn opening(&self) -> Opening {
        Opening {
            to: self.to.clone(),
            ports: self.ports,
            protocol: self.protocol,
        }
    }
}

/// What a rule opens, wherever it stands. In text, and in a field's path: `example.com:443/tcp`, `10.0.0.0/8`,
/// `[2001:db8::1]:53/udp`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Opening {
    /// Where to.
    pub to: Destination,
    /// Which ports; all when none.
    pub ports: Option<PortRange>,
    /// Which protocol; TCP and UDP when none.
    pub protocol: Option<Protocol>,
}

impl Opening {
    /// Whether it names an IPv6 address or network.
    #[must_use]
    pub fn is_ipv6(&self) -> bool {
        matches!(self.to, Destination::Network(IpNet::V6(_)))
    }

    /// The addresses that it leads to, given those of every name; none of a name without any.
    pub fn networks<'a>(
        &'a self,
        addresses: &'a BTreeMap<String, BTreeSet<IpAddr>>,
    ) -> impl Iterator<Item = IpNet> + 'a {
        let network = match &self.to {
            Destination::Network(network) => Some(*network),
            Destination::Domain(_) | Destination::Sandbox(_) => None,
        };
        let name = self.to.pinned_as().and_then(|name| addresses.get(&name));
        network
            .into_iter()
            .chain(name.into_iter().flatten().copied().map(IpNet::from))
    }
}

impl fmt::Display for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_ipv6() && (self.ports.is_some() || self.protocol.is_some()) {
            write!(f, "[{}]", self.to)?;
        } else {
            write!(f, "{}", self.to)?;
        }
        match (self.ports, self.protocol) {
            (None, None) => Ok(()),
            (None, Some(protocol)) => write!(f, ":*/{protocol}"),
            (Some(ports), None) => write!(f, ":{ports}"),
            (Some(ports), Some(protocol)) => write!(f, ":{ports}/{protocol}"),
        }
    }
}

/// Which of an environment's policies: what its network and its rules are named after. In text: `agents` for a shared
/// one, `sandbox/task-1` for a sandbox's own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyKey {
    /// The environment.
    pub environment: EnvironmentName,
    /// The name within it.
    pub name: String,
}

impl PolicyKey {
    /// The name of what another tool, pixels, has left in a guest: no policy of a spec can be called so.
    pub const LEFT_BY_PIXELS: &str = "left by pixels";

    /// The key of a sandbox's policy: of the shared one that it names, or its own.
    #[must_use]
    pub fn of(environment: &EnvironmentName, sandbox: &SandboxName, shared: Option<&str>) -> Self {
        Self {
            environment: environment.clone(),
            name: Self::name_of(sandbox, shared),
        }
    }

    /// Its name alone.
    #[must_use]
    pub fn name_of(sandbox: &SandboxName, shared: Option<&str>) -> String {
        shared.map_or_else(|| format!("sandbox/{sandbox}"), str::to_owned)
    }
}

/// A policy with the addresses of every name in it: what a backend puts in force, and what it finds in force. What is
/// not opened is closed: other destinations, other names in DNS, and IPv6 altogether where the backend says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinnedPolicy {
    /// Which.
    pub key: PolicyKey,
    /// Where it is enforced.
    pub enforce: Enforcement,
    /// What is open.
    pub open: BTreeSet<Opening>,
    /// The addresses of every name that is open, and of every sandbox: see [`Destination::pinned_as`].
    pub addresses: BTreeMap<String, BTreeSet<IpAddr>>,
}

impl PinnedPolicy {
    /// Whether any of it is IPv6. Where nothing is, IPv6 stays closed altogether.
    #[must_use]
    pub fn has_ipv6(&self) -> bool {
        let mut all = self.open.iter().flat_map(|opening| opening.networks(&self.addresses));
        all.any(|network| matches!(network, IpNet::V6(_)))
    }

    /// The names that resolve inside, and their addresses. A sandbox is known by its name in the spec.
    pub fn names(&self) -> impl Iterator<Item = (&str, &BTreeSet<IpAddr>)> {
        let names = self.addresses.iter();
        names.map(|(name, all)| (name.strip_prefix(SANDBOX).unwrap_or(name), all))
    }

    /// The other sandboxes that it has addresses of, by their names in the spec.
    pub fn peers(&self) -> impl Iterator<Item = (&str, &BTreeSet<IpAddr>)> {
        let all = self.addresses.iter();
        all.filter_map(|(name, all)| Some((name.strip_prefix(SANDBOX)?, all)))
    }

    /// The other sandboxes that it opens.
    #[must_use]
    pub fn sandboxes(&self) -> BTreeSet<SandboxName> {
        let all = self.open.iter().filter_map(|opening| opening.to.sandbox());
        all.cloned().collect()
    }
}

/// What is found in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LivePolicy {
    /// The policy, as far as it can be read.
    pub policy: PinnedPolicy,
    /// What is wrong with the way in which it is enforced, such as a filter that somebody has switched off.
    pub fault: Option<Fault>,
}

/// What a look inside a guest finds of a policy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LookInside {
    /// What is in force there; none where nothing is.
    pub policy: Option<LivePolicy>,
    /// Why nothing can be put in force there, for people; none where it can.
    pub lacks: Option<String>,
}

/// Why a policy does not hold as it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What is wrong, for people.
    pub text: String,
    /// Whether a running sandbox has to be started again for it to be mended.
    pub restart: bool,
}

impl Fault {
    /// One that can be mended while the sandbox runs.
    #[must_use]
    pub fn live(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            restart: false,
        }
    }

    /// One that needs a restart.
    #[must_use]
    pub fn restart(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            restart: true,
        }
    }
}

/// Those of a name's addresses that a policy opens: of IPv4, and of IPv6, too, where the policy has IPv6 anyway, or the name
/// has nothing else. So no policy comes to have IPv6 by a name that can be reached without it.
#[must_use]
pub fn addresses_to_open(found: &BTreeSet<IpAddr>, has_ipv6: bool) -> BTreeSet<IpAddr> {
    let all = has_ipv6 || !found.iter().any(IpAddr::is_ipv4);
    let opened = found.iter().copied().filter(|address| all || address.is_ipv4());
    opened.collect()
}

/// Link-local address at which clouds tell an instance its credentials.
pub const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

/// Where they do so by IPv6, which are no link-local addresses: Amazon, Google, Oracle.
pub const METADATA_IPV6: [Ipv6Addr; 3] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe),
];

/// What a name resolves to, or why it does not.
pub type Resolved = Result<BTreeSet<IpAddr>, String>;

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

impl Policy {
    /// Makes an allowlist without any rule what it is, and what a spec can say: nothing.
    pub fn settle(&mut self) {
        if self.mode == EgressMode::Allowlist && self.allow.is_empty() {
            self.mode = EgressMode::None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_brings_ipv6_where_it_has_nothing_else() {
        let of = |texts: &[&str]| -> BTreeSet<IpAddr> {
            texts.iter().map(|text| text.parse().expect("an address")).collect()
        };
        let both = of(&["192.0.2.1", "2001:db8::1"]);
        assert_eq!(addresses_to_open(&both, false), of(&["192.0.2.1"]));
        assert_eq!(addresses_to_open(&both, true), both);
        assert_eq!(addresses_to_open(&of(&["2001:db8::1"]), false), of(&["2001:db8::1"]));
    }

    #[test]
    fn openings_read_as_they_print() {
        for text in [
            "example.com",
            "example.com:443/tcp",
            "example.com:8000-8100",
            "example.com:*/udp",
            "10.0.0.0/8",
            "10.0.0.1:53/udp",
            "2001:db8::/32",
            "[2001:db8::1]:53/udp",
            "[2001:db8::/32]:*/tcp",
            "sandbox/db-2:5432/tcp",
            "sandbox/db",
        ] {
            assert_eq!(text.parse::<Opening>().expect(text).to_string(), text);
        }
    }
}
