//! A policy as a file for nft(8), and back. Pure.
//!
//! Its head says what it is of, in comments; the rules follow from that. So a line that somebody has changed makes either
//! another policy or a file that is not as it was written.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::INSIDE;
use crate::backend::nft::{NEIGHBOURS, opened};
use crate::backend::{Result, pinned};
use crate::model::{EnvironmentName, Opening, PinnedPolicy, PolicyKey};

pub(super) const TABLE: &str = "sbx-apply";

const HEAD: &str = "# The egress policy of this sandbox, kept by sbx-apply: what is changed here is drift.\n";
const POLICY: &str = "# policy ";
const ALLOW: &str = "# allow ";
const PINNED: &str = "# pinned ";

/// The table, in the words in which nft(8) prints it.
///
/// What goes out is looked at packet by packet, so that what a policy closes ends at once. What answers a connection from
/// outside may go: whoever asks for something is nobody's policy. A connection that was there before the rules does not
/// count as one, though the kernel would take it up in the middle: hence `incoming`. Nothing in it is printed by a name
/// that an image may not know (`/etc/protocols`).
pub(super) fn table(policy: &PinnedPolicy) -> String {
    let open: String = opened(policy)
        .into_iter()
        .map(|rule| format!("    {rule} accept\n"))
        .collect();
    // How it comes to an address and finds its router by IPv6: by itself, or by DHCP (RFC 8415).
    let basics = match policy.has_ipv6() {
        true => format!("    {NEIGHBOURS}\n    ip6 daddr ff02::1:2 udp sport 546 udp dport 547 accept\n"),
        false => String::new(),
    };
    format!(
        "table inet {TABLE} {{
  chain opened {{
{open}  }}
  chain incoming {{
    type filter hook input priority filter - 10; policy accept;
    iifname != \"lo\" ct state new tcp flags ack drop
  }}
  chain outgoing {{
    type filter hook output priority filter - 10; policy drop;
    oifname \"lo\" accept
    udp sport 68 udp dport 67 accept
{basics}    tcp dport 1-65535 ct state established ct direction reply accept
    jump opened
  }}
  chain through {{
    type filter hook forward priority filter - 10; policy drop;
    ct state established ct direction reply accept
    jump opened
  }}
}}
"
    )
}

/// What removes a table, also where there is none.
pub(super) fn without(table: &str) -> String {
    crate::backend::nft::without(table).replace('\n', ";")
}

/// The file that puts it in the place of what there is: all of it or nothing.
///
/// # Errors
/// A name that no line could hold, and an opening without an address.
pub(super) fn file(policy: &PinnedPolicy) -> Result<String> {
    pinned::check(policy)?;
    let mut text = HEAD.to_owned();
    text.push_str(&format!("{POLICY}{} {}\n", policy.key.environment, policy.key.name));
    for opening in &policy.open {
        text.push_str(&format!("{ALLOW}{opening}\n"));
    }
    for (name, addresses) in &policy.addresses {
        let all: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        text.push_str(&format!("{PINNED}{name} {}\n", all.join(" ")));
    }
    text.push_str(&crate::backend::nft::without(TABLE));
    text.push_str(&table(policy));
    Ok(text)
}

/// The policy that a file is of; none where it says none.
pub(super) fn read(text: &str) -> Option<PinnedPolicy> {
    let lines = |prefix: &'static str| text.lines().filter_map(move |line| line.strip_prefix(prefix));
    let (environment, name) = lines(POLICY).next()?.split_once(' ')?;
    let pinned = lines(PINNED).filter_map(|line| {
        let (name, addresses) = line.split_once(' ')?;
        let all: BTreeSet<IpAddr> = addresses.split(' ').filter_map(|text| text.parse().ok()).collect();
        Some((name.to_owned(), all))
    });
    Some(PinnedPolicy {
        key: PolicyKey {
            environment: EnvironmentName::new(environment).ok()?,
            name: name.to_owned(),
        },
        enforce: INSIDE,
        open: lines(ALLOW).filter_map(|text| text.parse::<Opening>().ok()).collect(),
        addresses: pinned.collect::<BTreeMap<_, _>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn policy() -> PinnedPolicy {
        let open = ["allowed.test:8080/tcp", "10.0.0.0/8", "0.0.0.0/0:53/udp"];
        let address = "198.51.100.10".parse().expect("an address");
        PinnedPolicy {
            key: PolicyKey {
                environment: EnvironmentName::new("demo").expect("a name"),
                name: "sandbox/one".to_owned(),
            },
            enforce: INSIDE,
            open: open.iter().map(|text| text.parse().expect("an opening")).collect(),
            addresses: BTreeMap::from([("allowed.test".to_owned(), BTreeSet::from([address]))]),
        }
    }

    #[test]
    fn a_file_reads_as_it_is_written() {
        let text = file(&policy()).expect("writes");
        assert_eq!(read(&text), Some(policy()));
        assert!(text.contains("ip daddr 198.51.100.10 tcp dport 8080 accept"), "{text}");
        assert_eq!(read("flush ruleset\n"), None);
    }

    #[test]
    fn no_name_can_add_a_rule() {
        for name in ["a\naccept", "", "a b", "A.example", "#"] {
            let mut policy = policy();
            policy.addresses.insert(name.to_owned(), BTreeSet::new());
            assert!(file(&policy).is_err(), "{name:?}");
        }
    }
}
