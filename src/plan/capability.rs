//! What a spec needs and a backend lacks.

use super::Refusal;
use crate::model::{
    Capabilities, Capability, EgressMode, EgressRule, Enforcement, FileState, Memory, Origin, Owner, Place, Policy,
    Sandbox,
};

/// What one sandbox asks of a backend that cannot do it, each at its place in the spec.
pub(super) fn lacking(sandbox: &Sandbox, capabilities: &Capabilities) -> Vec<Refusal> {
    let lacking = needs(sandbox, capabilities)
        .into_iter()
        .filter(|(capability, _, _)| !capabilities.can(*capability))
        .map(|(capability, what, place)| {
            let help = capabilities
                .reason(capability)
                .unwrap_or("take it out of the spec, or choose a backend that can");
            Refusal::invalid(
                "plan::unsupported",
                format!("the backend `{}` cannot do {what}", capabilities.backend),
                &place,
                "needed here",
                help.to_owned(),
            )
        });
    lacking.chain(unmarked(sandbox, capabilities)).collect()
}

/// Rules that name other sandboxes, of a policy that is enforced inside: whoever guards those knows nothing of it.
fn unmarked<'a>(sandbox: &'a Sandbox, capabilities: &Capabilities) -> impl Iterator<Item = Refusal> + use<'a> {
    let policy = sandbox.egress.as_ref();
    let policy = policy.filter(|policy| enforcement(policy, capabilities) == Enforcement::Guest);
    let rules = policy.into_iter().flat_map(|policy| &policy.allow);
    rules.filter(|rule| rule.to.sandbox().is_some()).map(|rule| {
        Refusal::invalid(
            "plan::unsupported",
            "a policy that is enforced inside cannot open another sandbox".to_owned(),
            &rule.at,
            "needs rules outside of both",
            "take it out, or enforce the policy outside of the guest, where the backend can".to_owned(),
        )
    })
}

/// Where a policy is enforced: where it says, else where the backend does it by itself.
pub(super) fn enforcement(policy: &Policy, capabilities: &Capabilities) -> Enforcement {
    policy.enforce.unwrap_or_else(|| capabilities.enforcement())
}

fn needs(sandbox: &Sandbox, capabilities: &Capabilities) -> Vec<(Capability, &'static str, Place)> {
    let mut needs = Vec::new();
    let mut need = |capability, what, place: &Place| needs.push((capability, what, place.clone()));
    if let Origin::Clone { snapshot, at, .. } = &sandbox.origin {
        match snapshot {
            Some(_) => need(Capability::CloneFromSnapshot, "clones of snapshots", at),
            None => need(Capability::CloneFromDisk, "clones of a sandbox without a snapshot", at),
        }
    }
    if let Some((_, at)) = &sandbox.cpu {
        need(Capability::CpuLimit, "CPU limits", at);
    }
    if let Some((memory, at)) = &sandbox.memory {
        match memory {
            Memory::Percent(_) => need(Capability::MemoryShare, "memory limits as a share of the host's", at),
            Memory::Bytes(_) => need(Capability::MemoryLimit, "memory limits", at),
        }
    }
    if let Some((_, at)) = &sandbox.disk {
        need(Capability::DiskSize, "disk sizes", at);
    }
    for (_, at) in sandbox.config.values() {
        need(Capability::Config, "backend settings", at);
    }
    if let Some(user) = &sandbox.user {
        need(Capability::Users, "users", &user.at);
    }
    for file in sandbox.files.values() {
        match file.state {
            FileState::Secret(_) => need(Capability::Secrets, "secret files", &file.at),
            _ => need(Capability::Files, "files", &file.at),
        }
        if file.owner != Owner::ROOT {
            need(Capability::Owners, "files of others than root", &file.at);
        }
    }
    for tree in sandbox.trees.values() {
        need(Capability::Files, "trees", &tree.at);
        if tree.owner != Owner::ROOT {
            need(Capability::Owners, "trees of others than root", &tree.at);
        }
    }
    for run in &sandbox.run {
        need(Capability::Exec, "set-up steps", &run.at);
    }
    if let Some(ready) = &sandbox.ready {
        need(Capability::Exec, "readiness checks", &ready.at);
    }
    for (_, at) in &sandbox.snapshots {
        need(Capability::Snapshots, "snapshots", at);
    }
    for mount in sandbox.mounts.values() {
        need(Capability::Mounts, "mounts", &mount.at);
    }
    for volume in sandbox.volumes.values() {
        need(Capability::Volumes, "volumes", &volume.at);
        if let Some((_, at)) = volume.size.as_ref().filter(|_| capabilities.can(Capability::Volumes)) {
            need(Capability::VolumeSize, "sizes of volumes", at);
        }
    }
    for port in &sandbox.ports {
        need(Capability::Ports, "ports", &port.at);
    }
    if let Some(policy) = sandbox
        .egress
        .as_ref()
        .filter(|policy| policy.mode != EgressMode::Unrestricted)
    {
        match policy.enforce {
            Some(Enforcement::Guest) => need(Capability::EgressGuest, "egress rules inside the guest", &policy.at),
            None if capabilities.enforcement() == Enforcement::Guest => {}
            _ if policy.allow.is_empty() => need(Capability::EgressNone, "egress policies", &policy.at),
            Some(Enforcement::Host) => need(Capability::EgressHost, "egress rules outside the guest", &policy.at),
            None => need(Capability::EgressHost, "egress rules", &policy.at),
        }
        let ipv6 = |rule: &&EgressRule| rule.opening().is_ipv6();
        for rule in policy.allow.iter().filter(ipv6) {
            need(Capability::EgressIpv6, "egress to IPv6 addresses", &rule.at);
        }
    }
    if let Some((_, at)) = &sandbox.ttl {
        need(Capability::Expiry, "expiry", at);
    }
    if let Some((_, at)) = &sandbox.target {
        need(Capability::Target, "placement on a cluster's members", at);
    }
    needs
}
