//! What is worth knowing of a policy: holes that are easily overlooked, and rules that open nothing.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv6Net};

use super::capability::enforcement;
use super::diff::Subject;
use super::egress::{closing, is_recorded, usable};
use super::{Action, Change};
use crate::model::{
    Capability, Destination, EgressRule, Enforcement, Kind, Labels, LiveInstance, METADATA, METADATA_IPV6, Opening,
    Policy, SandboxName,
};

/// All that is given out of the internet by IPv6 (RFC 4291, section 2.4).
const WORLD: IpNet = IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3));

/// What is worth knowing of a policy that is about to be put in force: holes that are easily overlooked, and names of
/// the preset that stay closed.
pub(super) fn notices(subject: &Subject<'_>, changes: &[Change]) -> Vec<String> {
    let Some(policy) = closing(subject.sandbox) else {
        return Vec::new();
    };
    let mut notices = Vec::new();
    if changes.iter().any(|change| change.kind == Kind::Egress) {
        if enforcement(policy, subject.capabilities) == Enforcement::Guest {
            notices.push(
                "egress: enforced inside the sandbox, which is best effort: whoever is root in there can undo it"
                    .to_owned(),
            );
            let is_made = |change: &Change| {
                change.kind == Kind::Sandbox && matches!(change.action, Action::Create | Action::Replace)
            };
            let is_late = !subject.capabilities.can(Capability::FilesWhenStopped) && !subject.inherits_rules;
            if is_late && changes.iter().any(is_made) {
                notices.push(
                    "egress: its first start is open until the rules are put in, for this backend reaches files of running \
                     sandboxes only; nothing that the spec runs has run by then"
                        .to_owned(),
                );
            }
        }
        let is_lifted = |instance: &LiveInstance| {
            let applied = instance.labels.applied();
            instance.egress.is_none() && is_recorded(&applied) && instance.labels.is_true(Labels::COMPLETE)
        };
        if subject.instance.is_some_and(is_lifted) && !subject.look.unseen {
            notices.push(
                "egress: its policy was lifted by somebody's hand, or its card put on another network: until an apply, \
                 everything is open to it"
                    .to_owned(),
            );
        }
        for rule in policy.allow.iter().filter(|rule| !rule.preset) {
            notices.extend(easily_overlooked(subject, policy, rule));
        }
        notices.extend(overlapping(policy));
    }
    let asleep = policy.allow.iter().filter_map(|rule| rule.to.sandbox());
    let asleep: BTreeSet<&SandboxName> = asleep.filter(|peer| subject.dormant.contains(*peer)).collect();
    notices.extend(asleep.into_iter().map(|peer| {
        format!("egress: `{peer}` is declared as stopped, and is open only once an apply finds it with an address")
    }));
    let closed: BTreeSet<&str> = policy
        .allow
        .iter()
        .filter(|rule| rule.preset)
        .filter_map(|rule| match &rule.to {
            Destination::Domain(name) if usable(subject, name).is_empty() => Some(name.as_str()),
            _ => None,
        })
        .collect();
    if !closed.is_empty() {
        let names: Vec<&str> = closed.iter().copied().take(3).collect();
        let more = match closed.len() - names.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        notices.push(format!(
            "egress: of the `agent` preset, {}{more} do not resolve here and stay closed",
            names.join(", ")
        ));
    }
    notices
}

/// What one rule opens that nobody may have meant, or does not open that somebody may have.
fn easily_overlooked(subject: &Subject<'_>, policy: &Policy, rule: &EgressRule) -> Vec<String> {
    let networks: Vec<IpNet> = match &rule.to {
        Destination::Network(network) => vec![*network],
        Destination::Domain(name) => usable(subject, name).into_iter().map(IpNet::from).collect(),
        Destination::Sandbox(_) => return Vec::new(),
    };
    let to = rule.opening();
    let mut said = Vec::new();
    match networks.iter().map(IpNet::prefix_len).min() {
        Some(0) => said.push(format!(
            "egress: `{to}` opens every address, those of this machine's networks included"
        )),
        Some(1) => said.push(format!(
            "egress: `{to}` opens half of all addresses, those of this machine's networks among them, perhaps"
        )),
        _ if networks.iter().any(|network| network.contains(&WORLD)) => {
            said.push(format!("egress: `{to}` opens every address of the internet by IPv6"));
        }
        _ => {}
    }
    let metadata = METADATA_IPV6.map(IpAddr::from).into_iter();
    if metadata
        .chain([METADATA.into()])
        .any(|address| networks.iter().any(|network| network.contains(&address)))
    {
        said.push(format!(
            "egress: `{to}` opens the metadata service of clouds, which hands out credentials"
        ));
    }
    if networks.iter().any(|network| network.addr().is_loopback()) {
        said.push(format!(
            "egress: `{to}` leads to the sandbox itself, as every loopback address does, and opens nothing of this machine"
        ));
    }
    let own = subject
        .machine
        .iter()
        .find(|own| networks.iter().any(|network| IpNet::from(**own) == *network));
    if let Some(own) = own {
        let what = match enforcement(policy, subject.capabilities) {
            Enforcement::Host => "stays closed whatever a policy opens",
            Enforcement::Guest => "becomes open with all its services",
        };
        said.push(format!("egress: `{to}` leads to this machine ({own}), which {what}"));
    }
    said
}

/// Rules that another one opens already.
fn overlapping(policy: &Policy) -> Vec<String> {
    let covers = |wide: &Opening, narrow: &Opening| {
        let to = match (&wide.to, &narrow.to) {
            (Destination::Network(wide), Destination::Network(narrow)) => wide.contains(narrow),
            (wide, narrow) => wide == narrow,
        };
        let ports = match (wide.ports, narrow.ports) {
            (None, _) => true,
            (Some(wide), Some(narrow)) => wide.first <= narrow.first && narrow.last <= wide.last,
            (Some(_), None) => false,
        };
        to && ports && (wide.protocol.is_none() || wide.protocol == narrow.protocol)
    };
    let all: Vec<(Opening, bool)> = policy.allow.iter().map(|rule| (rule.opening(), rule.preset)).collect();
    let mut notices = Vec::new();
    for (index, (narrow, preset)) in all.iter().enumerate() {
        let wider = all.iter().enumerate().find(|(other, (wide, _))| {
            let twice = wide == narrow;
            *other != index && covers(wide, narrow) && (!twice || *other < index)
        });
        match wider {
            Some((_, (wide, _))) if wide == narrow && !preset => {
                notices.push(format!("egress: `{narrow}` is opened twice"));
            }
            Some((_, (wide, _))) if !preset => {
                notices.push(format!("egress: `{narrow}` adds nothing: `{wide}` opens it already"));
            }
            _ => {}
        }
    }
    notices
}
