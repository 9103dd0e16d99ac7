//! Watching what a sandbox asks for, for backends that enforce policies by this machine's packet filter.
//!
//! A table that the kernel removes with this process gives the sandbox's packets a pass: a mark, which the lasting rules
//! of its backend let through. So whatever becomes of this process, what it has opened is closed again, and no rule has
//! to be put back for that. Destinations are counted in a set of that table. DNS questions, to whatever server, come to
//! a server of ours, which answers them as this machine resolves names.

mod connections;
mod dns;
mod seen;

use std::net::{IpAddr, Ipv4Addr};

use super::Result;
use super::nft::{Held, Nft};
use crate::model::{Connection, Learned, PinnedPolicy};

/// Marks of packets and connections: these bits, and a port's number. None of them is what opens sandboxes to each other
/// (`nft::PEER`).
const MARK: u32 = 0x7377_0000;

/// What lets a watched sandbox's packets through.
#[derive(Debug, Clone)]
pub(super) struct Pass {
    mark: u32,
    /// Our DNS server.
    server: Ipv4Addr,
    port: u16,
}

impl Pass {
    /// Whom to ask for names.
    pub(super) fn server(&self) -> Ipv4Addr {
        self.server
    }

    /// Conditions and verdicts for what is meant for this machine: our DNS server, and what is over.
    pub(super) fn to_machine(&self) -> Vec<String> {
        let Self { mark, server, port } = self;
        vec![
            self.over(),
            format!("meta mark {mark:#010x} ip daddr {server} udp dport {port} accept"),
        ]
    }

    /// Conditions and verdicts for what is passed on: everywhere, but to link-local addresses, where clouds keep their
    /// secrets.
    pub(super) fn through(&self) -> Vec<String> {
        let mark = self.mark;
        vec![
            self.over(),
            format!("meta mark {mark:#010x} ip daddr 169.254.0.0/16 reject with icmp port-unreachable"),
            format!("meta mark {mark:#010x} accept"),
        ]
    }

    /// What was begun with a pass does not go on without.
    fn over(&self) -> String {
        let mark = self.mark;
        format!("ct mark {mark:#010x} meta mark != {mark:#010x} drop")
    }
}

/// A sandbox that is watched. When this is gone, it has no pass any more.
#[derive(Debug)]
pub(super) struct Watch {
    nft: Nft,
    table: String,
    held: Held,
    dns: dns::Server,
    pass: Pass,
}

impl Watch {
    /// Begins: for what comes from a device of this machine with an address, whose other end has the address `gateway`.
    /// `policy` is what is in force, whose other sandboxes go on having names.
    pub(super) async fn begin(
        nft: &Nft,
        device: &str,
        (address, gateway): (Ipv4Addr, Ipv4Addr),
        policy: Option<&PinnedPolicy>,
    ) -> Result<Self> {
        let four = |address: &IpAddr| match address {
            IpAddr::V4(four) => Some(*four),
            IpAddr::V6(_) => None,
        };
        let peers = policy.into_iter().flat_map(PinnedPolicy::peers);
        let known = peers.map(|(name, all)| (name.to_owned(), all.iter().filter_map(four).collect()));
        let dns = dns::Server::start(gateway, known.collect()).await?;
        let pass = Pass {
            mark: MARK | u32::from(dns.port()),
            server: gateway,
            port: dns.port(),
        };
        let table = format!("sbx-apply-watch-{device}");
        let held = nft.hold(&table, &seen::rules(device, address, &pass)).await?;
        Ok(Self {
            nft: nft.clone(),
            table,
            held,
            dns,
            pass,
        })
    }

    /// What its backend's rules have to let through meanwhile.
    pub(super) fn pass(&self) -> &Pass {
        &self.pass
    }

    /// Ends, and gives what was asked for. The backend's rules are to be as they were before: connections that were begun
    /// with the pass are forgotten, so that none of them goes on.
    pub(super) async fn end(self) -> Result<Learned> {
        let listed = self.nft.set(&self.table, seen::SET).await;
        self.held.end().await;
        let forgotten = connections::forget(self.pass.mark);
        let mut connections = seen::read(&listed?);
        // What nobody can open: this machine's end, and what means many.
        let is_somebody = |to: Ipv4Addr| !to.is_multicast() && !to.is_broadcast() && !to.is_unspecified();
        connections.retain(|Connection { to, .. }, _| *to != self.pass.server && is_somebody(*to));
        forgotten?;
        Ok(Learned {
            names: self.dns.end(),
            connections,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::nft::PEER;

    #[test]
    fn no_pass_opens_another_sandbox() {
        let peer = u32::from_str_radix(PEER.trim_start_matches("0x"), 16).expect("a number");
        assert_ne!(peer >> 16, MARK >> 16);
    }
}
