//! Outbound network policy, enforced outside the guest: a managed network for each policy, with a network ACL and a DNS
//! server that knows the pinned names alone.
//!
//! What was tried on 6.0.4: an ACL on a network works on every kernel, one on a card needs `nf_conntrack_bridge`. A
//! change of either takes hold at once, and connections that are allowed survive it. The daemon lets every network
//! with an ACL reach port 53 of the host, whatever the address, so also the DNS servers of other networks, which ask
//! the world: see `guard`.

mod card;
mod guard;
mod learn;
mod network;
mod remains;
mod rules;

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use ipnet::Ipv4Net;
use reqwest::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub(super) use guard::Guard;
pub(super) use network::{Acl, Network};

use super::client::Etag;
use super::{Incus, convert, wire};
use crate::backend::retry::{retry, retry_when};
use crate::backend::{Doing, Error, ErrorKind, NetworkPolicy, ReadPolicy, Result, inside};
use crate::model::{
    Enforcement, EnvironmentName, Fault, InstanceName, Learned, LivePolicy, LookInside, PinnedPolicy, PolicyKey,
};
use network::{AclsPost, NetworksPost};

/// Commands come by the daemon, whatever becomes of the guest's network.
impl inside::Guests for Incus {}

#[async_trait]
impl ReadPolicy for Incus {
    async fn look_inside(&self, name: &InstanceName) -> Result<LookInside> {
        inside::read(self, name)
            .await
            .map_err(|error| error.within(format_args!("cannot look at the egress policy inside `{name}`")))
    }
}

#[async_trait]
impl NetworkPolicy for Incus {
    async fn set_policy(&self, name: &InstanceName, policy: Option<&PinnedPolicy>) -> Result<()> {
        let set = async {
            let keys = self.keys_of(name).await?;
            // Nobody deletes a network between its making and the moment when somebody is on it.
            let shared = self.networks.read().await;
            let moved = match policy {
                // The other way round, it would be open in between.
                Some(policy) if policy.enforce == Enforcement::Guest => {
                    inside::put(self, name, policy).await?;
                    self.take_off(name).await?
                }
                Some(policy) => {
                    let network = self.ensure(policy).await?;
                    self.put_on(name, card::Net::of(&network, policy)).await?
                }
                None => {
                    let moved = self.take_off(name).await?;
                    inside::lift(self, name).await?;
                    moved
                }
            };
            drop(shared);
            match moved {
                true => self.prune(&keys).await,
                false => Ok(()),
            }
        };
        set.await
            .map_err(|error: Error| error.within(format_args!("cannot set the egress policy of `{name}`")))
    }

    async fn tidy(&self, environment: &EnvironmentName) -> Result<()> {
        let tidied = async {
            // Their names alone are quickly told.
            for what in ["networks", "network-acls"] {
                let (all, _): (Vec<String>, Etag) = self.client.get(&self.client.url([what])).await?;
                let mut names = all.iter().map(|url| url.rsplit('/').next().unwrap_or_default());
                if names.any(|name| network::may_be_ours(name.split('?').next().unwrap_or_default())) {
                    return self.prune(std::slice::from_ref(environment)).await;
                }
            }
            Ok(())
        };
        tidied
            .await
            .map_err(|error: Error| error.within("cannot remove the networks that nobody is on any more"))
    }

    fn may_learn(&self) -> Result<()> {
        self.guard.program().map(drop)
    }

    async fn learn(&self, name: &InstanceName, during: Doing<'_>) -> Result<Learned> {
        self.watch_while(name, during)
            .await
            .map_err(|error| error.within(format_args!("cannot watch what `{name}` asks for")))
    }
}

impl Incus {
    /// The policies of networks that some instances are on, by the network's name. Two requests and one for each of those
    /// networks, and none where no instance is on one that may be ours.
    pub(super) async fn policies(&self, instances: &[wire::Instance]) -> Result<BTreeMap<String, LivePolicy>> {
        let networks = instances
            .iter()
            .flat_map(|instance| card::networks(&instance.expanded_devices));
        let needed: BTreeSet<&str> = networks.filter(|name| network::may_be_ours(name)).collect();
        if needed.is_empty() {
            return Ok(BTreeMap::new());
        }
        let networks: Vec<Network> = self.listed("networks").await?;
        let acls: Vec<Acl> = self.listed("network-acls").await?;
        let project = self.client.project();
        let mut policies = BTreeMap::new();
        for found in networks.iter().filter(|found| needed.contains(found.name.as_str())) {
            let acl = acls.iter().find(|acl| acl.name == found.name);
            if let Some(mut live) = network::live(project, found, acl) {
                if live.fault.is_none() && !self.is_up(&found.name).await? {
                    live.fault = Some(Fault::restart("its network is down"));
                }
                if live.fault.is_none() {
                    let fault = self.guard.fault(&found.name, network::range(found), &live.policy).await;
                    live.fault = fault.map(Fault::live);
                }
                policies.insert(found.name.clone(), live);
            }
        }
        Ok(policies)
    }

    /// The policy that an instance is under, among those of its networks.
    pub(super) fn policy_of(instance: &wire::Instance, policies: &BTreeMap<String, LivePolicy>) -> Option<LivePolicy> {
        let devices = &instance.expanded_devices;
        let (network, found) = card::networks(devices).find_map(|name| Some((name, policies.get(name)?)))?;
        let mut live = found.clone();
        live.fault = card::fault(devices, card::Net::of(network, &found.policy)).or(live.fault);
        Some(live)
    }

    /// Whether a network's device is there. A daemon that was interrupted while it deleted one may have left the rest.
    async fn is_up(&self, name: &str) -> Result<bool> {
        let found: Option<(serde_json::Value, Etag)> = self.find(&self.client.url(["networks", name, "state"])).await?;
        Ok(found.is_some())
    }

    async fn listed<T: DeserializeOwned>(&self, what: &str) -> Result<Vec<T>> {
        let mut url = self.client.url([what]);
        url.query_pairs_mut().append_pair("recursion", "1");
        let (all, _) = self
            .client
            .get(&url)
            .await
            .map_err(|error| error.within(format_args!("cannot list the {what}")))?;
        Ok(all)
    }

    /// Sees that the network and the ACL of a policy are there and as they should be; the ACL first, so that the network
    /// is never without. Gives their name.
    async fn ensure(&self, policy: &PinnedPolicy) -> Result<String> {
        // Sandboxes that share a policy ask for the same at once.
        let _one = self.making.lock().await;
        let name = network::name(self.client.project(), &policy.key);
        self.ensure_acl(&name, policy).await?;
        let range = retry(|| self.ensure_network(&name, policy)).await?;
        self.guard.close(&name, range, policy).await?;
        Ok(name)
    }

    async fn ensure_acl(&self, name: &str, policy: &PinnedPolicy) -> Result<()> {
        let url = self.client.url(["network-acls", name]);
        let wanted = || network::acl(self.client.project(), policy);
        retry(|| async {
            let Some((found, etag)): Option<(Acl, Etag)> = self.find(&url).await? else {
                let body = AclsPost {
                    name: name.to_owned(),
                    put: wanted(),
                };
                return self.send(Method::POST, "network-acls", None, &body, None).await;
            };
            let owner = network::key(self.client.project(), &found.config);
            check_ours("network ACL", name, owner, policy)?;
            let wanted = wanted();
            let mut egress = found.egress.clone();
            egress.sort();
            if egress == wanted.egress && found.ingress.is_empty() {
                return Ok(());
            }
            self.send(Method::PUT, "network-acls", Some(name), &wanted, etag).await
        })
        .await
    }

    async fn ensure_network(&self, name: &str, policy: &PinnedPolicy) -> Result<Option<Ipv4Net>> {
        let wanted = network::network(self.client.project(), policy)?;
        let found = self.network(name).await?;
        if found.as_ref().is_some_and(|(network, _)| !network.managed) {
            self.guard.clear(name).await?;
        }
        let Some((found, etag)) = found.filter(|(network, _)| network.managed) else {
            self.make_network(name, wanted).await?;
            return Ok(self
                .network(name)
                .await?
                .and_then(|(network, _)| network::range(&network)));
        };
        check_ours("network", name, found.owner(self.client.project()), policy)?;
        let range = network::range(&found);
        if !found.is_whole() {
            self.discard(&found).await?;
            self.make_network(name, wanted).await?;
            return Ok(self
                .network(name)
                .await?
                .and_then(|(network, _)| network::range(&network)));
        }
        let is_up = self.is_up(name).await?;
        let as_wanted = |(key, value): (&String, &String)| found.config.get(key) == Some(value);
        if is_up
            && wanted.config.iter().all(as_wanted)
            && !found.config.keys().any(|setting| network::is_foreign(setting))
        {
            return Ok(range);
        }
        let body = network::merged(&found, wanted);
        if !is_up {
            self.set_up(name, &body, etag).await?;
            return Ok(range);
        }
        self.send(Method::PUT, "networks", Some(name), &body, etag).await?;
        Ok(range)
    }

    async fn network(&self, name: &str) -> Result<Option<(Network, Etag)>> {
        self.find(&self.client.url(["networks", name])).await
    }

    /// Deletes a network that was never made whole, as after a kill while it was made or deleted: nothing sets it up any
    /// more. Whoever has a card on it has none until their policy is put in force again.
    async fn discard(&self, found: &Network) -> Result<()> {
        for name in found.users() {
            self.change_devices(&name, |own, _| card::unplug(own, &found.name))
                .await?;
        }
        self.remove_object("networks", &found.name).await?;
        match guard::is_here(&found.name) {
            true => self.guard.clear(&found.name).await,
            false => Ok(()),
        }
    }

    /// Announces a network to each member of a cluster, which it is made on after that.
    async fn announce_network(&self, network: &NetworksPost) -> Result<()> {
        if self.member.is_none() {
            return Ok(());
        }
        let (members, _): (Vec<String>, Etag) = self.client.get(&self.client.url(["cluster", "members"])).await?;
        for member in members.iter().filter_map(|url| url.rsplit('/').next()) {
            let mut url = self.client.url(["networks"]);
            url.query_pairs_mut().append_pair("target", member);
            match self
                .client
                .act(Method::POST, &url, Some(&network.of_member()), None)
                .await
            {
                // By a run that was killed before it was made.
                Err(error) if error.to_string().contains("already") => {}
                answer => drop(answer?),
            }
        }
        Ok(())
    }

    /// Makes a network in a range that the daemon chooses, or, where it finds none, in one of ours.
    async fn make_network(&self, name: &str, put: network::NetworkPut) -> Result<()> {
        let mut body = NetworksPost {
            name: name.to_owned(),
            kind: "bridge",
            put,
        };
        body.put.config.extend([network::automatic()]);
        self.announce_network(&body).await?;
        let mut refused = match self.send(Method::POST, "networks", None, &body, None).await {
            Err(error) if error.to_string().contains("unused IPv4 subnet") => error,
            answer => return answer,
        };
        let networks: Vec<Network> = self.listed("networks").await?;
        let taken: Vec<Ipv4Net> = networks.iter().filter_map(network::range).collect();
        for range in network::candidates(name, &taken).take(5) {
            body.put.config.extend([range]);
            match self.send(Method::POST, "networks", None, &body, None).await {
                Err(error) if error.kind() == ErrorKind::Failed => refused = error,
                answer => return answer,
            }
        }
        Err(refused)
    }

    /// Puts an instance on a policy's network; nothing where it is there already, as it should be.
    async fn put_on(&self, name: &InstanceName, network: card::Net<'_>) -> Result<bool> {
        self.change_devices(name, |own, profiles| card::put_on(own, profiles, network))
            .await
    }

    async fn take_off(&self, name: &InstanceName) -> Result<bool> {
        let default = self.network.as_deref().map(convert::network_device);
        self.change_devices(name, |own, profiles| {
            let ours = card::networks(own).find(|network| network::may_be_ours(network));
            if let Some(ours) = ours.map(str::to_owned) {
                card::take_off(own, profiles, &ours, default.clone());
            }
        })
        .await
    }

    /// The environments whose policies an instance is under, by their networks' labels.
    pub(super) async fn keys_of(&self, name: &InstanceName) -> Result<Vec<EnvironmentName>> {
        let (instance, _) = self.fetch(name).await?;
        let mut keys = Vec::new();
        for network in card::networks(&instance.expanded_devices).filter(|network| network::may_be_ours(network)) {
            let found: Option<(Network, Etag)> = self.find(&self.client.url(["networks", network])).await?;
            let key = found.and_then(|(network, _)| network::key(self.client.project(), &network.config));
            keys.extend(key.map(|key| key.environment));
        }
        Ok(keys)
    }

    pub(super) async fn change_devices(
        &self,
        name: &InstanceName,
        change: impl Fn(&mut wire::Devices, &wire::Devices) + Sync,
    ) -> Result<bool> {
        let url = self.client.url(["instances", name.as_str()]);
        retry(|| async {
            let (instance, etag) = self.fetch(name).await?;
            let profiles = self.devices_of(&instance.put.profiles).await?;
            let mut put = instance.put.clone();
            change(&mut put.devices, &profiles);
            if put.devices == instance.put.devices {
                return Ok(false);
            }
            self.client.act(Method::PUT, &url, Some(&put), etag).await.map(|_| true)
        })
        .await
    }

    /// Deletes the networks and ACLs that nobody is on any more: all those of some environments,
    /// so that what a killed process has left goes, too.
    pub(super) async fn prune(&self, left: &[EnvironmentName]) -> Result<()> {
        if left.is_empty() {
            return Ok(());
        }
        let _alone = self.networks.write().await;
        let project = self.client.project();
        let ours = |owner: Option<PolicyKey>| owner.is_some_and(|key| left.contains(&key.environment));
        let networks: Vec<Network> = self.listed("networks").await?;
        for found in networks.iter().filter(|found| ours(found.owner(project))) {
            if found.used_by.is_empty() && found.managed {
                self.remove_object("networks", &found.name).await?;
                self.guard.open(&found.name).await?;
            }
        }
        let acls: Vec<Acl> = self.listed("network-acls").await?;
        for found in acls.iter().filter(|found| ours(network::key(project, &found.config))) {
            if found.used_by.is_empty() {
                self.remove_object("network-acls", &found.name).await?;
            }
        }
        Ok(())
    }

    async fn remove_object(&self, what: &str, name: &str) -> Result<()> {
        let url = self.client.url([what, name]);
        let said = |error: &Error, text: &str| error.to_string().to_lowercase().contains(text);
        let delete = || async {
            match self.client.act(Method::DELETE, &url, None::<&()>, None).await {
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
                answer => answer.map(drop),
            }
        };
        // The daemon may still count an instance that it has just deleted.
        let again = |error: &Error| error.kind().is_transient() || said(error, "in use");
        match retry_when(delete, again).await {
            // Somebody has been put on it.
            Err(error) if said(&error, "in use") => Ok(()),
            answer => answer,
        }
    }

    /// Sets up those networks of an instance again whose devices are gone, as after a kill while one was made or deleted.
    pub(super) async fn revive(&self, name: &InstanceName) -> Result<()> {
        let (instance, _) = self.fetch(name).await?;
        for network in card::networks(&instance.expanded_devices).filter(|network| network::may_be_ours(network)) {
            let url = self.client.url(["networks", network]);
            let Some((found, etag)): Option<(Network, Etag)> = self.find(&url).await? else {
                continue;
            };
            if network::key(self.client.project(), &found.config).is_some() && !self.is_up(network).await? {
                self.set_up(network, &network::kept(&found), etag).await?;
            }
        }
        Ok(())
    }

    /// Has the daemon set a network up again: a change is what makes it do so.
    async fn set_up(&self, name: &str, put: &network::NetworkPut, etag: Etag) -> Result<()> {
        self.send(Method::PUT, "networks", Some(name), &network::changed(put), etag)
            .await?;
        self.send(Method::PUT, "networks", Some(name), put, None).await
    }

    async fn find<T: DeserializeOwned>(&self, url: &reqwest::Url) -> Result<Option<(T, Etag)>> {
        match self.client.get(url).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            answer => answer.map(Some),
        }
    }

    async fn send<B: Serialize + Sync>(
        &self,
        method: Method,
        what: &str,
        name: Option<&str>,
        body: &B,
        etag: Etag,
    ) -> Result<()> {
        let url = self.client.url([what].into_iter().chain(name));
        self.client.act(method, &url, Some(body), etag).await.map(drop)
    }
}

fn check_ours(what: &str, name: &str, owner: Option<PolicyKey>, policy: &PinnedPolicy) -> Result<()> {
    if owner.as_ref() == Some(&policy.key) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Failed,
        format!("the {what} `{name}` stands in the way: sbx-apply did not make it for this policy"),
    )
    .with_hint("rename or delete it, or give the environment another name"))
}
