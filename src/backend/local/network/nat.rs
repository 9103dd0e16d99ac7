//! A pair of devices, and the table that lets a sandbox out and nobody in.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;

use super::address::{name_servers, taken};
use super::{Device, End, Netlink, Subject, range, wall};
use crate::backend::local::state::failed;
use crate::backend::nft::{Nft, fresh, without, words};
use crate::backend::watch::Pass;
use crate::backend::{Error, ErrorKind, Result};
use crate::model::PinnedPolicy;

/// What the sandbox's end is called inside.
const INSIDE: &str = "eth0";
const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";
const FORWARD_IPV6: &str = "/proc/sys/net/ipv6/conf/all/forwarding";

/// Whether this machine passes packets on.
pub(super) fn forwards() -> bool {
    is_on(FORWARD)
}

/// The same by IPv6. A machine that begins to do so listens to no router any more, which may be its own way out: so it is
/// not for us to switch on.
pub(super) fn forwards_ipv6() -> bool {
    is_on(FORWARD_IPV6)
}

fn is_on(switch: &str) -> bool {
    fs::read_to_string(switch).is_ok_and(|text| text.trim() == "1")
}

/// Chooses addresses for a sandbox and puts up its wall, so that its device never is without. Nobody else must look for
/// addresses until it has them.
pub(super) async fn wall(nft: &Nft, link: &str, subject: &Subject<'_>) -> Result<Ipv4Net> {
    let servers = name_servers();
    let range = free(link.to_owned(), servers.clone()).await?;
    let (_, there) = range::ends(range);
    let table = wall::table(link, there, &servers, subject.policy.as_ref(), None);
    // A stop leaves none, and to put one into another's place takes the kernel twice as long.
    if nft.load(format!("{}{table}", fresh(&wall::name(link)))).await.is_err() {
        load(nft, link, &table).await?;
    }
    Ok(range)
}

/// Joins a sandbox whose wall stands.
pub(super) async fn make(link: &str, subject: &Subject<'_>, range: Ipv4Net, pid: i32) -> Result<Device> {
    let ends = ends(link, range);
    let (link, name) = (link.to_owned(), subject.name.clone());
    blocking(move || {
        let kernel = Netlink::open().map_err(|source| failed("cannot use the kernel's networks", source))?;
        let cannot = |source| failed(format!("cannot make the device {link}"), source);
        kernel.make_pair(&link, INSIDE, pid).map_err(cannot)?;
        kernel.describe(&link, &format!("sbx-apply {name}")).map_err(cannot)?;
        for end in &ends {
            kernel.put_up(&link, end.gateway, end.prefix).map_err(cannot)?;
        }
        if !forwards() {
            fs::write(FORWARD, "1").map_err(|source| failed("cannot set net.ipv4.ip_forward", source))?;
        }
        Ok(Device {
            name: INSIDE.to_owned(),
            ends,
        })
    })
    .await
}

/// A sandbox's addresses, and this machine's beside them.
fn ends(link: &str, range: Ipv4Net) -> Vec<End> {
    let (here, there) = range::ends(range);
    let four = End {
        address: there.into(),
        gateway: here.into(),
        prefix: range.prefix_len(),
    };
    let (here, there, prefix) = range::ends_ipv6(link);
    let six = forwards_ipv6().then_some(End {
        address: there.into(),
        gateway: here.into(),
        prefix,
    });
    [four].into_iter().chain(six).collect()
}

/// A range of addresses that this machine has no way to. A device that a sandbox has just left goes first.
async fn free(link: String, servers: Vec<IpAddr>) -> Result<Ipv4Net> {
    blocking(move || {
        remove_device(&link)?;
        let mut all = taken().map_err(|source| failed("cannot see which addresses are free", source))?;
        all.extend(four(&servers).map(Ipv4Net::from));
        range::choose(&link, &all).ok_or_else(|| {
            Error::new(
                ErrorKind::Failed,
                "no private range of addresses is free on this machine",
            )
            .with_hint("its routes take all of 10.0.0.0/8, 172.16.0.0/12 and 192.168.0.0/16")
        })
    })
    .await
}

/// Puts other rules into the place of those that a sandbox has: all at once, so that it is never without.
pub(super) async fn update(
    nft: &Nft,
    link: &str,
    address: Ipv4Addr,
    policy: Option<&PinnedPolicy>,
    pass: Option<&Pass>,
) -> Result<()> {
    load(nft, link, &wall::table(link, address, &name_servers(), policy, pass)).await
}

/// What is wrong with the rules of a sandbox under a policy.
pub(super) async fn fault(nft: &Nft, link: &str, address: Ipv4Addr, policy: &PinnedPolicy) -> Option<String> {
    let name = wall::name(link);
    match nft.table(&name).await {
        Ok(Some(found)) if words(&found) == words(&wall::table(link, address, &name_servers(), Some(policy), None)) => {
            None
        }
        Ok(Some(_)) => Some(format!("its table {name} of nftables is another one")),
        Ok(None) => Some(format!("its table {name} of nftables is gone")),
        Err(error) => Some(format!("its rules cannot be read: {error}")),
    }
}

/// Removes device and table; nothing where there are none.
pub(super) async fn remove(nft: &Nft, link: &str) -> Result<()> {
    let device = link.to_owned();
    blocking(move || remove_device(&device)).await?;
    nft.load(without(&wall::name(link))).await
}

fn remove_device(link: &str) -> Result<()> {
    let removed = Netlink::open().and_then(|kernel| kernel.remove(link));
    removed.map_err(|source| failed(format!("cannot remove the device {link}"), source))
}

async fn load(nft: &Nft, link: &str, table: &str) -> Result<()> {
    nft.load(format!("{}{table}", without(&wall::name(link)))).await
}

fn four(addresses: &[IpAddr]) -> impl Iterator<Item = Ipv4Addr> {
    addresses.iter().filter_map(|address| match address {
        IpAddr::V4(four) => Some(*four),
        IpAddr::V6(_) => None,
    })
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(failed("cannot join the sandbox to a network", io::Error::other(error))))
}
