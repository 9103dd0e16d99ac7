//! Life and death of sandboxes.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;

use super::Local;
use super::cgroup::PROCESSES;
use super::state::{Lock, Record};
use crate::backend::{Backend, Changes, CreateOpts, Error, ErrorKind, Observe as _, Result, Scope, Stop, strict};
use crate::model::{Attach, Capability, InstanceName, VolumeKey};

#[async_trait]
impl Backend for Local {
    async fn create(&self, opts: &CreateOpts) -> Result<()> {
        self.check(opts)?;
        let name = InstanceName::observed(&opts.name);
        self.store.make(self.ids)?;
        let _lock = self.lock_new(&name).await?;
        let image = self.image(opts.image.as_deref().unwrap_or_default()).await?;
        let parts = self.parts(&image).await?;
        let names = Lock::take(&self.store.names(), false, "the layers").await?;
        let upper = self.store.new_layer(self.ids, &parts)?;
        self.store.add(&name, &record(opts, image, upper, Vec::new()))?;
        drop(names);
        self.store.write_etc(&name, self.ids, &parts, None)?;
        self.run_unless_bare(&name, opts).await
    }

    async fn clone_from(&self, source: &InstanceName, label: Option<&str>, opts: &CreateOpts) -> Result<()> {
        self.check(opts)?;
        let name = InstanceName::observed(&opts.name);
        self.store.record(source)?;
        let _lock = self.lock_new(&name).await?;
        self.make_clone(source, label, &name, opts).await?;
        self.run_unless_bare(&name, opts).await
    }

    async fn configure(&self, name: &InstanceName, changes: &Changes) -> Result<()> {
        strict::changes(changes)?;
        for (key, value) in &changes.config {
            setting(key, value.as_deref())?;
        }
        if changes.disk.flatten().is_some() {
            self.need(Capability::DiskSize)?;
        }
        if changes.cpu.flatten().is_some() || changes.config.get(PROCESSES).is_some_and(Option::is_some) {
            self.need(Capability::CpuLimit)?;
        }
        if changes.memory.flatten().is_some() {
            self.need(Capability::MemoryLimit)?;
        }
        let (_lock, mut record) = self.lock(name).await?;
        if let Some(cpu) = changes.cpu {
            record.cpu = cpu;
        }
        if let Some(memory) = changes.memory {
            record.memory = memory.map(|memory| memory.to_string());
        }
        for (map, changed) in [
            (&mut record.env, &changes.env),
            (&mut record.config, &changes.config),
            (&mut record.labels, &changes.labels),
        ] {
            for (key, value) in changed {
                match value {
                    Some(value) => map.insert(key.clone(), value.clone()),
                    None => map.remove(key),
                };
            }
        }
        self.store.keep(name, &record)?;
        let limits = changes.cpu.is_some() || changes.memory.is_some() || changes.config.contains_key(PROCESSES);
        if limits && self.store.process(name).is_some() {
            self.groups.set(name, &record)?;
        }
        Ok(())
    }

    async fn attach(&self, name: &InstanceName, changes: &Attach) -> Result<()> {
        self.change_attached(name, changes).await
    }

    async fn delete_volume(&self, key: &VolumeKey) -> Result<()> {
        self.remove_volume(key).await
    }

    async fn start(&self, name: &InstanceName) -> Result<()> {
        let (_lock, record) = self.lock(name).await?;
        self.power_on(name, &record).await
    }

    async fn stop(&self, name: &InstanceName, how: Stop) -> Result<()> {
        let (_lock, _) = self.lock(name).await?;
        self.power_off(name, how).await
    }

    async fn delete(&self, name: &InstanceName) -> Result<()> {
        let (lock, _) = self.lock(name).await?;
        self.power_off(name, Stop::Force).await?;
        self.store.discard(&self.store.sandbox(name)?)?;
        lock.remove(&self.store.lock(name));
        self.store.sweep(self.ids, &self.helpers).await
    }

    async fn create_snapshot(&self, name: &InstanceName, label: &str) -> Result<()> {
        strict::snapshot_name(label)?;
        let (_lock, record) = self.lock(name).await?;
        self.take_snapshot(name, record, label).await
    }

    async fn delete_snapshot(&self, name: &InstanceName, label: &str) -> Result<()> {
        let (_lock, mut record) = self.lock(name).await?;
        let before = record.snapshots.len();
        record.snapshots.retain(|kept| kept.label != label);
        if record.snapshots.len() == before {
            return Err(no_snapshot(name, label));
        }
        self.store.keep(name, &record)?;
        self.store.sweep(self.ids, &self.helpers).await
    }

    async fn restore_snapshot(&self, name: &InstanceName, label: &str) -> Result<()> {
        let (_lock, record) = self.lock(name).await?;
        self.put_back(name, record, label).await
    }

    async fn settle(&self, scope: &Scope) -> Result<()> {
        // Whatever is under way on a sandbox holds its lock.
        for live in self.observe(scope).await? {
            match self.lock(&live.name).await {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}

impl Local {
    /// Locks a sandbox that is there, alone, and reads what is known of it.
    pub(super) async fn lock(&self, name: &InstanceName) -> Result<(Lock, Record)> {
        // Also before it is locked: a lock is a file, and made where there is none.
        self.store.record(name)?;
        let lock = Lock::take(&self.store.lock(name), true, &format!("`{name}`")).await?;
        match self.store.record(name) {
            Ok(record) => {
                self.let_go(name)?;
                if self.store.process(name).is_none() {
                    self.finish_ending(name).await?;
                    self.wait_for_helpers(name).await?;
                }
                Ok((lock, record))
            }
            Err(error) => {
                lock.remove(&self.store.lock(name));
                Err(error)
            }
        }
    }

    /// Locks a name that nobody has yet.
    async fn lock_new(&self, name: &InstanceName) -> Result<Lock> {
        let lock = Lock::take(&self.store.lock(name), true, &format!("`{name}`")).await?;
        match self.store.record(name) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(lock),
            Err(error) => Err(error),
            Ok(_) => Err(Error::new(
                ErrorKind::AlreadyExists,
                format!("there is an instance `{name}` already"),
            )),
        }
    }

    async fn run_unless_bare(&self, name: &InstanceName, opts: &CreateOpts) -> Result<()> {
        match opts.bare {
            true => Ok(()),
            false => self.power_on(name, &self.store.record(name)?).await,
        }
    }

    fn check(&self, opts: &CreateOpts) -> Result<()> {
        strict::options(opts)?;
        opts.config
            .iter()
            .try_for_each(|(key, value)| setting(key, Some(value)))?;
        for (needed, capability) in [
            (
                opts.cpu.is_some() || opts.config.contains_key(PROCESSES),
                Capability::CpuLimit,
            ),
            (opts.memory.is_some(), Capability::MemoryLimit),
            (opts.disk.is_some(), Capability::DiskSize),
            (opts.target.is_some(), Capability::Target),
        ] {
            if needed {
                self.need(capability)?;
            }
        }
        Ok(())
    }

    pub(super) fn need(&self, capability: Capability) -> Result<()> {
        match self.capabilities.can(capability) {
            true => Ok(()),
            false => {
                let why = self
                    .capabilities
                    .reason(capability)
                    .unwrap_or("local sandboxes have none");
                Err(Error::unsupported(format!("not here: {why}")))
            }
        }
    }
}

/// A new sandbox.
pub(super) fn record(opts: &CreateOpts, image: super::state::Image, upper: String, layers: Vec<String>) -> Record {
    Record {
        image,
        upper,
        layers,
        labels: opts.labels.0.clone(),
        cpu: opts.cpu,
        memory: opts.memory.map(|memory| memory.to_string()),
        env: opts.env.clone(),
        config: opts.config.clone(),
        egress: None,
        attached: None,
        created_at: now(),
        snapshots: Vec::new(),
    }
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| now.as_secs())
}

/// Refuses a setting that a local sandbox does not have.
pub(super) fn setting(key: &str, value: Option<&str>) -> Result<()> {
    let known: BTreeMap<&str, fn(&str) -> bool> = BTreeMap::from([
        (
            PROCESSES,
            (|value| value.parse::<u32>().is_ok_and(|number| number > 0)) as fn(&str) -> bool,
        ),
        ("boot.autostart", |value| value == "false"),
        ("security.nesting", |value| value == "false"),
    ]);
    let good = match known.get(key) {
        Some(good) => value.is_none_or(good),
        None => key.starts_with("user."),
    };
    if good {
        return Ok(());
    }
    let said = value.map_or_else(|| format!("`{key}`"), |value| format!("`{key}` = `{value}`"));
    Err(
        Error::new(ErrorKind::Invalid, format!("a local sandbox has no setting {said}"))
            .with_hint("it has `limits.processes` with a number, and `user.*`"),
    )
}

/// No such snapshot.
pub(super) fn no_snapshot(name: &InstanceName, label: &str) -> Error {
    Error::not_found(format!("`{name}` has no snapshot `{label}`"))
}
