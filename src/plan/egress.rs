//! Outbound network policy: its facts, what stands in its way, and what is put in force.
//!
//! Names are compared by the addresses that are pinned. A name whose answers rotate is as it should be while any of
//! them is pinned, so that what is wanted stays what was applied; where none is any more, its addresses have moved.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::capability::enforcement;
use super::diff::{Diff, Fate, Subject};
use super::{FieldChange, Origin, Refusal};
use crate::model::{
    Capabilities, Capability, Desired, Destination, EgressMode, EgressRule, Enforcement, EnvironmentName, Facts, Field,
    GuestPath, Kind, Live, LiveInstance, LivePolicy, Opening, Origin as Source, Ownership, PinnedPolicy, Policy,
    PolicyKey, Sandbox, SandboxName, addresses_to_open,
};

/// The field that says whether there is a policy, and of which mode.
pub(super) const MODE: &str = "mode";
/// The field that names the policy.
pub(super) const POLICY: &str = "policy";
/// The field that says whether it is enforced as it should be.
pub(super) const ENFORCED: &str = "enforced";
/// Before what is open.
pub(super) const ALLOW: &str = "allow:";
/// Before a name whose addresses are pinned.
pub(super) const ADDRESSES: &str = "addresses:";

/// What [`ENFORCED`] says when all is well, outside the guest.
const YES: &str = "yes";
/// The same, inside.
const INSIDE: &str = "inside, best effort";
/// What a field of [`ALLOW`] says.
const OPEN: &str = "open";

/// Files of a guest that a policy inside rewrites, and a folder of its own.
const REWRITTEN: [&str; 2] = ["/etc/hosts", "/etc/inittab"];
const KEPT_INSIDE: &str = "/etc/sbx-apply/";

pub(super) fn field(field: impl Into<String>) -> Field {
    Field::of(Kind::Egress, "", field)
}

fn of_opening(opening: &Opening) -> Field {
    field(format!("{ALLOW}{opening}"))
}

fn of_name(name: &str) -> Field {
    field(format!("{ADDRESSES}{name}"))
}

/// The policy of a sandbox, where it closes anything.
pub(super) fn closing(sandbox: &Sandbox) -> Option<&Policy> {
    let policy = sandbox.egress.as_ref()?;
    (policy.mode != EgressMode::Unrestricted).then_some(policy)
}

/// What a spec says of it, but for addresses: see [`settle`].
pub(super) fn desired(facts: &mut Facts, sandbox: &Sandbox) {
    let Some(policy) = &sandbox.egress else { return };
    facts.set(field(MODE), policy.mode.as_str());
    if policy.mode == EgressMode::Unrestricted {
        return;
    }
    facts.set(field(POLICY), PolicyKey::name_of(&sandbox.name, policy.name.as_deref()));
    facts.set(field(ENFORCED), YES);
    for rule in &policy.allow {
        facts.set(of_opening(&rule.opening()), OPEN);
    }
}

/// Pins the names: to what was applied as long as any of their addresses is among it, else to what they resolve to
/// now. A name of the preset that resolves to nothing stays closed.
pub(super) fn settle(subject: &Subject<'_>, desired: &mut Facts, applied: &Facts) {
    let Some(policy) = closing(subject.sandbox) else { return };
    desired.set(field(ENFORCED), all_well(enforcement(policy, subject.capabilities)));
    for rule in &policy.allow {
        let name = match &rule.to {
            Destination::Domain(name) => name,
            Destination::Sandbox(peer) => {
                settle_peer(subject, desired, rule, peer);
                continue;
            }
            Destination::Network(_) => continue,
        };
        let now = usable(subject, name);
        let pinned = applied.get(&of_name(name)).filter(|pinned| {
            let pinned = addresses(pinned);
            now.is_empty() || pinned.iter().any(|address| now.contains(address))
        });
        match pinned {
            Some(pinned) => desired.set(of_name(name), pinned),
            None if now.is_empty() => drop(desired.unset(&of_opening(&rule.opening()))),
            None => desired.set(of_name(name), joined(&now)),
        }
    }
}

/// Another sandbox is opened at the address that it has now, or, while it has none, at the one that is open. One that is
/// not to run and has none stays closed.
fn settle_peer(subject: &Subject<'_>, desired: &mut Facts, rule: &EgressRule, peer: &SandboxName) {
    let name = rule.to.to_string();
    let now = usable(subject, &name);
    let open = subject.instance.and_then(|instance| instance.egress.as_ref());
    let open = open.and_then(|live| live.policy.addresses.get(&name)).cloned();
    let addresses = open.filter(|_| now.is_empty()).unwrap_or(now);
    if !addresses.is_empty() {
        desired.set(of_name(&name), joined(&addresses));
    } else if subject.dormant.contains(peer) {
        desired.unset(&of_opening(&rule.opening()));
    }
}

/// What is true of a name once its addresses are pinned, for the record.
#[must_use]
pub fn pinned_fact(name: &str, pinned: &BTreeSet<IpAddr>) -> (Field, Option<String>) {
    (of_name(name), Some(joined(pinned)))
}

/// What of a policy can be put in force at once: all but the sandboxes that have no address yet, which stay closed until
/// they do.
pub(super) fn known(mut policy: PinnedPolicy) -> PinnedPolicy {
    let addresses = &policy.addresses;
    policy
        .open
        .retain(|opening| opening.to.sandbox().is_none() || opening.networks(addresses).next().is_some());
    policy
}

/// What [`ENFORCED`] says when all is well.
fn all_well(enforce: Enforcement) -> &'static str {
    match enforce {
        Enforcement::Host => YES,
        Enforcement::Guest => INSIDE,
    }
}

/// Whether a policy of a sandbox may be found inside its instance, where no observation looks: one that the record or the
/// spec wants there, or, where no policy has been applied yet, whatever others have left.
#[must_use]
pub fn may_be_inside(sandbox: Option<&Sandbox>, instance: &LiveInstance, capabilities: &Capabilities) -> bool {
    let applied = instance.labels.applied();
    let wanted = sandbox.and_then(closing);
    let wants = |policy: &Policy| enforcement(policy, capabilities) == Enforcement::Guest;
    capabilities.can(Capability::EgressGuest)
        && (is_recorded_inside(&applied)
            || wanted.is_some_and(wants)
            || (wanted.is_some() && applied.get(&field(MODE)).is_none()))
}

/// The policy that was put in force inside an instance, as its record has it: for one into which nobody can look now. None
/// where there was none.
#[must_use]
pub fn recorded_inside(instance: &LiveInstance) -> Option<LivePolicy> {
    let Ownership::Owned { environment, .. } = instance.labels.ownership(&instance.name) else {
        return None;
    };
    let applied = instance.labels.applied();
    if !is_recorded_inside(&applied) {
        return None;
    }
    let of_egress = |prefix: &'static str| {
        let fields = applied.iter().filter(|(field, _)| field.kind == Kind::Egress);
        fields.filter_map(move |(field, value)| Some((field.field.strip_prefix(prefix)?, value)))
    };
    let open: BTreeSet<Opening> = of_egress(ALLOW).filter_map(|(text, _)| text.parse().ok()).collect();
    let pinned = of_egress(ADDRESSES).map(|(name, text)| (name.to_owned(), addresses(text)));
    Some(LivePolicy {
        policy: PinnedPolicy {
            key: PolicyKey {
                environment,
                name: applied.get(&field(POLICY))?.to_owned(),
            },
            enforce: Enforcement::Guest,
            addresses: pinned.collect(),
            open,
        },
        fault: None,
    })
}

/// Whether a record says that a policy which closes was put in force.
pub(super) fn is_recorded(applied: &Facts) -> bool {
    let mode = applied.get(&field(MODE));
    mode.is_some_and(|mode| mode != EgressMode::Unrestricted.as_str())
}

/// Whether a record says that a policy is enforced inside.
pub(super) fn is_recorded_inside(applied: &Facts) -> bool {
    applied.get(&field(ENFORCED)) == Some(INSIDE)
}

/// Whether a new sandbox comes with rules inside that were its source's, on the disk that it is a clone of.
pub(super) fn inherits(
    sandbox: &Sandbox,
    desired: &Desired,
    capabilities: &Capabilities,
    source: Option<&LiveInstance>,
) -> bool {
    let Source::Clone { snapshot, .. } = &sandbox.origin else {
        return false;
    };
    let declared = sandbox
        .source()
        .and_then(|name| desired.sandboxes.get(name))
        .and_then(closing);
    let wants = |policy: &Policy| enforcement(policy, capabilities) == Enforcement::Guest;
    let of_snapshot = source
        .zip(snapshot.as_ref())
        .and_then(|(source, name)| source.snapshot(name));
    declared.is_some_and(wants)
        || source.is_some_and(|source| is_inside(source) || is_recorded_inside(&source.labels.applied()))
        || of_snapshot.is_some_and(|snapshot| is_recorded_inside(&snapshot.labels.applied()))
}

/// Whether the policy that is found is enforced inside.
pub(super) fn is_inside(instance: &LiveInstance) -> bool {
    let found = instance.egress.as_ref();
    found.is_some_and(|found| found.policy.enforce == Enforcement::Guest)
}

/// The addresses of a name that its policy opens, of those that the backend can open.
pub(super) fn usable(subject: &Subject<'_>, name: &str) -> BTreeSet<IpAddr> {
    let all = subject.names.get(name).and_then(|resolved| resolved.as_ref().ok());
    let can = subject.capabilities.can(Capability::EgressIpv6);
    let all = all.into_iter().flatten().copied();
    let able: BTreeSet<IpAddr> = all.filter(|address| can || address.is_ipv4()).collect();
    let rules = closing(subject.sandbox).into_iter().flat_map(|policy| &policy.allow);
    let has_ipv6 = rules.into_iter().any(|rule| rule.opening().is_ipv6());
    addresses_to_open(&able, has_ipv6)
}

fn joined(addresses: &BTreeSet<IpAddr>) -> String {
    let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    texts.join(",")
}

fn addresses(text: &str) -> BTreeSet<IpAddr> {
    text.split(',').filter_map(|address| address.parse().ok()).collect()
}

/// What is in force, where the spec or the record says anything of it.
pub(super) fn live(facts: &mut Facts, instance: &LiveInstance, desired: &Facts, applied: &Facts) {
    let closes = |facts: &Facts| {
        facts
            .get(&field(MODE))
            .is_some_and(|mode| mode != EgressMode::Unrestricted.as_str())
    };
    let says = |facts: &Facts| facts.get(&field(MODE)).is_some();
    if !says(desired) && !says(applied) {
        return;
    }
    let Some(found) = &instance.egress else {
        // That there is none says all.
        facts.set(field(MODE), EgressMode::Unrestricted.as_str());
        let of_egress = |(found, _): &(&Field, &str)| found.kind == Kind::Egress && found.field != MODE;
        facts.extend(
            applied
                .iter()
                .filter(of_egress)
                .map(|(field, value)| (field.clone(), value.to_owned())),
        );
        return;
    };
    // The word for it is nowhere but in the record: what it opens is compared by itself.
    let recorded = [applied, desired].into_iter().find(|facts| closes(facts));
    let mode = recorded.and_then(|facts| facts.get(&field(MODE)));
    facts.set(field(MODE), mode.unwrap_or(EgressMode::Allowlist.as_str()));
    facts.set(field(POLICY), &*found.policy.key.name);
    facts.set(
        field(ENFORCED),
        found
            .fault
            .as_ref()
            .map_or(all_well(found.policy.enforce), |fault| fault.text.as_str()),
    );
    for opening in &found.policy.open {
        facts.set(of_opening(opening), OPEN);
    }
    for (name, pinned) in &found.policy.addresses {
        let field = of_name(name);
        // Where another sandbox is goes with its being open, and is nobody's word.
        let is_peer = is_peer(&field);
        if !is_peer || desired.get(&field).is_some() || applied.get(&field).is_some() {
            facts.set(field, joined(pinned));
        }
    }
}

/// Which side moved. That a name leads elsewhere is neither the spec's doing nor that of anybody here: drift. That it is
/// to lead nowhere any more is the spec's.
pub(super) fn origin(field: &Field, [wanted, applied, live]: [Option<&str>; 3], origin: Origin) -> Origin {
    let moved = wanted.is_some() && (is_address(field) && applied.is_some() || is_peer(field) && live.is_some());
    match origin {
        Origin::Pending | Origin::Conflict if moved => Origin::Drift,
        _ => origin,
    }
}

fn is_address(field: &Field) -> bool {
    field.kind == Kind::Egress && field.field.starts_with(ADDRESSES)
}

fn is_peer(field: &Field) -> bool {
    let name = is_address(field).then(|| field.field.strip_prefix(ADDRESSES)).flatten();
    name.is_some_and(|name| {
        name.parse::<Opening>()
            .is_ok_and(|opening| opening.to.sandbox().is_some())
    })
}

/// Whether names have moved, and nothing else has.
pub(super) fn has_moved(fields: &[FieldChange]) -> bool {
    let moved = |field: &FieldChange| is_address(&field.field) && field.before.is_some() && field.after.is_some();
    !fields.is_empty() && fields.iter().all(moved)
}

/// Whether the sandbox comes to lie on another network, where its policies are those of networks.
fn changes_network(fields: &[FieldChange]) -> bool {
    let unrestricted = |value: &Option<String>| {
        value
            .as_deref()
            .is_none_or(|mode| mode == EgressMode::Unrestricted.as_str())
    };
    fields.iter().any(|change| match change.field.field.as_str() {
        MODE => unrestricted(&change.before) != unrestricted(&change.after),
        POLICY => true,
        _ => false,
    })
}

/// Whether a field that left the spec is undone. The policy is lifted as a whole, which its mode says.
pub(super) fn is_undone(subject: &Subject<'_>, field: &Field, live: &Facts) -> bool {
    match field.field.as_str() {
        MODE => live.get(field) != Some(EgressMode::Unrestricted.as_str()),
        rule if rule.starts_with(ALLOW) || rule.starts_with(ADDRESSES) => closing(subject.sandbox).is_some(),
        _ => false,
    }
}

/// What is put in force when a change is carried out: what the spec wants, but for what is accepted as it is.
pub(super) fn pinned(subject: &Subject<'_>, diff: &Diff, environment: &EnvironmentName) -> Option<PinnedPolicy> {
    let policy = closing(subject.sandbox)?;
    let accepted = |field: &Field| diff.accepted.iter().find(|change| change.field == *field);
    let mut open: BTreeSet<Opening> = policy.allow.iter().map(EgressRule::opening).collect();
    open.retain(|opening| {
        let field = of_opening(opening);
        diff.desired.get(&field).is_some() && accepted(&field).is_none_or(|change| change.before.is_some())
    });
    open.extend(diff.accepted.iter().filter_map(|change| {
        let text = change
            .field
            .field
            .strip_prefix(ALLOW)
            .filter(|_| change.before.is_some())?;
        text.parse::<Opening>().ok()
    }));
    let name = |opening: &Opening| opening.to.pinned_as();
    let pin = |name: String| {
        let field = of_name(&name);
        let kept = accepted(&field).and_then(|change| change.before.as_deref());
        let pinned = addresses(kept.or(diff.desired.get(&field))?);
        Some((name, pinned))
    };
    Some(PinnedPolicy {
        key: PolicyKey::of(environment, &subject.sandbox.name, policy.name.as_deref()),
        enforce: enforcement(policy, subject.capabilities),
        addresses: open.iter().filter_map(name).filter_map(pin).collect(),
        open,
    })
}

/// What is true of it once it is in force.
pub(super) fn facts(diff: &Diff) -> Vec<(Field, Option<String>)> {
    let of_egress = |field: &&Field| field.kind == Kind::Egress;
    let gone = diff.applied.iter().map(|(field, _)| field).filter(of_egress);
    let gone = gone.filter(|field| diff.desired.get(field).is_none());
    let gone: Vec<(Field, Option<String>)> = gone.map(|field| (field.clone(), None)).collect();
    let accepted = |field: &Field| diff.accepted.iter().any(|change| change.field == *field);
    let set = diff
        .desired
        .iter()
        .filter(|(field, _)| of_egress(field) && !accepted(field));
    let set = set.map(|(field, value)| (field.clone(), Some(value.to_owned())));
    gone.into_iter().chain(set).collect()
}

/// The names that lead nowhere, each at its rule: an error, not a hole. Nobody wrote down those of the preset, so they
/// stay closed; but where not one of them leads anywhere, it is this machine that cannot resolve names.
pub(super) fn unresolved(subject: &Subject<'_>) -> Vec<Refusal> {
    let Some(policy) = closing(subject.sandbox) else {
        return Vec::new();
    };
    let mut refusals = Vec::new();
    let mut preset = (0, 0);
    for rule in &policy.allow {
        let Destination::Domain(name) = &rule.to else { continue };
        let leads = !usable(subject, name).is_empty();
        if rule.preset {
            preset = (preset.0 + 1, preset.1 + usize::from(leads));
            continue;
        }
        if leads {
            continue;
        }
        let (why, help) = match subject.names.get(name) {
            Some(Ok(all)) if !all.is_empty() => (
                format!("`{name}` has IPv6 addresses only, and IPv6 stays closed on this backend"),
                "allow a name with an IPv4 address".to_owned(),
            ),
            Some(Err(why)) => (
                format!("`{name}` does not resolve: {why}"),
                "names are resolved on this machine, and their addresses pinned: see that it resolves here".to_owned(),
            ),
            _ => (
                format!("`{name}` does not resolve: it has no address"),
                "names are resolved on this machine, and their addresses pinned: see that it resolves here".to_owned(),
            ),
        };
        refusals.push(Refusal::invalid(
            "plan::unresolved-name",
            why,
            &rule.at,
            "leads nowhere",
            help,
        ));
    }
    if preset.0 > 0 && preset.1 == 0 {
        refusals.push(Refusal::invalid(
            "plan::unresolved-name",
            "not one name of the `agent` preset resolves on this machine".to_owned(),
            &policy.at,
            "needs names",
            "names are resolved on this machine, and their addresses pinned: see that it can resolve names".to_owned(),
        ));
    }
    refusals
}

/// Whether a sandbox is stopped and started again for a change.
pub(super) fn restarts(subject: &Subject<'_>, instance: &LiveInstance, fields: &[FieldChange]) -> bool {
    let mended = fields.iter().any(|change| change.field.field == ENFORCED);
    let fault = instance.egress.as_ref().and_then(|live| live.fault.as_ref());
    let before = instance.egress.as_ref().map(|live| live.policy.enforce) == Some(Enforcement::Host);
    let after = closing(subject.sandbox).map(|policy| enforcement(policy, subject.capabilities));
    let after = after == Some(Enforcement::Host);
    let moves = (before || after) && (changes_network(fields) || (mended && before != after));
    (subject.capabilities.egress_restarts && moves) || (mended && fault.is_some_and(|fault| fault.restart))
}

/// Whether the spec itself brings the program that rules inside need.
pub(super) fn brings_program(sandbox: &Sandbox) -> bool {
    sandbox.files.keys().any(|path| path.as_str().ends_with("/nft"))
}

/// What keeps a policy from being enforced inside, as far as it can be seen before anything is changed.
pub(super) fn refusals(subject: &Subject<'_>, fate: Fate, live: &Live) -> Vec<Refusal> {
    let sandbox = subject.sandbox;
    let inside = |policy: &&Policy| enforcement(policy, subject.capabilities) == Enforcement::Guest;
    let Some(policy) = closing(sandbox).filter(inside) else {
        return Vec::new();
    };
    let mut refusals = Vec::new();
    let lacking = subject
        .instance
        .filter(|_| fate == Fate::Keep && !brings_program(sandbox));
    if let Some(why) = lacking.and_then(|instance| live.lacking_inside.get(&instance.name)) {
        refusals.push(Refusal::invalid(
            "plan::no-rules-inside",
            format!("no egress policy can be enforced inside `{}`: {why}", sandbox.name),
            &policy.at,
            "needed here",
            "make it of an image that has the package nftables, or have the policy enforced by the host".to_owned(),
        ));
    }
    let files = sandbox.files.iter().map(|(path, file)| (path.clone(), &file.at));
    let entries = sandbox.trees.iter().flat_map(|(root, tree)| {
        let entries = tree.entries.keys();
        entries.map(move |entry| (root.join(entry), &tree.at))
    });
    let ours = |path: &GuestPath| REWRITTEN.contains(&path.as_str()) || path.as_str().starts_with(KEPT_INSIDE);
    for (path, at) in files.chain(entries).filter(|(path, _)| ours(path)) {
        refusals.push(Refusal::invalid(
            "plan::no-rules-inside",
            format!("`{path}` belongs to the egress policy, which is enforced inside"),
            at,
            "declared here, too",
            "take it out of the spec: pinned names stand in /etc/hosts, and what loads the rules in /etc/inittab where \
             the init is busybox"
                .to_owned(),
        ));
    }
    refusals
}
