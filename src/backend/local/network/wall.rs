//! The rules that let a sandbox out: all, or what its policy opens. In the words in which nft(8) prints them, so that
//! what is there can be compared.

use std::net::{IpAddr, Ipv4Addr};

use super::range;
use crate::backend::nft::{NEIGHBOURS, PEER, answers, is_ipv6, opened};
use crate::backend::watch::Pass;
use crate::model::{METADATA_IPV6, PinnedPolicy};

/// The name of a sandbox's table.
pub(super) fn name(link: &str) -> String {
    format!("sbx-apply-{link}")
}

/// The table of a sandbox. All rules name the device, so that they mean no one else, whatever becomes of the addresses. Of
/// this machine, only its name servers answer, and under a policy nobody; link-local addresses are not to be routed
/// (RFC 3927) and are where clouds keep their secrets.
///
/// Nobody gets in but who comes from a sandbox whose own policy opens this one by its name: what has its mark. What
/// answers comes back as long as that is open.
///
/// While it is watched, what has a pass goes through.
pub(super) fn table(
    link: &str,
    address: Ipv4Addr,
    servers: &[IpAddr],
    policy: Option<&PinnedPolicy>,
    pass: Option<&Pass>,
) -> String {
    let from = format!("iifname \"{link}\"");
    let with_pass = |rules: fn(&Pass) -> Vec<String>| {
        let rules = pass.map(rules).unwrap_or_default();
        rules
            .into_iter()
            .map(|rule| format!("{from} {rule}"))
            .collect::<Vec<_>>()
    };
    let mut machine = with_pass(Pass::to_machine);
    machine.push(format!("{from} ct state established,related accept"));
    let accepted = |rules: Vec<String>| rules.into_iter().map(|rule| format!("{from} {rule} accept"));
    let all = policy.map(opened).unwrap_or_default().into_iter();
    let (open_ipv6, open): (Vec<String>, Vec<String>) = all.partition(|rule| is_ipv6(rule));
    let mut through = vec![format!("{from} ip saddr != {address} drop")];
    if policy.is_none_or(PinnedPolicy::has_ipv6) {
        machine.push(format!("{from} {NEIGHBOURS}"));
        through.push(format!("{from} ip6 saddr != {} drop", range::ends_ipv6(link).1));
    }
    // No pass opens more of IPv6.
    through.extend(accepted(open_ipv6));
    through.extend(policy.map(|_| format!("{from} meta nfproto ipv6 drop")));
    through.extend(with_pass(Pass::through));
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
            through.extend(METADATA_IPV6.map(|address| format!("{from} ip6 daddr {address} reject")));
        }
        Some(_) => {
            // Packet by packet, and not by connection: what is closed ends at once.
            through.extend(accepted(open));
            through.push(format!("{from} ct direction reply ct mark {PEER} accept"));
            through.push(format!("{from} drop"));
        }
    }
    machine.push(format!("{from} meta l4proto tcp reject with tcp reset"));
    machine.push(format!("{from} reject"));
    through.extend(
        answers(policy)
            .into_iter()
            .map(|rule| format!("oifname \"{link}\" {rule}")),
    );
    through.push(format!("oifname \"{link}\" ct state new ct mark != {PEER} reject"));
    // Before the rules of whoever it leads to are asked.
    let to_peers = policy.map(opened).unwrap_or_default().into_iter();
    let to_peers = to_peers
        .filter(|rule| rule.ends_with(PEER))
        .map(|rule| format!("{from} {rule}"));
    let to_peers: Vec<String> = to_peers.collect();
    let out = vec![format!("{from} oifname != \"{link}\" masquerade")];
    let chain = |name: &str, kind: &str, rules: Vec<String>| {
        let rules: Vec<String> = rules.into_iter().map(|rule| format!("    {rule}\n")).collect();
        format!(
            "  chain {name} {{\n    type {kind}; policy accept;\n{}  }}\n",
            rules.concat()
        )
    };
    format!(
        "table inet {} {{\n{}{}{}{}}}\n",
        name(link),
        chain("to-sandboxes", "filter hook forward priority filter - 5", to_peers),
        chain("to-machine", "filter hook input priority filter", machine),
        chain("through", "filter hook forward priority filter", through),
        chain("out", "nat hook postrouting priority srcnat", out)
    )
}

fn four(addresses: &[IpAddr]) -> impl Iterator<Item = Ipv4Addr> {
    addresses.iter().filter_map(|address| match address {
        IpAddr::V4(four) => Some(*four),
        IpAddr::V6(_) => None,
    })
}
