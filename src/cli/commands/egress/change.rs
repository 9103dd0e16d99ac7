//! `egress set`, `allow` and `deny`: a policy changed in between.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr};

use clap::ValueEnum;

use super::super::super::Code;
use super::super::super::error::Error;
use super::super::super::interrupt::Interrupts;
use super::super::super::lock::{LockArgs, Place, Worked};
use super::super::super::sandbox::{Found, Named, find};
use super::super::super::session;
use super::super::super::settings::Settings;
use crate::apply::{Lock, scope_of};
use crate::backend::{Sandboxes, resolve};
use crate::model::{
    Capability, Destination, Enforcement, Opening, PinnedPolicy, PolicyKey, Protocol, SandboxName, Status,
    addresses_to_open, agent_preset,
};
use crate::spec;

/// What a sandbox may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Anything
    Unrestricted,
    /// What the agent preset lists, and what is open already
    Agent,
    /// What is open already, and nothing else
    Allowlist,
    /// Nothing
    None,
}

/// Arguments of `egress set`.
#[derive(Debug, clap::Args)]
#[command(override_usage = "sbx-apply egress set [OPTIONS] [SPEC] <SANDBOX> <MODE>")]
pub(super) struct SetArgs {
    /// Spec, as everywhere, the sandbox's name in it, and unrestricted, agent, allowlist or none
    #[arg(value_name = "SPEC SANDBOX MODE", num_args = 1..=3, required = true)]
    words: Vec<OsString>,

    #[command(flatten)]
    lock: LockArgs,
}

/// Arguments of `egress allow`.
#[derive(Debug, clap::Args)]
#[command(override_usage = "sbx-apply egress allow [OPTIONS] [SPEC] <SANDBOX> <DESTINATION>")]
pub(super) struct AllowArgs {
    /// Spec, as everywhere, the sandbox's name in it, and a host name, an address, a network, or
    /// sandbox/NAME for another sandbox
    #[arg(value_name = "SPEC SANDBOX DESTINATION", num_args = 1..=3, required = true)]
    words: Vec<OsString>,

    /// This port or range of ports alone
    #[arg(long, value_name = "PORT")]
    port: Option<String>,

    /// This protocol alone: tcp or udp
    #[arg(long, value_name = "P", value_parser = ["tcp", "udp"])]
    protocol: Option<String>,

    #[command(flatten)]
    lock: LockArgs,
}

/// Arguments of `egress deny`.
#[derive(Debug, clap::Args)]
#[command(override_usage = "sbx-apply egress deny [OPTIONS] [SPEC] <SANDBOX> <DESTINATION>")]
pub(super) struct DenyArgs {
    /// Spec, as everywhere, the sandbox's name in it, and a host name, an address, a network, or
    /// sandbox/NAME for another sandbox: every port of it is closed
    #[arg(value_name = "SPEC SANDBOX DESTINATION", num_args = 1..=3, required = true)]
    words: Vec<OsString>,

    #[command(flatten)]
    lock: LockArgs,
}

/// Puts a mode in force.
pub(super) async fn set(args: &SetArgs, settings: &Settings) -> Result<Code, Error> {
    let named = Named::of(&args.words, &["MODE"])?;
    let mode = Mode::from_str(&named.rest[0], false).map_err(|_| {
        Error::usage(
            format!("`{}` is no mode", named.rest[0]),
            "the modes are unrestricted, agent, allowlist and none",
        )
    })?;
    change(settings, &named, &args.lock, async |found, backend| {
        if mode == Mode::Unrestricted {
            return Ok(None);
        }
        let mut policy = policy_of(found, backend);
        if mode == Mode::None {
            policy.open.clear();
            policy.addresses.clear();
        }
        if mode == Mode::Agent {
            for opening in agent_preset().iter().flat_map(|entry| &entry.open) {
                // What does not resolve stays closed: nobody asked for it by its name.
                let _ = open(&mut policy, opening, found, backend).await;
            }
        }
        Ok(Some(policy))
    })
    .await
}

/// Opens a destination.
pub(super) async fn allow(args: &AllowArgs, settings: &Settings) -> Result<Code, Error> {
    let named = Named::of(&args.words, &["DESTINATION"])?;
    let to = destination(&named.rest[0])?;
    let ports = match &args.port {
        Some(text) => Some(spec::ports(text).ok_or_else(|| {
            Error::usage(
                format!("`{text}` is no port"),
                "a port is a number from 1 to 65535, a range is two of them: 8000-8100",
            )
        })?),
        None => None,
    };
    let protocol = match args.protocol.as_deref() {
        Some("tcp") => Some(Protocol::Tcp),
        Some(_) => Some(Protocol::Udp),
        None => None,
    };
    let opening = Opening { to, ports, protocol };
    change(settings, &named, &args.lock, async |found, backend| {
        let mut policy = closed(found)?;
        open(&mut policy, &opening, found, backend).await?;
        Ok(Some(policy))
    })
    .await
}

/// Closes a destination.
pub(super) async fn deny(args: &DenyArgs, settings: &Settings) -> Result<Code, Error> {
    let named = Named::of(&args.words, &["DESTINATION"])?;
    let to = destination(&named.rest[0])?;
    change(settings, &named, &args.lock, async |found, _| {
        let mut policy = closed(found)?;
        let before = policy.open.len();
        policy.open.retain(|opening| opening.to != to);
        if policy.open.len() == before {
            let open: Vec<String> = policy.open.iter().map(|opening| opening.to.to_string()).collect();
            return Err(Error::usage(
                format!("`{to}` is not open on `{}`", found.name),
                match open.is_empty() {
                    true => "nothing is".to_owned(),
                    false => format!("open are: {}", open.join(", ")),
                },
            ));
        }
        if let Some(name) = to.pinned_as() {
            policy.addresses.remove(&name);
        }
        Ok(Some(policy))
    })
    .await
}

fn destination(text: &str) -> Result<Destination, Error> {
    // As it is shown.
    let of_sandbox = Destination::of_pinned(text);
    if of_sandbox.sandbox().is_some() {
        return Ok(of_sandbox);
    }
    spec::destination(text).map_err(|(message, help)| Error::usage(message, help))
}

/// The policy in force, which must be one that closes.
fn closed(found: &Found) -> Result<PinnedPolicy, Error> {
    let live = found.instance.egress.as_ref();
    live.map(|live| live.policy.clone()).ok_or_else(|| {
        Error::usage(
            format!("`{}` has no egress policy: everything is open", found.name),
            "put one in force first: `sbx-apply egress set SANDBOX none`, or write it into the spec and apply",
        )
    })
}

/// The policy in force, or one of its own that closes everything.
fn policy_of(found: &Found, backend: &dyn Sandboxes) -> PinnedPolicy {
    if let Some(live) = &found.instance.egress {
        return live.policy.clone();
    }
    PinnedPolicy {
        key: PolicyKey::of(found.environment(), &found.name, None),
        enforce: backend.capabilities().enforcement(),
        open: BTreeSet::new(),
        addresses: BTreeMap::new(),
    }
}

async fn open(
    policy: &mut PinnedPolicy,
    opening: &Opening,
    found: &Found,
    backend: &dyn Sandboxes,
) -> Result<(), Error> {
    if let Destination::Sandbox(peer) = &opening.to {
        let address = address_of(policy, peer, found, backend).await?;
        let pinned = BTreeSet::from([IpAddr::V4(address)]);
        policy.addresses.insert(opening.to.to_string(), pinned);
    }
    if let Destination::Domain(name) = &opening.to {
        let ipv6 = backend.capabilities().can(Capability::EgressIpv6);
        let found = resolve(name).await;
        let found =
            found.map_err(|why| Error::usage(format!("`{name}` does not resolve: {why}"), "is it spelt right?"))?;
        let able: BTreeSet<_> = found.into_iter().filter(|address| ipv6 || address.is_ipv4()).collect();
        let usable = addresses_to_open(&able, policy.open.iter().any(Opening::is_ipv6));
        if usable.is_empty() {
            return Err(Error::usage(
                format!("`{name}` has no address that this backend can open"),
                "it opens no IPv6: a name needs an IPv4 address there",
            ));
        }
        policy.addresses.insert(name.clone(), usable);
    }
    policy.open.insert(opening.clone());
    Ok(())
}

/// Where another sandbox is, if the policy can open it.
async fn address_of(
    policy: &PinnedPolicy,
    peer: &SandboxName,
    found: &Found,
    backend: &dyn Sandboxes,
) -> Result<Ipv4Addr, Error> {
    if policy.enforce == Enforcement::Guest {
        return Err(Error::usage(
            "a policy that is enforced inside cannot open another sandbox".to_owned(),
            "that needs rules outside of both",
        ));
    }
    let instance = found.instance_of(peer).ok_or_else(|| {
        Error::usage(
            format!("no sandbox is named `{peer}`"),
            "is it spelt right, and is it made?",
        )
    })?;
    if *instance == found.instance.name || found.under(&policy.key).any(|other| other == instance) {
        return Err(Error::usage(
            format!("`{peer}` is under this very policy, and those that share one do not reach each other"),
            "give it a policy of its own",
        ));
    }
    let address = backend.address_of(instance).await?;
    address.ok_or_else(|| {
        Error::usage(
            format!("`{peer}` has no address that its host knows of"),
            "does it run, on a network of the backend's own?",
        )
    })
}

/// Changes a policy under the lock, and says whom that concerns.
async fn change(
    settings: &Settings,
    named: &Named,
    lock: &LockArgs,
    edit: impl AsyncFn(&Found, &dyn Sandboxes) -> Result<Option<PinnedPolicy>, Error>,
) -> Result<Code, Error> {
    let loaded = session::load(settings, &named.spec)?;
    let desired = &loaded.desired;
    let interrupts = Interrupts::listen();
    let backend = interrupts.guard(session::open(settings, &desired.backend)).await??;
    // A name that is none, and one that is not ours, are told before anybody is kept waiting.
    interrupts.guard(find(&*backend, &loaded, &named.sandbox)).await??;
    let place = Place {
        environment: &desired.environment,
        scope: scope_of(desired),
        doing: "egress",
    };
    let work = async |_: &Lock| {
        let found = find(&*backend, &loaded, &named.sandbox).await?;
        let mut policy = edit(&found, &*backend).await?;
        // Where there was none, the spec says where it is to be enforced.
        let declared = desired
            .sandboxes
            .get(&found.name)
            .and_then(|sandbox| sandbox.egress.as_ref());
        if let (None, Some(policy), Some(enforce)) = (
            &found.instance.egress,
            &mut policy,
            declared.and_then(|declared| declared.enforce),
        ) {
            policy.enforce = enforce;
        }
        let by_host = |policy: Option<&PinnedPolicy>| policy.is_some_and(|policy| policy.enforce == Enforcement::Host);
        let before = found.instance.egress.as_ref().map(|live| &live.policy);
        let moves = by_host(before) != by_host(policy.as_ref());
        if moves && backend.capabilities().egress_restarts && found.instance.status != Status::Stopped {
            return Err(Error::usage(
                format!(
                    "`{}` runs, and would have to be stopped to be put on another network",
                    found.name
                ),
                "write it into the spec and apply, which does so; or stop the sandbox first",
            ));
        }
        let concerned = match &policy {
            Some(policy) => found.sharing(&policy.key),
            None => vec![found.name.to_string()],
        };
        backend.set_policy(&found.instance.name, policy.as_ref()).await?;
        // Each guest has its own copy of what it is to keep.
        if let Some(policy) = policy.filter(|policy| policy.enforce == Enforcement::Guest) {
            for other in found.under(&policy.key).filter(|other| **other != found.instance.name) {
                backend.set_policy(other, Some(&policy)).await?;
            }
        }
        Ok(Worked::whole(concerned))
    };
    let concerned = lock.under(settings, &interrupts, &backend, place, work).await?;
    backend.close().await?;
    settings.output.note(&format!(
        "Changed what can be reached from {}. It is drift until the spec says the same.",
        concerned.join(", ")
    ));
    Ok(Code::Done)
}
