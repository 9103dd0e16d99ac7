//! The network and the ACL of a policy: their names, their settings, whose they are. Pure.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use super::rules::{self, Rule};
use crate::backend::incus::wire::{Config, nullable};
use crate::backend::{Result, unique_local};
use crate::model::{Digest, Enforcement, EnvironmentName, Fault, InstanceName, LivePolicy, PinnedPolicy, PolicyKey};

const ENVIRONMENT: &str = "user.sbx-apply.environment";
const PROJECT: &str = "user.sbx-apply.project";
const POLICY: &str = "user.sbx-apply.policy";
const DNS: &str = "raw.dnsmasq";
const ADDRESS: &str = "ipv4.address";
const ADDRESS6: &str = "ipv6.address";
/// What a description says before the policy's name, after it, and after the environment's.
const DESCRIPTION: (&str, &str, &str) = ("Egress policy ", " of the environment ", ", kept by sbx-apply");
/// The names of devices have 15 characters at most.
const PREFIX: &str = "sbx-";

/// A network.
#[derive(Debug, Clone, Deserialize)]
pub(in crate::backend::incus) struct Network {
    #[serde(default)]
    pub(super) name: String,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) config: Config,
    #[serde(default)]
    pub(super) managed: bool,
    #[serde(default)]
    status: String,
    #[serde(default)]
    pub(super) description: String,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) used_by: Vec<String>,
}

impl Network {
    /// Whether its making has ended well.
    pub(super) fn is_whole(&self) -> bool {
        self.status == "Created"
    }

    /// Whose it is; none where it is not ours, or another project's.
    pub(super) fn owner(&self, project: &str) -> Option<PolicyKey> {
        key(project, &self.config).or_else(|| self.announced_for(project))
    }

    /// The policy that it has been announced for to some members of a cluster, and never made: as after a kill in between. It
    /// cannot have labels yet, but that its name follows from the policy shows that it is ours.
    fn announced_for(&self, project: &str) -> Option<PolicyKey> {
        let said = self
            .description
            .strip_prefix(DESCRIPTION.0)?
            .strip_suffix(DESCRIPTION.2)?;
        let (policy, environment) = said.rsplit_once(DESCRIPTION.1)?;
        let key = PolicyKey {
            environment: EnvironmentName::new(environment).ok()?,
            name: policy.to_owned(),
        };
        (self.name == name(project, &key) && self.status == "Pending").then_some(key)
    }

    /// The instances that have a card on it.
    pub(super) fn users(&self) -> impl Iterator<Item = InstanceName> {
        let names = self
            .used_by
            .iter()
            .filter_map(|url| url.strip_prefix("/1.0/instances/"));
        names.map(|rest| InstanceName::observed(rest.split('?').next().unwrap_or_default()))
    }
}

/// A network's settings; those that are not named stay.
#[derive(Debug, Serialize)]
pub(super) struct NetworkPut {
    pub(super) config: Config,
    pub(super) description: String,
}

/// A new network.
#[derive(Debug, Serialize)]
pub(super) struct NetworksPost {
    pub(super) name: String,
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    #[serde(flatten)]
    pub(super) put: NetworkPut,
}

impl NetworksPost {
    /// What one member of a cluster is told of it: settings are those of all.
    pub(super) fn of_member(&self) -> Self {
        Self {
            name: self.name.clone(),
            kind: self.kind,
            put: NetworkPut {
                config: Config::new(),
                description: self.put.description.clone(),
            },
        }
    }
}

/// An ACL.
#[derive(Debug, Clone, Deserialize)]
pub(in crate::backend::incus) struct Acl {
    #[serde(default)]
    pub(super) name: String,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) config: Config,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) egress: Vec<Rule>,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) ingress: Vec<Rule>,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) used_by: Vec<String>,
}

/// What of an ACL can be written.
#[derive(Debug, Serialize)]
pub(super) struct AclPut {
    pub(super) config: Config,
    pub(super) description: String,
    pub(super) egress: Vec<Rule>,
    pub(super) ingress: Vec<Rule>,
}

/// A new ACL.
#[derive(Debug, Serialize)]
pub(super) struct AclsPost {
    pub(super) name: String,
    #[serde(flatten)]
    pub(super) put: AclPut,
}

/// The name that a policy's network and ACL have. It follows from what they are of, so that after a kill the same is
/// found again.
pub(super) fn name(project: &str, key: &PolicyKey) -> String {
    let digest = Digest::of(format!("{project}\0{}\0{}", key.environment, key.name).as_bytes());
    format!("{PREFIX}{}", digest.as_str().get(..11).unwrap_or_default())
}

/// Whether a network's name may be one of ours.
pub(in crate::backend::incus) fn may_be_ours(name: &str) -> bool {
    name.len() == 15 && name.starts_with(PREFIX)
}

fn labels(project: &str, key: &PolicyKey) -> Config {
    Config::from([
        (ENVIRONMENT.to_owned(), key.environment.to_string()),
        (PROJECT.to_owned(), project.to_owned()),
        (POLICY.to_owned(), key.name.clone()),
    ])
}

/// Whose a network or an ACL is; none where it is not ours, or another project's.
pub(super) fn key(project: &str, config: &Config) -> Option<PolicyKey> {
    (config.get(PROJECT).map(String::as_str) == Some(project)).then_some(())?;
    Some(PolicyKey {
        environment: EnvironmentName::new(config.get(ENVIRONMENT)?.as_str()).ok()?,
        name: config.get(POLICY)?.clone(),
    })
}

/// The ACL of a policy.
pub(super) fn acl(project: &str, policy: &PinnedPolicy) -> AclPut {
    AclPut {
        config: labels(project, &policy.key),
        description: described(&policy.key),
        egress: rules::rules(policy),
        ingress: Vec::new(),
    }
}

pub(super) fn described(key: &PolicyKey) -> String {
    let (before, between, after) = DESCRIPTION;
    format!("{before}{}{between}{}{after}", key.name, key.environment)
}

/// The network of a policy: what counts of it.
pub(super) fn network(project: &str, policy: &PinnedPolicy) -> Result<NetworkPut> {
    let mut config = labels(project, &policy.key);
    config.extend(fixed(&name(project, &policy.key), policy.has_ipv6()));
    config.insert(DNS.to_owned(), rules::dns(policy)?);
    Ok(NetworkPut {
        config,
        description: described(&policy.key),
    })
}

/// The settings that keep it closed. What comes in is nobody's policy: port isolation keeps neighbours apart, and whoever
/// answers has been asked. A policy that opens IPv6 has an own range of it, whose addresses are nobody else's, and those
/// inside choose theirs by the hardware address (SLAAC): the daemon lets a card send from that one alone.
fn fixed(name: &str, has_ipv6: bool) -> Config {
    let range = range6(name).to_string();
    let address = if has_ipv6 { range.as_str() } else { "none" };
    let mut set = vec![
        ("security.acls", name),
        ("security.acls.default.egress.action", "drop"),
        ("security.acls.default.ingress.action", "allow"),
        ("ipv4.nat", "true"),
        (ADDRESS6, address),
        ("dns.mode", "none"),
    ];
    if has_ipv6 {
        set.extend([
            ("ipv6.nat", "true"),
            ("ipv6.dhcp", "true"),
            ("ipv6.dhcp.stateful", "false"),
            ("ipv6.routing", "true"),
        ]);
    }
    set.into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// Whether a setting is by somebody's hand, and either leads around the policy, where it joins the network to another one, or
/// has the daemon take other IPv6 addresses for its sandboxes' than those that they have.
pub(super) fn is_foreign(setting: &str) -> bool {
    let ours = ["address", "nat", "dhcp", "dhcp.stateful", "routing"];
    let ipv6 = setting.strip_prefix("ipv6.");
    setting == "bridge.external_interfaces" || ipv6.is_some_and(|rest| !ours.contains(&rest))
}

/// The IPv6 range of a network, with the network's own address in it.
fn range6(name: &str) -> Ipv6Net {
    let range = unique_local::range(name);
    let own = Ipv6Addr::from(u128::from(range.network()) + 1);
    Ipv6Net::new_assert(own, range.prefix_len())
}

/// The setting that lets everything through, for while a table of ours keeps the policy.
pub(super) fn open() -> [(String, String); 1] {
    [("security.acls.default.egress.action".to_owned(), "allow".to_owned())]
}

/// What a network and its ACL keep in force.
pub(super) fn live(project: &str, network: &Network, acl: Option<&Acl>) -> Option<LivePolicy> {
    let key = key(project, &network.config)?;
    let (open, addresses) = rules::opened(acl.map(|acl| acl.egress.as_slice()).unwrap_or_default());
    let policy = PinnedPolicy {
        key,
        enforce: Enforcement::Host,
        open,
        addresses,
    };
    let fault = fault(project, network, acl, &policy).map(Fault::live);
    Some(LivePolicy { policy, fault })
}

fn fault(project: &str, network: &Network, acl: Option<&Acl>, policy: &PinnedPolicy) -> Option<String> {
    let Some(acl) = acl else {
        return Some("its network ACL is gone".to_owned());
    };
    if network.name != name(project, &policy.key) {
        return Some("its network has another name".to_owned());
    }
    for (setting, wanted) in fixed(&network.name, policy.has_ipv6()) {
        let found = network.config.get(&setting).map_or("", String::as_str);
        if found != wanted {
            return Some(format!("the network's {setting} is \"{found}\", not {wanted}"));
        }
    }
    if let Some(setting) = network.config.keys().find(|setting| is_foreign(setting)) {
        return Some(format!("the network has the setting {setting}"));
    }
    if key(project, &acl.config).as_ref() != Some(&policy.key) {
        return Some("its network ACL is another policy's".to_owned());
    }
    // What is allowed is told one by one; these would go before it.
    if acl.egress.iter().any(|rule| rule.action != "allow") || !acl.ingress.is_empty() {
        return Some("its network ACL has rules that drop or reject, or are for what comes in".to_owned());
    }
    let dns = network.config.get(DNS);
    match rules::dns(policy) {
        Ok(wanted) if dns == Some(&wanted) => None,
        _ => Some("the network's DNS server answers something else (raw.dnsmasq)".to_owned()),
    }
}

/// Where the network's own address is, and its range.
pub(super) fn range(network: &Network) -> Option<Ipv4Net> {
    network.config.get(ADDRESS)?.parse().ok()
}

/// Asks the daemon to choose a range.
pub(super) fn automatic() -> (String, String) {
    (ADDRESS.to_owned(), "auto".to_owned())
}

/// Ranges for a network, for a daemon that finds none by itself: private ones (RFC 1918) that no network of the daemon
/// has, in an order that follows from the name.
pub(super) fn candidates(name: &str, taken: &[Ipv4Net]) -> impl Iterator<Item = (String, String)> {
    let digest = Digest::of(name.as_bytes());
    let start = digest
        .as_str()
        .get(..6)
        .and_then(|text| u32::from_str_radix(text, 16).ok());
    let start = start.unwrap_or_default();
    (0..64_u32).filter_map(move |index| {
        let number = start.wrapping_add(index.wrapping_mul(7_919)) % (224 << 8);
        // From 10.16.0.0 on: the first are everybody's first choice.
        let address = Ipv4Addr::from_bits(0x0A10_0001 | (number << 8));
        let range = Ipv4Net::new(address, 24).ok()?;
        let free = taken
            .iter()
            .all(|other| !other.contains(&range.trunc()) && !range.contains(&other.trunc()));
        free.then(|| (ADDRESS.to_owned(), range.to_string()))
    })
}

/// The same settings, but for what does not matter.
pub(super) fn changed(put: &NetworkPut) -> NetworkPut {
    let mut config = put.config.clone();
    if let Some(dns) = config.get_mut(DNS) {
        dns.push_str("\n# again");
    }
    NetworkPut {
        config,
        description: put.description.clone(),
    }
}

/// A network's settings as they are.
pub(super) fn kept(network: &Network) -> NetworkPut {
    NetworkPut {
        config: network.config.clone(),
        description: network.description.clone(),
    }
}

/// With the settings of a network that a policy does not own: what a change must leave.
pub(super) fn merged(network: &Network, put: NetworkPut) -> NetworkPut {
    let mut config: BTreeMap<String, String> = network.config.clone();
    config.retain(|setting, _| !is_foreign(setting));
    config.extend(put.config);
    NetworkPut { config, ..put }
}
