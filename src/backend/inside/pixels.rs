//! The layout that the tool pixels leaves in a guest, read as live state: lists of names and of networks, and a table that
//! opens their addresses. What it keeps is less than a policy here: every DNS server can be asked. Pure.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::Ipv4Net;

use super::{INSIDE, path, text_at};
use crate::backend::FileChange;
use crate::model::{Destination, EnvironmentName, Fault, Inspection, LivePolicy, Opening, PinnedPolicy, PolicyKey};

pub(super) const TABLE: &str = "pixels_egress";

const DOMAINS: &str = "/etc/pixels-egress-domains";
const CIDRS: &str = "/etc/pixels-egress-cidrs";
/// Its table; the file may be the guest's own, too.
const CONF: &str = "/etc/nftables.conf";
const SCRIPT: &str = "/usr/local/bin/pixels-resolve-egress.sh";

/// All that is looked at.
pub(super) const PATHS: [&str; 4] = [DOMAINS, CIDRS, CONF, SCRIPT];

/// Whether a guest has it. Names, be they none, are what pixels itself goes by.
pub(super) fn is_there(found: &Inspection) -> bool {
    text_at(found, DOMAINS).is_some()
}

/// The policy that it is of. `table` is what the packet filter of a running guest has, where that is known.
pub(super) fn live(found: &Inspection, table: Option<Option<String>>) -> Option<LivePolicy> {
    let lines = |at| {
        let text = text_at(found, at).unwrap_or_default().lines().map(str::trim);
        text.filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(str::to_owned)
    };
    let opening = |to| Opening {
        to,
        ports: None,
        protocol: None,
    };
    let names = lines(DOMAINS).map(|name| opening(Destination::Domain(name.to_ascii_lowercase())));
    let networks = lines(CIDRS).filter_map(|text| text.parse::<Ipv4Net>().ok());
    let networks = networks.map(|network| opening(Destination::Network(network.trunc().into())));
    let why = match &table {
        Some(None) => "pixels keeps it, and its packet filter has no such rules",
        _ => "pixels keeps it: every DNS server can be asked, and names are not pinned",
    };
    Some(LivePolicy {
        policy: PinnedPolicy {
            key: PolicyKey {
                environment: EnvironmentName::new("pixels").ok()?,
                name: PolicyKey::LEFT_BY_PIXELS.to_owned(),
            },
            enforce: INSIDE,
            open: names.chain(networks).collect::<BTreeSet<_>>(),
            addresses: BTreeMap::new(),
        },
        fault: Some(Fault::live(why)),
    })
}

/// What takes it off, where there is any of it. Its rules for sudo are its user's.
pub(super) fn removals(found: &Inspection) -> Vec<FileChange> {
    let ours = |at: &&&str| match **at {
        CONF => text_at(found, CONF).is_some_and(|text| text.contains(TABLE)),
        at => found.get(&path(at)).is_some(),
    };
    let there = PATHS.iter().filter(ours);
    there.map(|at| FileChange::Remove { path: path(at) }).collect()
}
