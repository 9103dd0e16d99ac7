//! Making, changing, starting, stopping and deleting instances.

use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use super::client::Etag;
use super::operation::{COPY, ORDINARY, START};
use super::wire::{Config, Devices, InstancesPost, Profile, Source, StatePut};
use super::{Incus, convert, wire};
use crate::backend::retry::{retry, retry_when};
use crate::backend::{Backend as _, Changes, CreateOpts, Error, ErrorKind, Exec as _, Result, Stop};
use crate::model::{InstanceName, Labels, SandboxName, Status};

/// How long an instance that was not made bare may take until it runs commands.
const READY: Duration = Duration::from_secs(60);

/// What a copy takes over from its source unless the request says otherwise.
#[derive(Debug)]
pub(super) struct Inherited {
    config: Config,
    devices: Devices,
}

/// New names are of the spec's form; the daemon would take others, too.
fn check_name(name: &str) -> Result<()> {
    match SandboxName::new(name) {
        Ok(_) => Ok(()),
        Err(error) => Err(Error::new(ErrorKind::Invalid, error.to_string())),
    }
}

fn busy(error: &Error) -> bool {
    error.kind() == ErrorKind::Busy
}

impl Incus {
    /// An instance as the API has it, with its version.
    pub(super) async fn fetch(&self, name: &InstanceName) -> Result<(wire::Instance, Etag)> {
        self.client.get(&self.client.url(["instances", name.as_str()])).await
    }

    /// A new instance from an image.
    pub(super) async fn create_from_image(&self, opts: &CreateOpts) -> Result<()> {
        let image = opts
            .image
            .as_deref()
            .ok_or_else(|| Error::new(ErrorKind::Invalid, "an image is needed"))?;
        check_name(&opts.name)?;
        let config = convert::config(opts)?;
        let source = self.image_source(image).await?;
        let devices = self.own_devices(opts).await?;
        let looked = source.server.clone().map(|server| match image.contains(':') {
            true => format!("image `{image}`, at {server}"),
            false => format!("image `{image}`, no alias or fingerprint here, so looked for at {server}"),
        });
        let made = self.post(opts, source, config, devices).await;
        made.map_err(|error| match looked {
            Some(looked) => error.within(looked),
            None => error,
        })
    }

    /// A new instance with the disk of another, and nothing else of it.
    pub(super) async fn create_from_copy(
        &self,
        from: &InstanceName,
        label: Option<&str>,
        opts: &CreateOpts,
    ) -> Result<()> {
        check_name(&opts.name)?;
        let mut config = convert::config(opts)?;
        let inherited = self.inherited(from, label).await?;
        // The daemon adds every setting and device of the source that the request does not name: each has to
        // be named. An empty value is no setting.
        for key in inherited.config.keys() {
            if !key.starts_with("volatile.") && !key.starts_with("image.") {
                config.entry(key.clone()).or_default();
            }
        }
        let mut devices = self.own_devices(opts).await?;
        if inherited.devices.keys().any(|name| !devices.contains_key(name)) {
            let given = self.profile_devices().await?;
            let has_root = convert::root(&devices).is_some() || convert::root(given).is_some();
            for (name, device) in &inherited.devices {
                if devices.contains_key(name) {
                    continue;
                }
                let is_root = convert::root(&inherited.devices).is_some_and(|(root, _)| root == name);
                let own = match given.get(name) {
                    Some(given) => given.clone(),
                    None if is_root && !has_root => {
                        let mut device = device.clone();
                        device.remove("size");
                        device
                    }
                    None => Config::from([("type".to_owned(), "none".to_owned())]),
                };
                devices.insert(name.clone(), own);
            }
        }
        let source = Source {
            kind: "copy",
            source: Some(match label {
                Some(label) => format!("{from}/{label}"),
                None => from.to_string(),
            }),
            instance_only: true,
            ..Source::default()
        };
        self.post(opts, source, config, devices).await
    }

    async fn post(&self, opts: &CreateOpts, source: Source, config: Config, devices: Devices) -> Result<()> {
        let body = InstancesPost {
            name: opts.name.clone(),
            kind: "container",
            config,
            devices,
            profiles: self.profiles.clone(),
            ephemeral: false,
            source,
            start: false,
        };
        let mut url = self.client.url(["instances"]);
        if let Some(target) = &opts.target {
            url.query_pairs_mut().append_pair("target", target);
        }
        // Only what was refused as busy: an instance of which nothing was heard may be there.
        let make = || self.client.act_within(COPY, Method::POST, &url, Some(&body), None);
        retry_when(make, busy).await.map_err(|error| match error.kind() {
            // Inside an operation, the daemon says this in the words of its database.
            ErrorKind::AlreadyExists => Error::new(
                ErrorKind::AlreadyExists,
                format!("an instance of the name `{}` was made in the meantime", opts.name),
            )
            .with_source(error)
            .with_hint("is another apply running? Apply again once it is done"),
            _ => error,
        })?;
        if opts.bare {
            return Ok(());
        }
        let name = InstanceName::observed(&opts.name);
        self.power_on(&name).await?;
        self.ready(&name, READY).await
    }

    async fn inherited(&self, from: &InstanceName, label: Option<&str>) -> Result<Arc<Inherited>> {
        let Some(label) = label else {
            let (source, _) = self.fetch(from).await?;
            return Ok(Arc::new(Inherited {
                config: source.put.config,
                devices: source.put.devices,
            }));
        };
        let key = (from.to_string(), label.to_owned());
        let known = self.inherited.lock().ok().and_then(|known| known.get(&key).cloned());
        if let Some(known) = known {
            return Ok(known);
        }
        let url = self.client.url(["instances", from.as_str(), "snapshots", label]);
        let (source, _): (wire::Snapshot, _) = self.client.get(&url).await?;
        let fresh = Arc::new(Inherited {
            config: source.config,
            devices: source.devices,
        });
        if let Ok(mut known) = self.inherited.lock() {
            known.insert(key, fresh.clone());
        }
        Ok(fresh)
    }

    /// Devices of a new instance's own: as few as do.
    async fn own_devices(&self, opts: &CreateOpts) -> Result<Devices> {
        let mut devices = Devices::new();
        if self.pool.is_some() || opts.disk.is_some() {
            let given = convert::root(self.profile_devices().await?);
            let pool = self
                .pool
                .clone()
                .or_else(|| given.and_then(|(_, device)| device.get("pool").cloned()));
            let pool = pool.ok_or_else(|| {
                Error::new(ErrorKind::Invalid, "no storage pool for its disk")
                    .with_hint("name one with the backend's setting `pool`, or give the profile a root disk")
            })?;
            let name = given.map_or("root", |(name, _)| name);
            devices.insert(name.to_owned(), convert::root_device(&pool, opts.disk));
        }
        if let Some(network) = &self.network {
            devices.insert("eth0".to_owned(), convert::network_device(network));
        }
        Ok(devices)
    }

    /// What the profiles of new instances give them.
    pub(super) async fn profile_devices(&self) -> Result<&Devices> {
        self.profile_devices
            .get_or_try_init(|| self.read_profiles(&self.profiles))
            .await
    }

    /// What an instance gets from its profiles.
    pub(super) async fn devices_of(&self, profiles: &[String]) -> Result<Devices> {
        match profiles == self.profiles {
            true => self.profile_devices().await.cloned(),
            false => self.read_profiles(profiles).await,
        }
    }

    async fn read_profiles(&self, profiles: &[String]) -> Result<Devices> {
        let mut devices = Devices::new();
        for name in profiles {
            let url = self.client.url(["profiles", name]);
            let (profile, _): (Profile, _) = self
                .client
                .get(&url)
                .await
                .map_err(|error| error.within(format_args!("no profile `{name}`")))?;
            devices.extend(profile.devices);
        }
        Ok(devices)
    }

    /// Changes settings and labels.
    pub(super) async fn change_settings(&self, name: &InstanceName, changes: &Changes) -> Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        let edits = convert::config_changes(changes)?;
        let url = self.client.url(["instances", name.as_str()]);
        if changes.only_labels() {
            // Nobody else writes these keys, and the daemon merges them in: one request. Empty takes one away.
            let config: Config = edits
                .into_iter()
                .map(|(key, value)| (key, value.unwrap_or_default()))
                .collect();
            let body = json!({ "config": config });
            retry(|| self.client.act(Method::PATCH, &url, Some(&body), None)).await?;
            return Ok(());
        }
        // Repeating is safe: it writes the same values over whatever is read anew.
        retry(|| async {
            let (instance, etag) = self.fetch(name).await?;
            let mut put = instance.put;
            convert::apply(&mut put, &instance.expanded_devices, &edits, changes.disk);
            self.client.act(Method::PUT, &url, Some(&put), etag).await
        })
        .await?;
        Ok(())
    }

    /// Puts labels in the place of all that it has, where those are the ones that were seen. The version of what was read
    /// goes along, so that of two who do this at once only one is heard.
    pub(super) async fn replace_labels(&self, name: &InstanceName, seen: &Labels, labels: &Labels) -> Result<()> {
        let url = self.client.url(["instances", name.as_str()]);
        let replaced = retry(|| async {
            let (instance, etag) = self.fetch(name).await?;
            let found = convert::labels(&instance.put.config);
            // An answer may have been lost.
            if found == *labels {
                return Ok(true);
            }
            if found != *seen {
                return Ok(false);
            }
            let gone = found.0.keys().map(|key| (key.clone(), None));
            let set = labels.0.iter().map(|(key, value)| (key.clone(), Some(value.clone())));
            let changes = Changes {
                labels: gone.chain(set).collect(),
                ..Changes::default()
            };
            let edits = convert::config_changes(&changes)?.into_iter();
            // Empty takes one away.
            let config: Config = edits.map(|(key, value)| (key, value.unwrap_or_default())).collect();
            let body = json!({ "config": config });
            self.client.act(Method::PATCH, &url, Some(&body), etag).await?;
            Ok(true)
        });
        match replaced.await? {
            true => Ok(()),
            false => Err(Error::new(
                ErrorKind::Conflict,
                format!("the labels of `{name}` have changed meanwhile"),
            )),
        }
    }

    /// Starts it, or lets it go on.
    pub(super) async fn power_on(&self, name: &InstanceName) -> Result<()> {
        retry(|| async {
            let Err(error) = self.power(name, "start", -1, false).await else {
                return Ok(());
            };
            let said = error.to_string().to_lowercase();
            if said.contains("already running") {
                // So the daemon says of a frozen one, too.
                let (instance, _) = self.fetch(name).await?;
                return match convert::status(&instance.status) {
                    Status::Frozen => self.power(name, "unfreeze", -1, false).await,
                    _ => Ok(()),
                };
            }
            if said.contains("parent device") && said.contains("exist") {
                // The daemon was interrupted while it made or deleted the policy's network.
                self.revive(name).await?;
                return Err(Error::new(ErrorKind::Busy, error.to_string()));
            }
            if said.contains("mac address") {
                // Two clones made at once rolled the same one: let the daemon roll again.
                self.forget_addresses(name).await?;
            }
            Err(error)
        })
        .await
    }

    async fn forget_addresses(&self, name: &InstanceName) -> Result<()> {
        let (instance, _) = self.fetch(name).await?;
        let is_address = |key: &&String| key.starts_with("volatile.") && key.ends_with(".hwaddr");
        let config: Config = instance
            .put
            .config
            .keys()
            .filter(is_address)
            .map(|key| (key.clone(), String::new()))
            .collect();
        let url = self.client.url(["instances", name.as_str()]);
        self.client
            .act(Method::PATCH, &url, Some(&json!({ "config": config })), None)
            .await?;
        Ok(())
    }

    /// Stops it.
    pub(super) async fn power_off(&self, name: &InstanceName, how: Stop) -> Result<()> {
        if let Stop::Clean(patience) = how {
            let seconds = i64::try_from(patience.as_secs()).unwrap_or(i64::MAX).max(1);
            let asked = retry(|| async { stopped(self.power(name, "stop", seconds, false).await) }).await;
            match asked {
                Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Unauthorised) => {
                    tracing::debug!(instance = %name, %error, "did not shut down, ending it");
                }
                answer => return answer,
            }
        }
        retry(|| async { stopped(self.power(name, "stop", -1, true).await) }).await
    }

    async fn power(&self, name: &InstanceName, action: &'static str, timeout: i64, force: bool) -> Result<()> {
        let url = self.client.url(["instances", name.as_str(), "state"]);
        let body = StatePut { action, timeout, force };
        let patience = match action {
            "start" => START,
            // What the daemon itself waits for comes on top.
            _ => ORDINARY.saturating_add(Duration::from_secs(timeout.try_into().unwrap_or_default())),
        };
        let act = self.client.act_within(patience, Method::PUT, &url, Some(&body), None);
        act.await?;
        Ok(())
    }

    /// Deletes it with its snapshots.
    pub(super) async fn remove(&self, name: &InstanceName) -> Result<()> {
        if let Ok(mut inherited) = self.inherited.lock() {
            inherited.retain(|(instance, _), _| instance != name.as_str());
        }
        let policies = self.keys_of(name).await?;
        self.remove_instance(name).await?;
        self.forget_guards(name);
        self.prune(&policies).await
    }

    async fn remove_instance(&self, name: &InstanceName) -> Result<()> {
        let url = self.client.url(["instances", name.as_str()]);
        let mut heard = true;
        let mut left = 4;
        loop {
            let answer = retry_when(|| self.client.act(Method::DELETE, &url, None::<&()>, None), busy).await;
            let Err(error) = answer else { return Ok(()) };
            left -= 1;
            match error.kind() {
                // The one that was not heard of has worked.
                ErrorKind::NotFound if !heard => return Ok(()),
                ErrorKind::Unreachable if heard => heard = false,
                _ if left > 0 && error.to_string().to_lowercase().contains("is running") => {
                    self.stop(name, Stop::Force).await?;
                }
                _ => return Err(error),
            }
        }
    }
}

/// Takes "it does not run" for an answer.
fn stopped(answer: Result<()>) -> Result<()> {
    match answer {
        Err(error) if error.to_string().to_lowercase().contains("already stopped") => Ok(()),
        Err(error) if error.to_string().to_lowercase().contains("not running") => Ok(()),
        answer => answer,
    }
}
