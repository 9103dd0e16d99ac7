//! What Incus leaves open on its own host, closed.
//!
//! Before any ACL, the daemon lets every network reach port 53 of the host, at whatever address (6.0 to 7.3:
//! `nftablesNetACLSetup`). There the DNS servers of its other networks listen, which ask the world: names, and what can
//! be hidden in names, would get out. No setting of the API closes that. Whoever is root on the daemon's host can, with a
//! table of nftables of its own for each policy's network.
//!
//! The daemon also lets go on what was open when a policy closed it, because it looks at connections. The table looks at
//! every packet.

use std::path::Path;

use ipnet::Ipv4Net;
use tokio::task::spawn_blocking;

use super::remains;
use crate::backend::nft::{NEIGHBOURS, Nft, PEER, answers, is_ipv6, opened, without, words};
use crate::backend::watch::Pass;
use crate::backend::{Error, ErrorKind, Result};
use crate::model::PinnedPolicy;

/// What Incus leaves open, for people.
const HOLES: &str = "Incus lets every network ask the DNS servers that its host runs for other networks, and a sandbox whose \
                     policy opens IPv6 take what is sent to its neighbours by that";

/// Closes what Incus leaves open, where this process may.
#[derive(Debug)]
pub(in crate::backend::incus) struct Guard(Option<Nft>);

impl Guard {
    /// For a daemon behind a socket of this machine, or one elsewhere.
    pub(in crate::backend::incus) fn new(here: bool) -> Self {
        let root = rustix::process::geteuid().is_root();
        Self((here && root).then(Nft::find).flatten())
    }

    /// What stays open where this process may not.
    pub(in crate::backend::incus) fn remark(&self) -> Option<String> {
        let only = "only sbx-apply as root on that host closes this, with the program nft";
        self.0.is_none().then(|| format!("egress: {HOLES}; {only}"))
    }

    /// What stays open on the members of a cluster besides the one that this is run on.
    pub(in crate::backend::incus) fn remark_on_cluster(&self, member: &str) -> Option<String> {
        let closed = format!("that is closed on this member of the cluster, {member}, and not on the others");
        self.0.as_ref().map(|_| format!("egress: {HOLES}; {closed}"))
    }

    /// The program that changes the rules of the daemon's host.
    pub(super) fn program(&self) -> Result<&Nft> {
        self.0.as_ref().ok_or_else(|| {
            Error::unsupported("nothing can be learned from here: that takes rules on the daemon's host".to_owned())
                .with_hint("learn as root on the daemon's host, through its socket, with the program nft")
        })
    }

    /// Keeps a network's policy in the place of its ACL, but for what has a pass.
    pub(super) async fn let_through(
        &self,
        network: &str,
        range: Ipv4Net,
        (policy, pass): (&PinnedPolicy, &Pass),
    ) -> Result<()> {
        let rules = watched(network, range, policy, pass);
        self.program()?
            .load(format!("{}{rules}", without(&table(network))))
            .await
    }

    /// Closes it for a network.
    pub(super) async fn close(&self, network: &str, range: Option<Ipv4Net>, policy: &PinnedPolicy) -> Result<()> {
        let Some((nft, range)) = self.0.as_ref().zip(range).filter(|_| is_here(network)) else {
            return Ok(());
        };
        if self.fault(network, Some(range), policy).await.is_some() {
            nft.load(format!("{}{}", without(&table(network)), rules(network, range, policy)))
                .await?;
        }
        Ok(())
    }

    /// Removes what a network has left that the daemon knows no more.
    pub(super) async fn clear(&self, network: &str) -> Result<()> {
        let failed = || {
            Error::new(
                ErrorKind::Failed,
                format!("the device `{network}` of a network that is no more stands in the way"),
            )
            .with_hint(format!(
                "on the daemon's host, as root: end its dnsmasq, and `ip link delete {network}`"
            ))
        };
        match &self.0 {
            Some(_) => {
                let name = network.to_owned();
                let removed = spawn_blocking(move || remains::remove(&name)).await;
                removed
                    .unwrap_or_else(|error| Err(error.into()))
                    .map_err(|source| failed().with_source(source))
            }
            None => Err(failed()),
        }
    }

    /// Takes that back, when the network is gone.
    pub(super) async fn open(&self, network: &str) -> Result<()> {
        match &self.0 {
            Some(nft) => nft.load(without(&table(network))).await,
            None => Ok(()),
        }
    }

    /// What is not closed that this process could close.
    pub(super) async fn fault(&self, network: &str, range: Option<Ipv4Net>, policy: &PinnedPolicy) -> Option<String> {
        let (nft, range) = self.0.as_ref().zip(range).filter(|_| is_here(network))?;
        let found = nft.table(&table(network)).await;
        let found = match &found {
            Ok(Some(found)) => found,
            Ok(None) => return Some("the host's other DNS servers can be reached".to_owned()),
            Err(error) => return Some(format!("the host's rules cannot be read: {error}")),
        };
        match words(found) == words(&rules(network, range, policy)) {
            true => None,
            false => Some(format!("the host's table {} is another one", table(network))),
        }
    }
}

/// Whether the network's device is one of this machine.
pub(super) fn is_here(network: &str) -> bool {
    Path::new("/sys/class/net").join(network).exists()
}

fn table(network: &str) -> String {
    format!("sbx-apply-{network}")
}

/// The table, in the words in which nft(8) prints it.
fn rules(network: &str, range: Ipv4Net, policy: &PinnedPolicy) -> String {
    let open = opened(policy).into_iter();
    let open: String = open
        .map(|rule| format!("    iifname \"{network}\" {rule} accept\n"))
        .collect();
    let back = back(network, policy);
    let neighbours = match policy.has_ipv6() {
        true => format!("    iifname \"{network}\" {NEIGHBOURS}\n"),
        false => String::new(),
    };
    format!(
        "table inet {} {{
  chain to-host {{
    type filter hook input priority filter - 10; policy accept;
{neighbours}    iifname \"{network}\" meta nfproto ipv6 drop
    iifname \"{network}\" udp dport 67 accept
    iifname \"{network}\" ip daddr != {} drop
  }}
  chain through {{
    type filter hook forward priority filter - 10; policy accept;
{open}    iifname \"{network}\" ct direction reply ct mark {PEER} accept
    iifname \"{network}\" drop
{back}  }}
}}
",
        table(network),
        range.addr()
    )
}

/// What may come back from other sandboxes.
fn back(network: &str, policy: &PinnedPolicy) -> String {
    let rules = answers(Some(policy)).into_iter();
    rules
        .map(|rule| format!("    oifname \"{network}\" {rule}\n"))
        .collect()
}

/// The table while somebody is watched: the same, and what the network's ACL keeps otherwise. What is open to other
/// sandboxes goes by their mark, and so before the pass.
fn watched(network: &str, range: Ipv4Net, policy: &PinnedPolicy, pass: &Pass) -> String {
    let from = format!("iifname \"{network}\"");
    let own = range.addr();
    let accepted = |rules: Vec<String>| rules.into_iter().map(|rule| format!("{rule} accept"));
    // Nothing is learned of IPv6: what the policy opens stays as it is, and no pass opens more.
    let (ipv6, open): (Vec<String>, Vec<String>) = opened(policy).into_iter().partition(|rule| is_ipv6(rule));
    let closed = "meta nfproto ipv6 drop".to_owned();
    let (to_peers, open): (Vec<String>, Vec<String>) = open.into_iter().partition(|rule| rule.ends_with(PEER));
    let answers = format!("ct direction reply ct mark {PEER} accept");
    let open: Vec<String> = accepted(open).chain([answers, "drop".to_owned()]).collect();
    let mut own_services = vec!["ct state established,related accept".to_owned()];
    own_services.extend(policy.has_ipv6().then(|| NEIGHBOURS.to_owned()));
    own_services.extend([
        closed.clone(),
        "udp dport 67 accept".to_owned(),
        format!("ip daddr {own} udp dport 53 accept"),
        format!("ip daddr {own} tcp dport 53 accept"),
        format!("ip daddr != {own} drop"),
    ]);
    let chain = |name: &str, hook: &str, rules: Vec<String>, back: &str| {
        let rules: String = rules.into_iter().map(|rule| format!("    {from} {rule}\n")).collect();
        format!(
            "  chain {name} {{\n    type filter hook {hook} priority filter - 10; policy accept;\n{rules}{back}  }}\n"
        )
    };
    let ipv6: Vec<String> = accepted(ipv6).chain([closed]).collect();
    let to_host = [pass.to_machine(), own_services, open.clone()].concat();
    let through = [ipv6, accepted(to_peers).collect(), pass.through(), open].concat();
    format!(
        "table inet {} {{\n{}{}}}\n",
        table(network),
        chain("to-host", "input", to_host, ""),
        chain("through", "forward", through, &back(network, policy))
    )
}
