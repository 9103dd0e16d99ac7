//! A policy as the rules of a network ACL and the lines of a network's DNS server, and back. Pure.
//!
//! Each opening is one rule for TCP and one for UDP, or one of the two, with the opening as its description. So what is
//! read is what is there, rule by rule: a rule that somebody has added, changed or taken away makes another policy.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::backend::pinned::is_host_name;
use crate::backend::{Error, ErrorKind, Result};
use crate::model::{Destination, Opening, PinnedPolicy, PortRange, Protocol};

/// The addresses of every name.
type Addresses = BTreeMap<String, BTreeSet<IpAddr>>;

/// A rule of an ACL, as the API has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(in crate::backend::incus) struct Rule {
    pub(super) action: String,
    #[serde(default)]
    pub(super) description: String,
    #[serde(default)]
    pub(super) destination: String,
    #[serde(default)]
    pub(super) destination_port: String,
    #[serde(default)]
    pub(super) protocol: String,
    #[serde(default)]
    pub(super) state: String,
    #[serde(flatten)]
    pub(super) more: BTreeMap<String, String>,
}

/// The rules of a policy, ordered.
pub(super) fn rules(policy: &PinnedPolicy) -> Vec<Rule> {
    let rules = policy
        .open
        .iter()
        .flat_map(|opening| rules_of(opening, &policy.addresses));
    let mut rules: Vec<Rule> = rules.collect();
    rules.sort();
    rules
}

fn rules_of(opening: &Opening, addresses: &Addresses) -> Vec<Rule> {
    let destinations: Vec<String> = opening.networks(addresses).map(|network| network.to_string()).collect();
    if destinations.is_empty() {
        // Without a destination it would open every one.
        return Vec::new();
    }
    let protocols = match opening.protocol {
        Some(protocol) => vec![protocol],
        None => vec![Protocol::Tcp, Protocol::Udp],
    };
    let rule = |protocol: Protocol| Rule {
        action: "allow".to_owned(),
        description: opening.to_string(),
        destination: destinations.join(","),
        destination_port: opening.ports.map(|ports| ports.to_string()).unwrap_or_default(),
        protocol: protocol.to_string(),
        state: "enabled".to_owned(),
        more: BTreeMap::new(),
    };
    protocols.into_iter().map(rule).collect()
}

/// What rules open, and the addresses of the names among it.
pub(super) fn opened(found: &[Rule]) -> (BTreeSet<Opening>, Addresses) {
    let (mut open, mut addresses) = (BTreeSet::new(), Addresses::new());
    let mut left: BTreeSet<&Rule> = found.iter().filter(|rule| opens(rule)).collect();
    let described: BTreeSet<&str> = left.iter().map(|rule| rule.description.as_str()).collect();
    for description in described {
        let Ok(opening) = description.parse::<Opening>() else {
            continue;
        };
        let mut pinned = Addresses::new();
        if let Some(name) = opening.to.pinned_as() {
            let of_it = left.iter().find(|rule| rule.description == description);
            pinned.insert(name, of_it.map(|rule| single(&rule.destination)).unwrap_or_default());
        }
        let wanted = rules_of(&opening, &pinned);
        if wanted.is_empty() || !wanted.iter().all(|rule| left.contains(rule)) {
            continue;
        }
        left.retain(|rule| !wanted.contains(rule));
        for (name, pinned) in pinned {
            addresses.entry(name).or_default().extend(pinned);
        }
        open.insert(opening);
    }
    // Not by us, or not as we left it.
    open.extend(left.into_iter().flat_map(foreign));
    (open, addresses)
}

fn opens(rule: &Rule) -> bool {
    rule.action.starts_with("allow") && rule.state != "disabled"
}

/// What a rule that is none of ours opens: by its addresses alone.
fn foreign(rule: &Rule) -> Vec<Opening> {
    let everything = ["0.0.0.0/0", "::/0"].join(",");
    let destination = match rule.destination.as_str() {
        "" => &everything,
        some => some,
    };
    let protocol = match rule.protocol.as_str() {
        "tcp" => Some(Protocol::Tcp),
        "udp" => Some(Protocol::Udp),
        _ => None,
    };
    let ports: Vec<Option<PortRange>> = match rule.destination_port.as_str() {
        "" => vec![None],
        ports => ports.split(',').map(port_range).collect(),
    };
    let to = |text: &str| {
        text.parse::<IpNet>()
            .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
            .map_or_else(|_| Destination::Domain(text.to_owned()), Destination::Network)
    };
    let openings = destination.split(',').flat_map(|text| {
        let to = to(text);
        ports.iter().map(move |ports| Opening {
            to: to.clone(),
            ports: *ports,
            protocol,
        })
    });
    openings.collect()
}

fn port_range(text: &str) -> Option<PortRange> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Some(PortRange {
        first: first.parse().ok()?,
        last: last.parse().ok()?,
    })
}

/// The addresses in a list of networks of one address each.
fn single(destination: &str) -> BTreeSet<IpAddr> {
    let networks = destination.split(',').filter_map(|text| text.parse::<IpNet>().ok());
    networks.map(|network| network.addr()).collect()
}

/// The settings of the network's DNS server (dnsmasq.conf(5)): it asks nobody, knows the names that are open, and says
/// of every other one that there is none.
pub(super) fn dns(policy: &PinnedPolicy) -> Result<String> {
    let mut lines = vec!["no-resolv".to_owned(), "no-hosts".to_owned()];
    for (name, addresses) in policy.names() {
        // Each line is a setting, and some of them run commands.
        if !is_host_name(name) {
            return Err(Error::new(ErrorKind::Invalid, format!("{name:?} is no host name")));
        }
        let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        lines.extend(addresses.iter().map(|address| format!("host-record={name},{address}")));
    }
    lines.push("address=/#/".to_owned());
    if policy.has_ipv6() {
        // There is one server to ask, by IPv4: none is announced.
        lines.push("dhcp-option=option6:dns-server".to_owned());
    }
    Ok(lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Enforcement, EnvironmentName, PolicyKey};

    fn policy(open: &[&str], addresses: &[(&str, &[&str])]) -> PinnedPolicy {
        let pinned = |(name, all): &(&str, &[&str])| {
            let all = all.iter().map(|text| text.parse().expect("an address"));
            ((*name).to_owned(), all.collect())
        };
        PinnedPolicy {
            key: PolicyKey {
                environment: EnvironmentName::new("demo").expect("a name"),
                name: "agents".to_owned(),
            },
            enforce: Enforcement::Host,
            open: open.iter().map(|text| text.parse().expect("an opening")).collect(),
            addresses: addresses.iter().map(pinned).collect(),
        }
    }

    fn sample() -> PinnedPolicy {
        policy(
            &["example.com:443/tcp", "example.com:80", "10.0.0.0/8", "10.1.2.3:53/udp"],
            &[("example.com", &["198.51.100.10", "198.51.100.11"])],
        )
    }

    fn shown(found: &[Rule]) -> Vec<String> {
        opened(found).0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn rules_read_as_they_are_written() {
        let policy = sample();
        let (open, addresses) = opened(&rules(&policy));
        assert_eq!(open, policy.open);
        assert_eq!(addresses, policy.addresses);
    }

    #[test]
    fn a_rule_that_was_changed_by_hand_is_another_opening() {
        let rules = rules(&policy(&["10.0.0.0/8:443/tcp"], &[]));
        let edit = |edit: &dyn Fn(&mut Rule)| {
            let mut rule = rules[0].clone();
            edit(&mut rule);
            shown(&[rule])
        };
        assert_eq!(edit(&|_| {}), ["10.0.0.0/8:443/tcp"]);
        assert_eq!(edit(&|rule| rule.destination_port.clear()), ["10.0.0.0/8:*/tcp"]);
        assert_eq!(
            edit(&|rule| rule.destination.clear()),
            ["0.0.0.0/0:443/tcp", "[::/0]:443/tcp"]
        );
        assert_eq!(edit(&|rule| rule.protocol = "icmp4".to_owned()), ["10.0.0.0/8:443"]);
        assert_eq!(
            edit(&|rule| rule.destination = "10.9.9.9,11.0.0.0/8".to_owned()),
            ["10.9.9.9:443/tcp", "11.0.0.0/8:443/tcp"]
        );
        assert_eq!(
            edit(&|rule| drop(rule.more.insert("source".to_owned(), "10.0.0.1".to_owned()))),
            ["10.0.0.0/8:443/tcp"]
        );
        assert!(edit(&|rule| rule.state = "disabled".to_owned()).is_empty());
        assert!(edit(&|rule| rule.action = "drop".to_owned()).is_empty());
    }

    #[test]
    fn half_of_an_opening_is_not_that_opening() {
        let mut rules = rules(&policy(&["10.0.0.0/8:80"], &[]));
        rules.pop();
        assert_eq!(shown(&rules), ["10.0.0.0/8:80/tcp"]);
    }

    #[test]
    fn a_name_without_addresses_opens_nothing() {
        assert!(rules(&policy(&["example.com"], &[])).is_empty());
    }

    #[test]
    fn no_name_can_add_a_setting() {
        for name in ["a\ndhcp-script=/x", "", "a,b", "A.example", "#"] {
            assert!(
                dns(&policy(&["10.0.0.1"], &[(name, &["10.0.0.1"])])).is_err(),
                "{name:?}"
            );
        }
        let lines = dns(&sample()).expect("good names");
        assert_eq!(
            lines
                .lines()
                .filter(|line| line.starts_with("host-record=example.com,"))
                .count(),
            2
        );
        assert_eq!(lines.lines().last(), Some("address=/#/"));
    }
}
