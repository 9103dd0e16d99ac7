//! Watching what an instance asks for: see `crate::backend::watch`.
//!
//! An ACL is a network's, and so opening it would open all that share the policy. Its default is opened, and a table on the
//! daemon's host keeps the policy meanwhile, for whatever comes without a pass: the instance itself, should this process
//! die, and all others. First that table, then the ACL; and back the other way round.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use reqwest::Method;
use serde::Deserialize;

use super::network::{self, Network, NetworkPut};
use super::{Incus, card};
use crate::backend::incus::client::Etag;
use crate::backend::incus::wire::{self, Config};
use crate::backend::retry::retry;
use crate::backend::watch::Watch;
use crate::backend::{Doing, Error, ErrorKind, Result};
use crate::model::{InstanceName, Learned, LivePolicy};

/// An address that a network's DHCP server has given.
#[derive(Debug, Deserialize)]
struct Lease {
    #[serde(default)]
    address: String,
    #[serde(default)]
    hwaddr: String,
}

/// Where an instance is.
struct Spot {
    network: String,
    range: Ipv4Net,
    address: Ipv4Addr,
}

impl Incus {
    /// Opens an instance while something is done, and gives what it asked for.
    pub(super) async fn watch_while(&self, name: &InstanceName, during: Doing<'_>) -> Result<Learned> {
        let nft = self.guard.program()?;
        let (instance, _) = self.fetch(name).await?;
        let policies = self.policies(std::slice::from_ref(&instance)).await?;
        let policy = Self::policy_of(&instance, &policies);
        let spot = self.spot(&instance).await?;
        if let Some(fault) = policy.as_ref().and_then(|live| live.fault.as_ref()) {
            let message = format!("its policy is not enforced as it should be: {}", fault.text);
            return Err(Error::new(ErrorKind::Invalid, message).with_hint("`sbx-apply apply` repairs that"));
        }
        let gateway = spot.range.addr();
        let in_force = policy.as_ref().map(|live| &live.policy);
        let watch = Watch::begin(nft, &spot.network, (spot.address, gateway), in_force).await?;
        let opened = match &policy {
            Some(live) => self.let_through(&spot, live, &watch).await,
            None => Ok(()),
        };
        if opened.is_ok() {
            during.await;
        }
        if let Some(live) = &policy {
            // Where this fails, the table stays, and keeps the policy in the ACL's place.
            let closed = retry(|| self.ensure_network(&spot.network, &live.policy)).await;
            closed.map_err(|error| error.within("the policy could not be put back, and the next apply does so"))?;
            self.guard.close(&spot.network, Some(spot.range), &live.policy).await?;
        }
        let learned = watch.end().await?;
        opened.map(|()| learned)
    }

    async fn let_through(&self, spot: &Spot, live: &LivePolicy, watch: &Watch) -> Result<()> {
        let pass = (&live.policy, watch.pass());
        self.guard.let_through(&spot.network, spot.range, pass).await?;
        let url = self.client.url(["networks", &spot.network]);
        retry(|| async {
            let (found, etag): (Network, Etag) = self.client.get(&url).await?;
            let put = NetworkPut {
                config: Config::from(network::open()),
                description: network::described(&live.policy.key),
            };
            let body = network::merged(&found, put);
            self.send(Method::PUT, "networks", Some(&spot.network), &body, etag)
                .await
        })
        .await
    }

    /// The address that the daemon has given to an instance, whatever is said inside.
    pub(in crate::backend::incus) async fn leased(&self, name: &InstanceName) -> Result<Option<Ipv4Addr>> {
        let instance = match self.fetch(name).await {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            found => found?.0,
        };
        for (card, network) in card::on_networks(&instance.expanded_devices) {
            let found: Option<(Network, Etag)> = self.find(&self.client.url(["networks", network])).await?;
            let range = found.and_then(|(network, _)| network::range(&network));
            let Some(range) = range else { continue };
            if let Some(address) = self.lease(&instance, (card, network), range).await? {
                return Ok(Some(address));
            }
        }
        Ok(None)
    }

    /// What the DHCP server of a network has given to an instance's card there.
    async fn lease(
        &self,
        instance: &wire::Instance,
        (card, network): (&str, &str),
        range: Ipv4Net,
    ) -> Result<Option<Ipv4Addr>> {
        let url = self.client.url(["networks", network, "leases"]);
        let (leases, _): (Vec<Lease>, Etag) = self.client.get(&url).await?;
        let own = instance.put.config.get(&format!("volatile.{card}.hwaddr"));
        let mut leases = leases.iter().filter(|lease| Some(&lease.hwaddr) == own);
        Ok(leases.find_map(|lease| lease.address.parse().ok().filter(|address| range.contains(address))))
    }

    /// The first network with addresses of the daemon's own that an instance is on, and its address there: as the daemon
    /// has given it, whatever is said inside.
    async fn spot(&self, instance: &wire::Instance) -> Result<Spot> {
        if let Some(member) = self.member.as_ref().filter(|member| **member != instance.location) {
            let where_to = &instance.location;
            return Err(Error::unsupported(format!(
                "nothing can be learned of it from here: this is the member {member} of the cluster, and it is on {where_to}"
            ))
            .with_hint(format!("learn as root on {where_to}, through the daemon's socket there")));
        }
        for (card, network) in card::on_networks(&instance.expanded_devices) {
            let found: Option<(Network, Etag)> = self.find(&self.client.url(["networks", network])).await?;
            let range = found.and_then(|(network, _)| network::range(&network));
            let Some(range) = range.filter(|_| super::guard::is_here(network)) else {
                continue;
            };
            if let Some(address) = self.lease(instance, (card, network), range).await? {
                return Ok(Spot {
                    network: network.to_owned(),
                    range,
                    address,
                });
            }
        }
        Err(Error::new(
            ErrorKind::Invalid,
            "it has no address on a network of this machine's daemon",
        )
        .with_hint("it needs a card on a managed network with IPv4, on this machine; wait until it has an address"))
    }
}
