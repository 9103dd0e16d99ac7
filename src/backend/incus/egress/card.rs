//! The network cards of an instance. Pure.
//!
//! On a policy's network an instance has one card, and every other one that its profiles would give it is masked: a second
//! card would lead around the policy.

use crate::backend::incus::wire::{Config, Devices};
use crate::model::{Fault, PinnedPolicy};

/// What an instance's card on a policy's network cannot do: send from another address, hardware address or by IPv6, and
/// reach its neighbours.
const CLOSED: [&str; 4] = [
    "security.ipv4_filtering",
    "security.ipv6_filtering",
    "security.mac_filtering",
    "security.port_isolation",
];

/// On a card whose network has IPv6: it changes nothing by itself (nothing is logged where a card has no ACL of its own), but
/// to set it, or take it away, has the daemon make the filter of a running card anew, with the addresses that the network
/// has now. `ipv6.address` would do that, too, but an address there goes over to clones, and 6.0.4 cannot read `none`.
const HAS_IPV6: (&str, &str) = ("security.acls.default.egress.logged", "false");

fn is_card(device: &Config) -> bool {
    device.get("type").is_some_and(|kind| kind == "nic")
}

/// Whether a device listens inside, and connects from the host: around every network.
fn is_way_out(device: &Config) -> bool {
    let is_proxy = device.get("type").is_some_and(|kind| kind == "proxy");
    is_proxy
        && device
            .get("bind")
            .is_some_and(|bind| !bind.is_empty() && bind != "host")
}

fn network(device: &Config) -> Option<&str> {
    device.get("network").map(String::as_str)
}

/// The name of the first card, and its network.
pub(super) fn first(devices: &Devices) -> Option<(&str, Option<&str>)> {
    let mut cards = devices.iter().filter(|(_, device)| is_card(device));
    cards.next().map(|(name, device)| (name.as_str(), network(device)))
}

/// The networks that an instance has cards on.
pub(in crate::backend::incus) fn networks(devices: &Devices) -> impl Iterator<Item = &str> {
    devices.values().filter(|device| is_card(device)).filter_map(network)
}

/// The names of an instance's cards, and the networks that they are on.
pub(super) fn on_networks(devices: &Devices) -> impl Iterator<Item = (&str, &str)> {
    let cards = devices.iter().filter(|(_, device)| is_card(device));
    cards.filter_map(|(name, device)| Some((name.as_str(), network(device)?)))
}

/// A policy's network, as a card sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Net<'a> {
    pub(super) name: &'a str,
    pub(super) has_ipv6: bool,
}

impl<'a> Net<'a> {
    /// That of a policy.
    pub(super) fn of(name: &'a str, policy: &PinnedPolicy) -> Self {
        Self {
            name,
            has_ipv6: policy.has_ipv6(),
        }
    }
}

/// A card on a policy's network.
fn closed(network: Net<'_>) -> Config {
    let mut card = Config::from([
        ("type".to_owned(), "nic".to_owned()),
        ("name".to_owned(), "eth0".to_owned()),
        ("network".to_owned(), network.name.to_owned()),
    ]);
    let has_ipv6 = network.has_ipv6.then_some(HAS_IPV6);
    card.extend(has_ipv6.map(|(key, value)| (key.to_owned(), value.to_owned())));
    card.extend(CLOSED.map(|key| (key.to_owned(), "true".to_owned())));
    card
}

/// Why cards let more through than a policy's network does; none where they are as [`put_on`] leaves them.
pub(super) fn fault(expanded: &Devices, network: Net<'_>) -> Option<Fault> {
    if let Some((name, _)) = expanded.iter().find(|(_, device)| is_way_out(device)) {
        let way = format!("the proxy {name} leads around it, from inside to the host");
        return Some(Fault::restart(way));
    }
    for (name, device) in expanded.iter().filter(|(_, device)| is_card(device)) {
        if self::network(device) != Some(network.name) {
            let where_to = self::network(device)
                .or_else(|| device.get("parent").map(String::as_str))
                .unwrap_or("nowhere");
            return Some(Fault::restart(format!(
                "the network card {name} leads around it, to {where_to}"
            )));
        }
        let wanted = closed(network);
        let other = wanted.iter().find(|(key, value)| device.get(*key) != Some(value));
        if let Some((key, _)) = other {
            let other = format!("the network card {name} has another {key}");
            return Some(mended_by(key)(other));
        }
        let more = device
            .keys()
            .find(|key| !wanted.contains_key(*key) && *key != "hwaddr" && *key != "ipv4.address");
        if let Some(key) = more {
            let more = format!("the network card {name} has a {key}");
            return Some(mended_by(key)(more));
        }
    }
    None
}

/// What mends a setting: most of them make another card, which the guest has to ask an address for.
fn mended_by(key: &str) -> fn(String) -> Fault {
    match key == HAS_IPV6.0 {
        true => Fault::live,
        false => Fault::restart,
    }
}

/// Puts an instance on a policy's network: its own devices, given those of its profiles.
pub(super) fn put_on(own: &mut Devices, profiles: &Devices, network: Net<'_>) {
    let kept = own
        .iter()
        .find(|(_, device)| is_card(device) && self::network(device) == Some(network.name));
    let name = kept
        .map(|(name, _)| name.clone())
        .or_else(|| first(profiles).map(|(name, _)| name.to_owned()))
        .unwrap_or_else(|| "eth0".to_owned());
    own.retain(|_, device| !is_card(device) && !is_way_out(device));
    for (masked, device) in profiles {
        if is_card(device) && *masked != name || is_way_out(device) {
            own.insert(masked.clone(), Config::from([("type".to_owned(), "none".to_owned())]));
        }
    }
    own.insert(name, closed(network));
}

/// Leaves an instance without a card in the place of the one that it has on a network.
pub(super) fn unplug(own: &mut Devices, ours: &str) {
    for device in own.values_mut() {
        if is_card(device) && network(device) == Some(ours) {
            *device = Config::from([("type".to_owned(), "none".to_owned())]);
        }
    }
}

/// Takes an instance off: its profiles' cards, or one on `default`, are its cards again.
pub(super) fn take_off(own: &mut Devices, profiles: &Devices, ours: &str, default: Option<Config>) {
    own.retain(|name, device| {
        let is_masked = |device: &Config| is_card(device) || is_way_out(device);
        let masks = device.get("type").is_some_and(|kind| kind == "none") && profiles.get(name).is_some_and(is_masked);
        !(masks || is_card(device) && network(device) == Some(ours))
    });
    let has_card = |devices: &Devices| devices.values().any(is_card);
    if let Some(card) = default.filter(|_| !has_card(own)) {
        own.insert("eth0".to_owned(), card);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOSED_NET: Net<'_> = Net {
        name: "sbx-1",
        has_ipv6: false,
    };

    fn card(network: &str) -> Config {
        let pairs = [("type", "nic"), ("name", "eth0"), ("network", network)];
        pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
    }

    fn devices(of: &[(&str, Config)]) -> Devices {
        of.iter()
            .map(|(name, device)| ((*name).to_owned(), device.clone()))
            .collect()
    }

    fn expanded(profiles: &Devices, own: &Devices) -> Devices {
        let mut all = profiles.clone();
        all.extend(own.clone());
        all
    }

    #[test]
    fn on_and_off_again_leaves_what_was() {
        let profiles = devices(&[("eth0", card("lan")), ("eth1", card("storage"))]);
        let mut own = Devices::new();
        put_on(&mut own, &profiles, CLOSED_NET);
        let all = expanded(&profiles, &own);
        assert_eq!(networks(&all).collect::<Vec<_>>(), ["sbx-1"]);
        assert_eq!(fault(&all, CLOSED_NET), None);
        take_off(&mut own, &profiles, "sbx-1", None);
        assert_eq!(own, Devices::new());
    }

    #[test]
    fn ipv6_is_opened_and_closed_while_it_runs() {
        let profiles = devices(&[("eth0", card("lan"))]);
        let open = Net {
            has_ipv6: true,
            ..CLOSED_NET
        };
        let mut own = Devices::new();
        for (wanted, other) in [(CLOSED_NET, open), (open, CLOSED_NET)] {
            put_on(&mut own, &profiles, wanted);
            let all = expanded(&profiles, &own);
            assert_eq!(fault(&all, wanted), None);
            let fault = fault(&all, other).expect("another policy's");
            assert!(fault.text.contains(HAS_IPV6.0) && !fault.restart, "{fault:?}");
        }
    }

    #[test]
    fn a_proxy_that_listens_inside_is_a_fault_and_goes() {
        let proxy = |bind: &str| {
            let pairs = [("type", "proxy"), ("bind", bind), ("listen", "tcp:127.0.0.1:9")];
            pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
        };
        let profiles = devices(&[("eth0", card("lan")), ("out", proxy("instance"))]);
        let mut own = devices(&[("mine", proxy("instance")), ("in", proxy("host"))]);
        put_on(&mut own, &profiles, CLOSED_NET);
        assert_eq!(fault(&expanded(&profiles, &own), CLOSED_NET), None);
        assert!(own.contains_key("in") && !own.contains_key("mine"));
        own.insert("mine".to_owned(), proxy("guest"));
        assert!(fault(&expanded(&profiles, &own), CLOSED_NET).is_some());
    }

    #[test]
    fn every_way_around_is_a_fault() {
        let profiles = devices(&[("eth0", card("lan"))]);
        let mut own = Devices::new();
        put_on(&mut own, &profiles, CLOSED_NET);
        let good = expanded(&profiles, &own);
        let mut second = good.clone();
        second.insert("eth1".to_owned(), card("lan"));
        assert!(fault(&second, CLOSED_NET).is_some_and(|fault| fault.text.contains("eth1 leads around it, to lan")));
        for key in CLOSED {
            let mut open = good.clone();
            open.get_mut("eth0").expect("it").remove(key);
            assert!(fault(&open, CLOSED_NET).is_some_and(|fault| fault.text.contains(key)));
        }
        let mut routed = good;
        routed
            .get_mut("eth0")
            .expect("it")
            .insert("ipv4.routes".to_owned(), "10.0.0.0/8".to_owned());
        assert!(fault(&routed, CLOSED_NET).is_some());
        put_on(
            &mut own,
            &profiles,
            Net {
                name: "sbx-2",
                ..CLOSED_NET
            },
        );
        assert_eq!(networks(&expanded(&profiles, &own)).collect::<Vec<_>>(), ["sbx-2"]);
    }
}
