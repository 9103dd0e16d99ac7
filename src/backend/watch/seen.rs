//! The table that gives a pass and counts destinations. Pure.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use super::Pass;
use crate::model::{Connection, Protocol};

/// The set of destinations.
pub(super) const SET: &str = "seen";

/// The table's rules, on one line. What is already translated by somebody else's rules is seen before that.
pub(super) fn rules(device: &str, address: Ipv4Addr, pass: &Pass) -> String {
    let Pass { mark, port, .. } = pass;
    let from = format!("iifname \"{device}\" ip saddr {address}");
    let watch = [
        format!("{from} meta mark set {mark:#010x}"),
        format!("{from} ct state new ct mark set {mark:#010x}"),
        format!(
            "{from} ct state new meta l4proto {{ tcp, udp }} th dport != {{ 53, 67 }} \
             update @{SET} {{ ip daddr . meta l4proto . th dport }}"
        ),
    ];
    format!(
        "set {SET} {{ type ipv4_addr . inet_proto . inet_service; size 65535; flags dynamic; counter; }}; \
         chain watch {{ type filter hook prerouting priority mangle; policy accept; {}; }}; \
         chain dns {{ type nat hook prerouting priority dstnat - 10; policy accept; {from} udp dport 53 redirect to :{port}; }};",
        watch.join("; ")
    )
}

/// The elements of the set, as nft(8) lists them: `198.51.100.20 . tcp . 443 counter packets 2 bytes 120`.
pub(super) fn read(listed: &str) -> BTreeMap<Connection, u64> {
    let elements = listed.split_once("elements = {").map_or("", |(_, rest)| rest);
    let elements = elements.split('}').next().unwrap_or_default();
    elements.split(',').filter_map(element).collect()
}

fn element(text: &str) -> Option<(Connection, u64)> {
    let (key, counter) = text.split_once(" counter")?;
    let mut parts = key.split(" . ").map(str::trim);
    let to = parts.next()?.parse().ok()?;
    let protocol = match parts.next()? {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        _ => return None,
    };
    let port = parts.next()?.parse().ok()?;
    let packets = counter.split_whitespace().nth(1)?.parse().ok()?;
    Some((Connection { to, protocol, port }, packets))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listed_set_is_read() {
        let listed = "table inet t {\n\tset seen {\n\t\ttype ipv4_addr . inet_proto . inet_service\n\t\tcounter\n\
            \t\telements = { 127.0.0.1 . udp . 97 counter packets 1 bytes 29,\n\
            \t\t\t     198.51.100.20 . tcp . 443 counter packets 12 bytes 120 }\n\t}\n}\n";
        let found: Vec<_> = read(listed).into_iter().collect();
        assert_eq!(found.len(), 2);
        let (first, times) = &found[1];
        assert_eq!((first.to.octets(), first.port, *times), ([198, 51, 100, 20], 443, 12));
        assert_eq!(found[0].0.protocol, Protocol::Udp);
        assert!(read("table inet t {\n\tset seen {\n\t\tcounter\n\t}\n}\n").is_empty());
    }
}
