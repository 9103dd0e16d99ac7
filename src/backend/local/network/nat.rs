//! A pair of devices, and the table that lets a sandbox out and nobody in.

use std::fs;
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::{Command, Stdio};

use ipnet::Ipv4Net;

use super::address::{name_servers, taken};
use super::{Device, Netlink, range};
use crate::backend::local::state::failed;
use crate::backend::{Error, ErrorKind, Result};
use crate::model::InstanceName;

/// What the sandbox's end is called inside.
const INSIDE: &str = "eth0";
const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

/// Whether this machine passes packets on.
pub(super) fn forwards() -> bool {
    fs::read_to_string(FORWARD).is_ok_and(|text| text.trim() == "1")
}

/// Joins a sandbox. Nobody else must look for addresses meanwhile.
pub(super) async fn make(nft: &Path, link: &str, name: &InstanceName, pid: i32) -> Result<Device> {
    let (nft, link, name) = (nft.to_owned(), link.to_owned(), name.clone());
    blocking(move || {
        let kernel = Netlink::open().map_err(|source| failed("cannot use the kernel's networks", source))?;
        let cannot = |source| failed(format!("cannot make the device {link}"), source);
        // A sandbox that has just ended may not have let go of it yet.
        kernel.remove(&link).map_err(cannot)?;
        let servers = name_servers();
        let mut all = taken().map_err(|source| failed("cannot see which addresses are free", source))?;
        all.extend(four(&servers).map(Ipv4Net::from));
        let range = range::choose(&link, &all).ok_or_else(|| {
            Error::new(
                ErrorKind::Failed,
                "no private range of addresses is free on this machine",
            )
            .with_hint("its routes take all of 10.0.0.0/8, 172.16.0.0/12 and 192.168.0.0/16")
        })?;
        let (here, there) = range::ends(range);
        // First, so that the device never is without.
        load(&nft, &table(&link, there, &servers))?;
        kernel.make_pair(&link, INSIDE, pid).map_err(cannot)?;
        kernel.describe(&link, &format!("sbx-apply {name}")).map_err(cannot)?;
        kernel.put_up(&link, here, range.prefix_len()).map_err(cannot)?;
        if !forwards() {
            fs::write(FORWARD, "1").map_err(|source| failed("cannot set net.ipv4.ip_forward", source))?;
        }
        Ok(Device {
            name: INSIDE.to_owned(),
            address: there,
            gateway: here,
            prefix: range.prefix_len(),
        })
    })
    .await
}

/// Removes device and table; nothing where there are none.
pub(super) async fn remove(nft: &Path, link: &str) -> Result<()> {
    let (nft, link) = (nft.to_owned(), link.to_owned());
    blocking(move || {
        let removed = Netlink::open().and_then(|kernel| kernel.remove(&link));
        removed.map_err(|source| failed(format!("cannot remove the device {link}"), source))?;
        load(&nft, &without(&link))
    })
    .await
}

/// What removes a table, also where there is none: deleting that is an error, so it is made first.
fn without(link: &str) -> String {
    format!("table inet sbx-apply-{link}\ndelete table inet sbx-apply-{link}\n")
}

/// The table of a sandbox, as nft(8) reads it: replaced as a whole. All rules name the device, so that they mean no one
/// else, whatever becomes of the addresses. Of this machine, only its name servers answer; link-local addresses are not
/// to be routed (RFC 3927) and are where clouds keep their secrets.
fn table(link: &str, address: Ipv4Addr, servers: &[IpAddr]) -> String {
    let mut ask = String::new();
    for server in four(servers) {
        for protocol in ["udp", "tcp"] {
            ask.push_str(&format!(
                "    iifname \"{link}\" ip daddr {server} {protocol} dport 53 accept\n"
            ));
        }
    }
    let without = without(link);
    format!(
        "{without}table inet sbx-apply-{link} {{
  chain to-machine {{
    type filter hook input priority filter; policy accept;
    iifname \"{link}\" ct state established,related accept
{ask}    iifname \"{link}\" meta l4proto tcp reject with tcp reset
    iifname \"{link}\" reject
  }}
  chain through {{
    type filter hook forward priority filter; policy accept;
    iifname \"{link}\" ip saddr != {address} drop
    iifname \"{link}\" meta nfproto ipv6 drop
    iifname \"{link}\" ip daddr 169.254.0.0/16 reject
    oifname \"{link}\" ct state new reject
  }}
  chain out {{
    type nat hook postrouting priority srcnat; policy accept;
    iifname \"{link}\" oifname != \"{link}\" masquerade
  }}
}}
"
    )
}

fn four(addresses: &[IpAddr]) -> impl Iterator<Item = Ipv4Addr> {
    addresses.iter().filter_map(|address| match address {
        IpAddr::V4(four) => Some(*four),
        IpAddr::V6(_) => None,
    })
}

/// Has `nft` do what a text says: all of it or nothing.
fn load(nft: &Path, text: &str) -> Result<()> {
    let run = || -> io::Result<std::process::Output> {
        let mut child = Command::new(nft)
            .args(["-f", "-"])
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(text.as_bytes())?;
        }
        child.wait_with_output()
    };
    let output = run().map_err(|source| failed(format!("cannot run {}", nft.display()), source))?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let said = String::from_utf8_lossy(&output.stderr);
            let first = said.lines().next().unwrap_or("it failed").trim();
            Err(Error::new(
                ErrorKind::Failed,
                format!("{} refuses the network's rules: {first}", nft.display()),
            ))
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(failed("cannot join the sandbox to a network", io::Error::other(error))))
}
