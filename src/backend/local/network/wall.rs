//! The rules that let a sandbox out: all, or what its policy opens. In the words in which nft(8) prints them, so that
//! what is there can be compared.

use std::net::{IpAddr, Ipv4Addr};

use crate::model::{PinnedPolicy, PortRange, Protocol};

/// Every port.
const ALL: PortRange = PortRange {
    first: 1,
    last: u16::MAX,
};

/// The name of a sandbox's table.
pub(super) fn name(link: &str) -> String {
    format!("sbx-apply-{link}")
}

/// The table of a sandbox. All rules name the device, so that they mean no one else, whatever becomes of the addresses. Of
/// this machine, only its name servers answer, and under a policy nobody; link-local addresses are not to be routed
/// (RFC 3927) and are where clouds keep their secrets.
pub(super) fn table(link: &str, address: Ipv4Addr, servers: &[IpAddr], policy: Option<&PinnedPolicy>) -> String {
    let from = format!("iifname \"{link}\"");
    let mut machine = vec![format!("{from} ct state established,related accept")];
    let mut through = vec![
        format!("{from} ip saddr != {address} drop"),
        format!("{from} meta nfproto ipv6 drop"),
    ];
    match policy {
        None => {
            for server in four(servers) {
                for protocol in ["udp", "tcp"] {
                    machine.push(format!("{from} ip daddr {server} {protocol} dport 53 accept"));
                }
            }
            through.push(format!(
                "{from} ip daddr 169.254.0.0/16 reject with icmp port-unreachable"
            ));
        }
        Some(policy) => {
            through.push(format!("{from} ct state established,related accept"));
            through.extend(opened(policy).into_iter().map(|rule| format!("{from} {rule} accept")));
            through.push(format!("{from} drop"));
        }
    }
    machine.push(format!("{from} meta l4proto tcp reject with tcp reset"));
    machine.push(format!("{from} reject"));
    through.push(format!("oifname \"{link}\" ct state new reject"));
    let out = vec![format!("{from} oifname != \"{link}\" masquerade")];
    let chain = |name: &str, kind: &str, rules: Vec<String>| {
        let rules: Vec<String> = rules.into_iter().map(|rule| format!("    {rule}\n")).collect();
        format!(
            "  chain {name} {{\n    type {kind}; policy accept;\n{}  }}\n",
            rules.concat()
        )
    };
    format!(
        "table inet {} {{\n{}{}{}}}\n",
        name(link),
        chain("to-machine", "filter hook input priority filter", machine),
        chain("through", "filter hook forward priority filter", through),
        chain("out", "nat hook postrouting priority srcnat", out)
    )
}

/// What a policy opens, a rule for each network and protocol.
fn opened(policy: &PinnedPolicy) -> Vec<String> {
    let mut rules = Vec::new();
    for opening in &policy.open {
        let protocols = match opening.protocol {
            Some(protocol) => vec![protocol],
            None => vec![Protocol::Tcp, Protocol::Udp],
        };
        let ports = opening.ports.unwrap_or(ALL);
        for network in opening.networks(&policy.addresses) {
            let to = match network.prefix_len() {
                32 => network.addr().to_string(),
                0 => "0.0.0.0/0".to_owned(),
                _ => network.trunc().to_string(),
            };
            rules.extend(protocols.iter().map(|protocol| match to.as_str() {
                "0.0.0.0/0" => format!("meta nfproto ipv4 {protocol} dport {ports}"),
                to => format!("ip daddr {to} {protocol} dport {ports}"),
            }));
        }
    }
    rules
}

fn four(addresses: &[IpAddr]) -> impl Iterator<Item = Ipv4Addr> {
    addresses.iter().filter_map(|address| match address {
        IpAddr::V4(four) => Some(*four),
        IpAddr::V6(_) => None,
    })
}
