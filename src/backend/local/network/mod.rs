//! The network of a sandbox: what joins its own network namespace to this machine's.
//!
//! For root, a pair of linked devices (veth(4)) and a table of nftables of the sandbox's own, which lets it out and
//! nobody in. For a user, the program `pasta`. Where neither can be had, the loopback device and nothing else.
//!
//! Nothing is recorded: names follow from the state folder and the sandbox's name, and what an interrupted call has
//! left is replaced at the next start and removed at the next stop. The devices end with the sandbox by themselves.

mod address;
mod nat;
mod pasta;
mod range;
mod wall;

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use rustix::thread::{CapabilitySet, capabilities};
use serde::{Deserialize, Serialize};

use super::ids::Ids;
use super::state::Lock;
use crate::backend::nft::Nft;
use crate::backend::watch::{Pass, Watch};
use crate::backend::{Error, ErrorKind, Result};
use crate::model::{Capability, Digest, Fault, InstanceName, PinnedPolicy};

pub(super) use crate::backend::netlink::Netlink;
pub use address::own_addresses;
pub(super) use address::{addresses, leads_out, name_servers};

/// What sandboxes can be joined by.
#[derive(Debug, Clone)]
pub(super) enum Network {
    /// Devices and address translation, by this program `nft`.
    Nat(Nft),
    /// This program `pasta`.
    Pasta(PathBuf),
    /// Nothing, for this reason.
    Loopback(String),
}

/// The sandbox's end of a pair of devices, for whoever can enter its namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Device {
    pub(super) name: String,
    /// One by IPv4, and one by IPv6 where this machine passes that on.
    pub(super) ends: Vec<End>,
}

/// An address, and the way from there to everywhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct End {
    pub(super) address: IpAddr,
    pub(super) gateway: IpAddr,
    /// The bits of the address that both ends share.
    pub(super) prefix: u8,
}

/// A sandbox, as the network knows it.
#[derive(Debug)]
pub(super) struct Subject<'a> {
    pub(super) name: &'a InstanceName,
    /// Its folder.
    pub(super) folder: &'a Path,
    /// What it may reach; everything when none.
    pub(super) policy: Option<PinnedPolicy>,
}

/// What has been done for a sandbox that is about to be joined: its range of addresses, behind its wall. Nobody else looks for
/// addresses until it has them.
#[derive(Debug)]
pub(super) struct Prepared(Option<(Lock, Ipv4Net)>);

/// What a user wants to know whose machine is offline.
pub(super) const NO_WAY_OUT: &str = "this machine has no way out now (no default route): what starts before it has one may \
                                     have the loopback device only, until its next start";

/// Why a policy cannot open IPv6, for root.
const NO_IPV6: &str = "this machine passes no IPv6 on, and to make it do so is yours: `sysctl net.ipv6.conf.all.forwarding=1`, and \
                       `net.ipv6.conf.DEVICE.accept_ra=2` before that where a router gives it its own addresses; or allow IPv4 \
                       addresses, or names that have some";

/// Held while an address is looked for: it must not be taken in between, by whatever state folder's sandbox.
const LOCK: &str = "/run/sbx-apply-network.lock";

impl Network {
    /// What this machine lets us use.
    pub(super) fn find(ids: Ids) -> Self {
        if ids.is_root() {
            let able = capabilities(None).is_ok_and(|own| own.effective.contains(CapabilitySet::NET_ADMIN));
            return match Nft::find() {
                _ if !able => Self::Loopback("this container may not change its network (CAP_NET_ADMIN)".to_owned()),
                Some(nft) => Self::Nat(nft),
                None => Self::Loopback("install the program nft (package nftables)".to_owned()),
            };
        }
        match program("pasta") {
            _ if !pasta::has_tunnels() => {
                Self::Loopback("you may not use /dev/net/tun; its mode is 0666 on most machines".to_owned())
            }
            Some(pasta) => Self::Pasta(pasta),
            None => Self::Loopback("install the program pasta (package passt)".to_owned()),
        }
    }

    /// Whether there is something to do at a start, when the first process waits.
    pub(super) fn joins(&self) -> bool {
        !matches!(self, Self::Loopback(_))
    }

    /// What a user wants to know before a sandbox is made.
    pub(super) fn remark(&self) -> Option<String> {
        match self {
            Self::Loopback(why) => Some(format!(
                "no network here but the loopback device: {why}"
            )),
            Self::Nat(_) if !nat::forwards() => Some(
                "a running sandbox needs net.ipv4.ip_forward=1 on this machine; starting one sets it, until the next boot"
                    .to_owned(),
            ),
            Self::Pasta(_) if !leads_out() => Some(NO_WAY_OUT.to_owned()),
            Self::Nat(_) | Self::Pasta(_) => None,
        }
    }

    /// Does what joining a sandbox takes before there is a process in it, and can be done meanwhile.
    pub(super) async fn prepare(&self, subject: &Subject<'_>) -> Result<Prepared> {
        let Self::Nat(nft) = self else {
            return Ok(Prepared(None));
        };
        let link = link(subject);
        let lock = Lock::take(Path::new(LOCK), true, "this machine's networks").await?;
        let wall = nat::wall(nft, &link, subject).await?;
        Ok(Prepared(Some((lock, wall))))
    }

    /// Joins a sandbox, by a process in its network namespace. Gives what is to be done from inside.
    pub(super) async fn join(&self, subject: &Subject<'_>, prepared: Prepared, pid: i32) -> Result<Option<Device>> {
        match (self, prepared.0) {
            // What closes everything for a user is to have no network.
            (Self::Pasta(program), None) if subject.policy.is_none() => {
                match pasta::start(program, &subject.folder.join(PASTA), pid).await {
                    // Where there is nothing to pass on to, older ones give up. A sandbox is of use all the same.
                    Err(error) if !leads_out() => {
                        tracing::warn!(
                            "`{}` has the loopback device only, until it is started again: {error}",
                            subject.name
                        );
                        Ok(None)
                    }
                    started => started.map(|()| None),
                }
            }
            (_, None) => Ok(None),
            (_, Some((_lock, range))) => nat::make(&link(subject), subject, range, pid).await.map(Some),
        }
    }

    /// Puts another policy in force on a sandbox that runs, by a process in its network namespace; and lets through what
    /// has a pass.
    pub(super) async fn update(&self, subject: &Subject<'_>, pid: i32, pass: Option<&Pass>) -> Result<()> {
        match (self, address(pid)) {
            (Self::Nat(nft), Some(address)) => {
                nat::update(nft, &link(subject), address, subject.policy.as_ref(), pass).await
            }
            // It has no way out, or starts again.
            _ => Ok(()),
        }
    }

    /// Whether sandboxes can be watched; an error that says why not.
    pub(super) fn watches(&self) -> Result<()> {
        let why = match self {
            Self::Nat(_) => return Ok(()),
            Self::Pasta(_) => "sandboxes of an ordinary user go out as that user, past all rules".to_owned(),
            Self::Loopback(why) => format!("sandboxes here have no network: {why}"),
        };
        Err(Error::unsupported(format!("nothing can be learned here: {why}"))
            .with_hint("learn as root, with the program nft, from a sandbox of root's"))
    }

    /// Begins to watch a sandbox that runs, by a process in its network namespace.
    pub(super) async fn watch(&self, subject: &Subject<'_>, pid: i32) -> Result<Watch> {
        self.watches()?;
        match (self, address(pid)) {
            (Self::Nat(nft), Some(address)) => {
                let ends = (address, range::gateway_of(address));
                Watch::begin(nft, &link(subject), ends, subject.policy.as_ref()).await
            }
            _ => Err(Error::new(ErrorKind::Invalid, "it has no address")
                .with_hint("start it again: what joined it to this machine's network is gone")),
        }
    }

    /// What is wrong with the enforcement of a running sandbox's policy.
    pub(super) async fn fault(&self, subject: &Subject<'_>, pid: i32) -> Option<Fault> {
        let policy = subject.policy.as_ref()?;
        match (self, address(pid)) {
            (Self::Nat(nft), Some(address)) => {
                let fault = nat::fault(nft, &link(subject), address, policy).await;
                // Only a start gives it one.
                let without = policy.has_ipv6() && !addresses(pid).iter().any(IpAddr::is_ipv6);
                let without =
                    without.then(|| Fault::restart("it has no IPv6 address, of before this machine passed IPv6 on"));
                fault.map(Fault::live).or(without)
            }
            // Only a start makes it.
            (Self::Nat(_), None) => Some(Fault::restart("its network device is gone")),
            _ => None,
        }
    }

    /// What policies can be kept by it, and why not others.
    pub(super) fn closes(&self) -> (Vec<Capability>, Vec<(Capability, &'static str)>) {
        use Capability as C;
        match self {
            Self::Nat(_) if nat::forwards_ipv6() => (vec![C::EgressHost, C::EgressNone, C::EgressIpv6], Vec::new()),
            Self::Nat(_) => (vec![C::EgressHost, C::EgressNone], vec![(C::EgressIpv6, NO_IPV6)]),
            Self::Pasta(_) | Self::Loopback(_) => {
                let why = "a policy that opens anything needs root and the program nft; here a sandbox can have `none` or everything";
                (vec![C::EgressNone], vec![(C::EgressHost, why), (C::EgressIpv6, why)])
            }
        }
    }

    /// Whether a policy takes hold with the next start only.
    pub(super) fn restarts(&self) -> bool {
        matches!(self, Self::Pasta(_))
    }

    /// Removes what joined a sandbox that has ended; nothing where nothing is left.
    pub(super) async fn part(&self, subject: &Subject<'_>) -> Result<()> {
        match self {
            Self::Loopback(_) => Ok(()),
            Self::Pasta(_) => pasta::end(&subject.folder.join(PASTA)),
            Self::Nat(nft) => nat::remove(nft, &link(subject)).await,
        }
    }
}

/// The IPv4 address that a process's network namespace has.
fn address(pid: i32) -> Option<Ipv4Addr> {
    addresses(pid).into_iter().find_map(|address| match address {
        IpAddr::V4(four) => Some(four),
        IpAddr::V6(_) => None,
    })
}

/// Where `pasta` puts its process's number, in a sandbox's folder.
const PASTA: &str = "pasta.pid";

/// A name for a sandbox's device and table on this machine, which nobody else comes upon: as long as one may be.
fn link(subject: &Subject<'_>) -> String {
    format!(
        "sbx{}",
        Digest::of(subject.folder.as_os_str().as_encoded_bytes()).short()
    )
}

/// A program of this machine, not of whoever set `PATH`.
fn program(name: &str) -> Option<PathBuf> {
    [
        "/usr/sbin",
        "/usr/bin",
        "/sbin",
        "/bin",
        "/usr/local/sbin",
        "/usr/local/bin",
    ]
    .iter()
    .map(|folder| Path::new(folder).join(name))
    .find(|path| path.is_file())
}
