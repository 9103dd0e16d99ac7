//! Which addresses there are: of this machine, and inside a sandbox.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::Ipv4Net;

/// The addresses in the network namespace of a process that others could reach it by.
pub(in crate::backend::local) fn addresses(pid: i32) -> Vec<IpAddr> {
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/net/{file}")).unwrap_or_default();
    let four = routes(&read("fib_trie")).into_iter();
    let mut four: Vec<_> = four
        .filter(|route| route.local && route.range.prefix_len() == 32 && !route.range.addr().is_loopback())
        .map(|route| IpAddr::V4(route.range.addr()))
        .collect();
    // The kernel lists them once for each table that has them.
    four.sort();
    four.dedup();
    four.into_iter().chain(six(&read("if_inet6"))).collect()
}

/// The addresses that this machine itself has, but for loopback and link-local ones.
#[must_use]
pub fn own_addresses() -> Vec<IpAddr> {
    i32::try_from(std::process::id()).map(addresses).unwrap_or_default()
}

/// Whatever this machine has a way to, but the way to everywhere.
pub(super) fn taken() -> std::io::Result<Vec<Ipv4Net>> {
    let text = fs::read_to_string("/proc/self/net/fib_trie")?;
    let taken = routes(&text).into_iter().map(|route| route.range);
    Ok(taken.filter(|range| range.prefix_len() > 0).collect())
}

/// Whether this machine has a way to everywhere.
pub(in crate::backend::local) fn leads_out() -> bool {
    let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
    leads_out_by(&read("/proc/net/route"), &read("/proc/net/ipv6_route"))
}

/// The tables of routes: device, destination and more; and destination, length and more, the device last.
fn leads_out_by(four: &str, six: &str) -> bool {
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let to_all = |words: Vec<String>| {
        words
            .get(1)
            .zip(words.get(7))
            .is_some_and(|both| both == (&zeros(8), &zeros(8)))
    };
    let to_all_six = |words: Vec<String>| {
        words.first() == Some(&zeros(32))
            && words.get(1) == Some(&zeros(2))
            && words.last().is_some_and(|last| last != "lo")
    };
    four.lines().map(words).any(to_all) || six.lines().map(words).any(to_all_six)
}

fn zeros(count: usize) -> String {
    "0".repeat(count)
}

/// The name servers of this machine that can be reached from elsewhere. Where a resolver of its own stands before
/// them, those that it asks.
pub(in crate::backend::local) fn name_servers() -> Vec<IpAddr> {
    ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"]
        .iter()
        .map(|file| servers(&fs::read_to_string(file).unwrap_or_default()))
        .find(|found| !found.is_empty())
        .unwrap_or_default()
}

fn servers(text: &str) -> Vec<IpAddr> {
    text.lines()
        .filter_map(|line| line.strip_prefix("nameserver")?.trim().parse().ok())
        .filter(|address: &IpAddr| !address.is_loopback())
        .collect()
}

struct Route {
    range: Ipv4Net,
    /// Whether it is this machine itself.
    local: bool,
}

/// Routes of all tables, as `/proc/net/fib_trie` shows them: `|-- ADDRESS`, and below it a line `/BITS SCOPE TYPE` for
/// each length.
fn routes(text: &str) -> Vec<Route> {
    let mut routes = Vec::new();
    let mut address: Option<Ipv4Addr> = None;
    for line in text.lines().map(str::trim) {
        if let Some(leaf) = line.strip_prefix("|-- ") {
            address = leaf.parse().ok();
        } else if let Some(rest) = line.strip_prefix('/') {
            let mut words = rest.split_whitespace();
            let bits = words.next().and_then(|bits| bits.parse().ok());
            let range = address
                .zip(bits)
                .and_then(|(address, bits)| Ipv4Net::new(address, bits).ok());
            routes.extend(range.map(|range| Route {
                range,
                local: words.nth(1) == Some("LOCAL"),
            }));
        }
    }
    routes
}

/// Addresses of global scope, as `/proc/net/if_inet6` shows them: address, index, length, scope, flags, device.
fn six(text: &str) -> Vec<IpAddr> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let address = u128::from_str_radix(words.next()?, 16).ok()?;
            (words.nth(2)? == "00").then(|| IpAddr::V6(Ipv6Addr::from(address)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_on_this_machine_are_of_no_use_elsewhere() {
        let text = "# x\nnameserver 127.0.0.53\nnameserver 192.0.2.1\nnameserver ::1\nsearch corp\n";
        assert_eq!(servers(text), ["192.0.2.1".parse::<IpAddr>().expect("an address")]);
    }

    #[test]
    fn routes_of_all_tables_are_seen() {
        let text = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n     \
                    +-- 10.36.239.0/24 2 0 2\n        |-- 10.36.239.0\n           /24 link UNICAST\n           \
                    /32 link BROADCAST\n        |-- 10.36.239.1\n           /32 host LOCAL\nId 200:\n  |-- 10.9.0.0\n     \
                    /16 universe UNICAST\n";
        let all: Vec<_> = routes(text)
            .iter()
            .map(|route| (route.range.to_string(), route.local))
            .collect();
        let expected = [
            ("0.0.0.0/0", false),
            ("10.36.239.0/24", false),
            ("10.36.239.0/32", false),
            ("10.36.239.1/32", true),
            ("10.9.0.0/16", false),
        ];
        assert_eq!(all, expected.map(|(range, local)| (range.to_owned(), local)));
    }

    #[test]
    fn a_way_out_is_a_default_route() {
        let heading = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";
        let near = "eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        let far = "eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n";
        assert!(!leads_out_by(&format!("{heading}{near}"), ""));
        assert!(leads_out_by(&format!("{heading}{near}{far}"), ""));
        let none = format!(
            "{} 00 {} 00 {} ffffffff 00000001 00000000 00200200       lo\n",
            zeros(32),
            zeros(32),
            zeros(32)
        );
        assert!(!leads_out_by(heading, &none));
        assert!(leads_out_by(heading, &none.replace("lo", "eth0")));
    }

    #[test]
    fn addresses_of_global_scope_only() {
        let text = "00000000000000000000000000000001 01 80 10 80       lo\n\
                    fd000000000000000000000000000002 02 40 00 80     eth0\n\
                    fe8000000000000000fc00fffe000001 02 40 20 80     eth0\n";
        assert_eq!(six(text), ["fd00::2".parse::<IpAddr>().expect("an address")]);
    }
}
