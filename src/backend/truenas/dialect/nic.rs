//! Which of the system's interfaces a sandbox's network card hangs on.
//!
//! A card on the system's own bridge is behind its address translation, where nothing reaches it; so by default it goes
//! where the system's default route goes.

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::json;

use super::Places;
use crate::backend::truenas::client::Client;
use crate::backend::{Error, ErrorKind, Result};

/// What stands for the bridge that the system itself gives.
const OWN: &str = "default";

/// A card to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Card {
    /// The interface.
    pub(super) parent: String,
    /// Whether it joins a bridge, and is no MAC-VLAN.
    pub(super) bridged: bool,
}

#[derive(Debug, Deserialize)]
struct Interface {
    name: String,
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    aliases: Vec<Alias>,
    #[serde(default)]
    state: State,
}

#[derive(Debug, Default, Deserialize)]
struct State {
    /// Those that DHCP gave, too.
    #[serde(default)]
    aliases: Vec<Alias>,
}

#[derive(Debug, Deserialize)]
struct Alias {
    #[serde(default)]
    address: String,
    /// A number of bits, also as a text; absent for link-layer addresses.
    #[serde(default)]
    netmask: serde_json::Value,
}

impl Alias {
    fn network(&self) -> Option<IpNet> {
        let bits = match &self.netmask {
            serde_json::Value::String(text) => text.parse().ok()?,
            bits => u8::try_from(bits.as_u64()?).ok()?,
        };
        IpNet::new(self.address.parse().ok()?, bits).ok()
    }
}

#[derive(Debug, Deserialize)]
struct Summary {
    #[serde(default)]
    default_routes: Vec<String>,
}

/// The card of new sandboxes; none where the system's own bridge is asked for.
pub(super) async fn card(client: &Client, places: &Places) -> Result<Option<Card>> {
    if places.network.as_deref() == Some(OWN) {
        return Ok(None);
    }
    let interfaces: Vec<Interface> = client
        .read("interface.query", json!([]))
        .await
        .map_err(|error| error.within("cannot list the network interfaces"))?;
    let card = |parent: &str, kind: &str| {
        let bridged = match places.nic.as_deref() {
            Some(nic) => nic == "bridged",
            None => kind == "BRIDGE",
        };
        Some(Card {
            parent: parent.to_owned(),
            bridged,
        })
    };
    if let Some(name) = &places.network {
        let found = interfaces.iter().find(|interface| interface.name == *name);
        let found = found.ok_or_else(|| {
            let names: Vec<&str> = interfaces.iter().map(|interface| interface.name.as_str()).collect();
            Error::not_found(format!("the system has no network interface `{name}`")).with_hint(format!(
                "name one of {}, or `{OWN}` for the system's own bridge, with the setting `network`",
                names.join(", ")
            ))
        })?;
        return Ok(card(name, &found.kind));
    }
    let summary: Summary = client.read("network.general.summary", json!([])).await?;
    match of_route(&interfaces, &summary.default_routes) {
        Some(interface) => Ok(card(&interface.name, &interface.kind)),
        None => Err(Error::new(
            ErrorKind::NotFound,
            "it cannot be told which network interface leads out: no default route goes over one",
        )
        .with_hint(format!(
            "name one with the setting `network`, or `{OWN}` for the system's own bridge"
        ))),
    }
}

/// Where cards hang, for people.
pub(super) fn told(card: &Option<Card>) -> String {
    match card {
        Some(card) if card.bridged => format!("the bridge {}", card.parent),
        Some(card) => format!("MAC-VLANs on {}", card.parent),
        None => "the system's own bridge, which nothing outside it reaches".to_owned(),
    }
}

/// The interface on whose network a default route's gateway is; a bridge before what it is made of.
fn of_route<'a>(interfaces: &'a [Interface], routes: &[String]) -> Option<&'a Interface> {
    let gateways: Vec<std::net::IpAddr> = routes.iter().filter_map(|route| route.parse().ok()).collect();
    let leads_out = |interface: &&Interface| {
        let networks = interface.aliases.iter().chain(&interface.state.aliases);
        let mut networks = networks.filter_map(Alias::network);
        networks.any(|network| gateways.iter().any(|gateway| network.contains(gateway)))
    };
    let mut found: Vec<&Interface> = interfaces.iter().filter(leads_out).collect();
    found.sort_by_key(|interface| interface.kind != "BRIDGE");
    found.first().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_route_is_found_by_configured_and_dhcp_addresses() {
        let interfaces: Vec<Interface> = serde_json::from_value(json!([
            { "name": "lo", "type": "PHYSICAL", "aliases": [], "state": { "aliases": [
                { "type": "INET", "address": "127.0.0.1", "netmask": 8 }] } },
            { "name": "eno1", "type": "PHYSICAL", "aliases": [], "state": { "aliases": [
                { "type": "LINK", "address": "aa:bb" },
                { "type": "INET", "address": "192.168.1.9", "netmask": "24" }] } },
            { "name": "br0", "type": "BRIDGE", "aliases": [
                { "type": "INET", "address": "10.0.0.9", "netmask": 16 }], "state": {} }
        ]))
        .expect("interfaces");
        let of = |route: &str| of_route(&interfaces, &[route.to_owned()]).map(|found| found.name.as_str());
        assert_eq!(of("192.168.1.1"), Some("eno1"));
        assert_eq!(of("10.0.1.1"), Some("br0"));
        assert_eq!(of("172.16.0.1"), None);
    }
}
