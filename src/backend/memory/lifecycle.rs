//! Life and death of simulated instances.

use async_trait::async_trait;

use super::Disk;
use super::Memory;
use super::hold::Hold;
use super::machine::{KeptDisk, Machine};
use super::world::{World, no_snapshot};
use crate::backend::strict;
use crate::backend::{Backend, Changes, CreateOpts, Error, ErrorKind, Result, Scope, Stop};
use crate::model::{Attach, Bytes, Capability, InstanceName, Labels, Status, VolumeKey};

#[async_trait]
impl Backend for Memory {
    async fn create(&self, opts: &CreateOpts) -> Result<()> {
        let image = opts.image.as_deref().unwrap_or_default();
        self.note("create", [format!("create {} from image {image}", opts.name)]);
        self.check(opts)?;
        let name = InstanceName::observed(&opts.name);
        let _held = self.hold(&name, Hold::Make)?;
        self.pause().await;
        let mut world = self.world();
        let root = world.image(image)?.clone();
        world.make(&name, root, opts)
    }

    async fn clone_from(&self, source: &InstanceName, label: Option<&str>, opts: &CreateOpts) -> Result<()> {
        let from = label.map_or_else(|| source.to_string(), |label| format!("{source}/{label}"));
        self.note("clone_from", [format!("clone {} from {from}", opts.name)]);
        self.check(opts)?;
        self.need(match label {
            Some(_) => Capability::CloneFromSnapshot,
            None => Capability::CloneFromDisk,
        })?;
        let name = InstanceName::observed(&opts.name);
        let _source = self.hold(source, Hold::Copy)?;
        let _held = self.hold(&name, Hold::Make)?;
        self.pause().await;
        let mut world = self.world();
        let machine = world.machine(source)?;
        // The disk and nothing else: whatever more a copy inherits is overridden by the options.
        let root = match label {
            Some(label) => match machine.snapshots.get(label) {
                Some(kept) => kept.root.clone(),
                None => return Err(no_snapshot(source, label)),
            },
            None => machine.root.clone(),
        };
        world.make(&name, root, opts)
    }

    async fn configure(&self, name: &InstanceName, changes: &Changes) -> Result<()> {
        self.note("configure", [format!("configure {name}{}", summary(changes))]);
        if changes.cpu.flatten().is_some() {
            self.need(Capability::CpuLimit)?;
        }
        if changes.memory.flatten().is_some() {
            self.need(Capability::MemoryLimit)?;
        }
        if changes.disk.flatten().is_some() {
            self.need(Capability::DiskSize)?;
        }
        if !changes.config.is_empty() {
            self.need(Capability::Config)?;
        }
        strict::changes(changes)?;
        let held = self.hold(name, Hold::Change)?;
        self.pause().await;
        held.change(|machine| machine.configure(changes))
    }

    async fn relabel(&self, name: &InstanceName, seen: &Labels, labels: &Labels) -> Result<()> {
        self.note("relabel", [format!("relabel {name}")]);
        strict::labels(&labels.0)?;
        let held = self.hold(name, Hold::Change)?;
        self.pause().await;
        held.change(|machine| {
            if machine.labels != *seen {
                let message = format!("the labels of `{name}` have changed meanwhile");
                return Err(Error::new(ErrorKind::Conflict, message));
            }
            machine.labels = labels.clone();
            Ok(())
        })
    }

    async fn attach(&self, name: &InstanceName, changes: &Attach) -> Result<()> {
        self.attach_all(name, changes).await
    }

    async fn delete_volume(&self, key: &VolumeKey) -> Result<()> {
        self.drop_volume(key).await
    }

    async fn start(&self, name: &InstanceName) -> Result<()> {
        self.note("start", [format!("start {name}")]);
        let held = self.hold(name, Hold::Change)?;
        self.pause().await;
        held.change(|machine| match machine.status {
            Status::Running | Status::Stopped => {
                machine.status = Status::Running;
                Ok(())
            }
            status => Err(Error::new(
                ErrorKind::Failed,
                format!("cannot start `{name}`: it is {}", status.as_str()),
            )),
        })
    }

    async fn stop(&self, name: &InstanceName, how: Stop) -> Result<()> {
        let force = if how == Stop::Force { " at once" } else { "" };
        self.note("stop", [format!("stop {name}{force}")]);
        let held = self.hold(name, Hold::Change)?;
        self.pause().await;
        held.change(|machine| {
            machine.status = Status::Stopped;
            Ok(())
        })
    }

    async fn delete(&self, name: &InstanceName) -> Result<()> {
        self.note("delete", [format!("delete {name}")]);
        let held = self.hold(name, Hold::Disk)?;
        self.pause().await;
        held.change(|machine| match machine.config.get("security.protection.delete") {
            Some(value) if value == "true" => Err(Error::new(
                ErrorKind::Failed,
                format!("cannot delete `{name}`: `security.protection.delete` is set"),
            )),
            _ => Ok(()),
        })?;
        self.world().machines.remove(name);
        Ok(())
    }

    async fn create_snapshot(&self, name: &InstanceName, label: &str) -> Result<()> {
        self.note("create_snapshot", [format!("snapshot {name}/{label}")]);
        self.need(Capability::Snapshots)?;
        strict::snapshot_name(label)?;
        let held = self.hold(name, Hold::Change)?;
        self.pause().await;
        let created_at = self.world().tick();
        held.change(|machine| {
            if machine.snapshots.contains_key(label) {
                return Err(Error::new(
                    ErrorKind::AlreadyExists,
                    format!("`{name}` has a snapshot `{label}` already"),
                ));
            }
            let kept = KeptDisk {
                labels: machine.labels.clone(),
                created_at,
                root: machine.root.clone(),
            };
            machine.snapshots.insert(label.to_owned(), kept);
            Ok(())
        })
    }

    async fn delete_snapshot(&self, name: &InstanceName, label: &str) -> Result<()> {
        self.note("delete_snapshot", [format!("delete snapshot {name}/{label}")]);
        self.need(Capability::Snapshots)?;
        let held = self.hold(name, Hold::Disk)?;
        self.pause().await;
        held.change(|machine| match machine.snapshots.remove(label) {
            Some(_) => Ok(()),
            None => Err(no_snapshot(name, label)),
        })
    }

    async fn restore_snapshot(&self, name: &InstanceName, label: &str) -> Result<()> {
        self.note("restore_snapshot", [format!("restore {name}/{label}")]);
        self.need(Capability::Snapshots)?;
        let held = self.hold(name, Hold::Disk)?;
        self.pause().await;
        // The disk alone. Labels, settings and power stay as they are.
        held.change(|machine| match machine.snapshots.get(label) {
            Some(kept) => {
                machine.root = kept.root.clone();
                Ok(())
            }
            None => Err(no_snapshot(name, label)),
        })
    }

    async fn settle(&self, _scope: &Scope) -> Result<()> {
        // What was begun here ends with its future.
        self.count("settle");
        self.pause().await;
        Ok(())
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}

impl Memory {
    fn check(&self, opts: &CreateOpts) -> Result<()> {
        for (needed, capability) in [
            (opts.cpu.is_some(), Capability::CpuLimit),
            (opts.memory.is_some(), Capability::MemoryLimit),
            (opts.disk.is_some(), Capability::DiskSize),
            (!opts.config.is_empty(), Capability::Config),
            (opts.target.is_some(), Capability::Target),
        ] {
            if needed {
                self.need(capability)?;
            }
        }
        strict::options(opts)
    }
}

impl World {
    fn make(&mut self, name: &InstanceName, root: Disk, opts: &CreateOpts) -> Result<()> {
        let machine = Machine {
            name: name.clone(),
            status: if opts.bare { Status::Stopped } else { Status::Running },
            labels: opts.labels.clone(),
            cpu: opts.cpu.map(|cpu| cpu.to_string()),
            memory: opts.memory.map(|memory| memory.to_string()),
            disk: opts.disk.map(|disk| disk.to_string()),
            env: opts.env.clone(),
            config: opts.config.clone(),
            location: self.member(opts.target.as_deref())?,
            created_at: self.tick(),
            address: self.next_address(),
            ..Machine::bare(root)
        };
        self.machines.insert(name.clone(), machine);
        Ok(())
    }
}

impl Machine {
    /// All of the changes, or none where one is refused.
    fn configure(&mut self, changes: &Changes) -> Result<()> {
        if let Some(Some(new)) = changes.disk
            && let Some(Ok(old)) = self.disk.as_deref().map(str::parse::<Bytes>)
            && new < old
        {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("the disk of `{}` cannot shrink from {old} to {new}", self.name),
            ));
        }
        if let Some(cpu) = changes.cpu {
            self.cpu = cpu.map(|cpu| cpu.to_string());
        }
        if let Some(memory) = changes.memory {
            self.memory = memory.map(|memory| memory.to_string());
        }
        if let Some(disk) = changes.disk {
            self.disk = disk.map(|disk| disk.to_string());
        }
        for (map, changed) in [
            (&mut self.env, &changes.env),
            (&mut self.config, &changes.config),
            (&mut self.labels.0, &changes.labels),
        ] {
            for (key, value) in changed {
                match value {
                    Some(value) => map.insert(key.clone(), value.clone()),
                    None => map.remove(key),
                };
            }
        }
        Ok(())
    }
}

/// What is changed, without values: ` cpu env.PATH -label.ttl`.
fn summary(changes: &Changes) -> String {
    let mut text = String::new();
    let mut add = |set: bool, prefix: &str, key: &str| {
        text.push_str(if set { " " } else { " -" });
        text.push_str(prefix);
        text.push_str(key);
    };
    for (key, set) in [
        ("cpu", changes.cpu.map(|value| value.is_some())),
        ("memory", changes.memory.map(|value| value.is_some())),
        ("disk", changes.disk.map(|value| value.is_some())),
    ] {
        if let Some(set) = set {
            add(set, "", key);
        }
    }
    for (prefix, map) in [
        ("env.", &changes.env),
        ("config.", &changes.config),
        ("label.", &changes.labels),
    ] {
        for (key, value) in map {
            add(value.is_some(), prefix, key);
        }
    }
    text
}
