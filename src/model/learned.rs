//! What a sandbox asked for while it was watched, and what its policy would have to open for that.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use super::{Destination, Opening, PortRange, Protocol};

/// The addresses of every name.
type Addresses = BTreeMap<String, BTreeSet<IpAddr>>;

/// What an instance asked for while it was watched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Learned {
    /// The names that it looked up.
    pub names: BTreeMap<String, Lookup>,
    /// Where it went, and how many connections began: for UDP without an answer, how many packets.
    pub connections: BTreeMap<Connection, u64>,
}

/// A name that was looked up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lookup {
    /// How often.
    pub times: u64,
    /// What it was told to lead to; nothing where the name does not resolve.
    pub addresses: BTreeSet<Ipv4Addr>,
}

/// Where something went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Connection {
    /// To this address.
    pub to: Ipv4Addr,
    /// By this protocol.
    pub protocol: Protocol,
    /// To this port.
    pub port: u16,
}

/// What a policy would have to open.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Missing {
    /// Every destination that it does not open, and how many connections went there.
    pub open: BTreeMap<Opening, u64>,
    /// Names that do not resolve.
    pub unresolved: BTreeSet<String>,
    /// Names that were looked up, without any connection to where they lead.
    pub unused: BTreeSet<String>,
}

impl Learned {
    /// What of it a policy does not open. `pinned` are the addresses of the names that are open.
    #[must_use]
    pub fn missing(&self, open: &BTreeSet<Opening>, pinned: &Addresses) -> Missing {
        let mut missing = Missing::default();
        let mut used = BTreeSet::new();
        for (connection, times) in &self.connections {
            let asked = self
                .names
                .iter()
                .filter(|(_, lookup)| lookup.addresses.contains(&connection.to));
            let mut names: BTreeSet<&String> = asked.map(|(name, _)| name).collect();
            used.extend(names.iter().copied());
            let is_open = |opening: &Opening| {
                let to = IpNet::from(IpAddr::V4(connection.to));
                connection.fits(opening) && opening.networks(pinned).any(|network| network.contains(&to))
            };
            if names.is_empty() {
                if open.iter().any(is_open) {
                    continue;
                }
                // A name that is open on other ports needs no looking up.
                let known = pinned
                    .iter()
                    .filter(|(_, all)| all.contains(&IpAddr::V4(connection.to)));
                names.extend(known.map(|(name, _)| name));
            }
            let destinations: Vec<Destination> = match names.is_empty() {
                true => vec![Destination::Network(IpNet::from(IpAddr::V4(connection.to)))],
                false => names.into_iter().map(|name| Destination::of_pinned(name)).collect(),
            };
            for to in destinations {
                // An address that is open does not make a name that leads there known.
                if !open.iter().any(|opening| opening.to == to && connection.fits(opening)) {
                    *missing.open.entry(connection.opening(to)).or_default() += times;
                }
            }
        }
        for (name, lookup) in &self.names {
            let is_known = pinned.contains_key(name);
            match lookup.addresses.is_empty() {
                true => drop(missing.unresolved.insert(name.clone())),
                false if !used.contains(name) && !is_known => drop(missing.unused.insert(name.clone())),
                false => {}
            }
        }
        missing
    }
}

impl Connection {
    /// Whether an opening opens its port and its protocol.
    fn fits(&self, opening: &Opening) -> bool {
        let port = opening
            .ports
            .is_none_or(|ports| (ports.first..=ports.last).contains(&self.port));
        port && opening.protocol.is_none_or(|protocol| protocol == self.protocol)
    }

    /// Just enough to let it through.
    fn opening(&self, to: Destination) -> Opening {
        Opening {
            to,
            ports: Some(PortRange {
                first: self.port,
                last: self.port,
            }),
            protocol: Some(self.protocol),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
    const OTHER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 20);

    fn learned(names: &[(&str, &[Ipv4Addr])], connections: &[(Ipv4Addr, u16)]) -> Learned {
        let lookup = |(name, addresses): &(&str, &[Ipv4Addr])| {
            let addresses = addresses.iter().copied().collect();
            ((*name).to_owned(), Lookup { times: 1, addresses })
        };
        let connection = |(to, port): &(Ipv4Addr, u16)| {
            let (to, port, protocol) = (*to, *port, Protocol::Tcp);
            (Connection { to, protocol, port }, 2)
        };
        Learned {
            names: names.iter().map(lookup).collect(),
            connections: connections.iter().map(connection).collect(),
        }
    }

    fn missing(learned: &Learned, open: &[&str], pinned: &[(&str, Ipv4Addr)]) -> Missing {
        let open = open.iter().map(|text| text.parse().expect("an opening")).collect();
        let pinned = pinned
            .iter()
            .map(|(name, to)| ((*name).to_owned(), BTreeSet::from([IpAddr::V4(*to)])));
        learned.missing(&open, &pinned.collect())
    }

    fn shown(missing: &Missing) -> Vec<String> {
        missing
            .open
            .iter()
            .map(|(opening, times)| format!("{opening} x{times}"))
            .collect()
    }

    #[test]
    fn addresses_have_the_names_that_were_asked_for() {
        let learned = learned(
            &[("a.test", &[FIRST]), ("b.test", &[FIRST])],
            &[(FIRST, 443), (OTHER, 22)],
        );
        let found = missing(&learned, &[], &[]);
        assert_eq!(
            shown(&found),
            ["a.test:443/tcp x2", "b.test:443/tcp x2", "198.51.100.20:22/tcp x2"]
        );
        assert!(found.unresolved.is_empty() && found.unused.is_empty());
    }

    #[test]
    fn what_is_open_is_not_missing() {
        let pinned = [("a.test", FIRST)];
        let asked = learned(&[("a.test", &[FIRST])], &[(FIRST, 443)]);
        for open in ["a.test:443/tcp", "a.test", "a.test:400-500"] {
            assert_eq!(missing(&asked, &[open], &pinned), Missing::default(), "{open}");
        }
        assert_eq!(
            shown(&missing(&asked, &["a.test:443/udp"], &pinned)),
            ["a.test:443/tcp x2"]
        );
        let silent = learned(&[], &[(FIRST, 443), (FIRST, 80)]);
        assert_eq!(
            shown(&missing(&silent, &["a.test:443/tcp"], &pinned)),
            ["a.test:80/tcp x2"]
        );
        assert_eq!(missing(&silent, &["198.51.100.0/24"], &[]), Missing::default());
    }

    #[test]
    fn an_open_address_does_not_make_a_name_known() {
        let asked = learned(&[("a.test", &[FIRST])], &[(FIRST, 443)]);
        assert_eq!(
            shown(&missing(&asked, &["198.51.100.0/24"], &[])),
            ["a.test:443/tcp x2"]
        );
    }

    #[test]
    fn names_that_lead_nowhere_and_names_without_a_connection_are_told() {
        let found = missing(&learned(&[("gone.test", &[]), ("idle.test", &[FIRST])], &[]), &[], &[]);
        assert!(found.unresolved.contains("gone.test") && found.unused.contains("idle.test"));
        assert!(found.open.is_empty());
    }
}
