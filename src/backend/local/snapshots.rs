//! Snapshots and clones: changes of records, where nothing runs.

use std::time::Duration;

use rustix::process::{Signal, pidfd_send_signal};
use tokio::time::sleep;

use super::Local;
use super::image::Parts;
use super::lifecycle::{no_snapshot, now, record};
use super::state::{Kept, Lock, Record};
use super::wire::{Disk, Request};
use crate::backend::{CreateOpts, Error, ErrorKind, Result, Stop};
use crate::model::InstanceName;

/// As many layers as a disk may have: the kernel takes 500 (Linux, `OVL_MAX_STACK`), some of them the image's.
const MOST_LAYERS: usize = 480;

/// How long processes have to come to a stop where nothing tells that they have.
const SETTLING: Duration = Duration::from_millis(20);

impl Local {
    /// Takes a snapshot of a sandbox that is locked.
    pub(super) async fn take_snapshot(&self, name: &InstanceName, mut record: Record, label: &str) -> Result<()> {
        if record.kept(label).is_some() {
            return Err(Error::new(
                ErrorKind::AlreadyExists,
                format!("`{name}` has a snapshot `{label}` already"),
            ));
        }
        let parts = self.parts(&record.image).await?;
        let _names = Lock::take(&self.store.names(), false, "the layers").await?;
        let layers = self.frozen(name, &mut record, &parts).await?;
        record.snapshots.push(Kept {
            label: label.to_owned(),
            layers,
            labels: record.labels.clone(),
            created_at: now(),
        });
        self.store.keep(name, &record)
    }

    /// Makes a clone; its name is locked, and free.
    pub(super) async fn make_clone(
        &self,
        source: &InstanceName,
        label: Option<&str>,
        name: &InstanceName,
        opts: &CreateOpts,
    ) -> Result<()> {
        // Of a snapshot, the record alone is read, which is always whole.
        let (_lock, mut from) = match label {
            Some(_) => (None, self.store.record(source)?),
            None => {
                let (lock, record) = self.lock(source).await?;
                (Some(lock), record)
            }
        };
        let parts = self.parts(&from.image).await?;
        let _names = Lock::take(&self.store.names(), false, "the layers").await?;
        let layers = match label {
            Some(label) => {
                // Anew, for now no layer can go.
                let now = self.store.record(source)?;
                now.kept(label)
                    .ok_or_else(|| no_snapshot(source, label))?
                    .layers
                    .clone()
            }
            None => {
                let layers = self.frozen(source, &mut from, &parts).await?;
                self.store.keep(source, &from)?;
                layers
            }
        };
        let upper = self.store.new_layer(self.ids, &parts)?;
        self.store.add(name, &record(opts, from.image, upper, layers))?;
        self.store.write_etc(name, self.ids, &parts, None)
    }

    /// The layers of a disk as it is now, frozen. Of a stopped sandbox, its own layer is frozen and a new one put
    /// over it, in the record that is given; of a running one, its layer is copied while it stands still.
    async fn frozen(&self, name: &InstanceName, record: &mut Record, parts: &Parts) -> Result<Vec<String>> {
        if record.layers.len() >= MOST_LAYERS {
            return Err(Error::unsupported(format!(
                "the disk of `{name}` has {MOST_LAYERS} layers, one for each snapshot it descends from, and can have no more"
            )));
        }
        if self.store.process(name).is_some() {
            let copy = self.copied(name, record, parts).await?;
            return Ok(std::iter::once(copy).chain(record.layers.iter().cloned()).collect());
        }
        let upper = self.store.new_layer(self.ids, parts)?;
        let frozen = std::mem::replace(&mut record.upper, upper);
        record.layers.insert(0, frozen);
        Ok(record.layers.clone())
    }

    async fn copied(&self, name: &InstanceName, record: &Record, parts: &Parts) -> Result<String> {
        let copy = self.store.new_layer(self.ids, parts)?;
        let still = self.hold(name).await?;
        let job = Disk::Copy {
            from: self.store.layer(&record.upper).join("up"),
            to: self.store.layer(&copy).join("up"),
        };
        let copied = self.helpers.perform(&Request::Disk(self.ids, job)).await;
        still.end()?;
        copied.map(|()| copy)
    }

    /// Holds a running sandbox still, until what this gives goes: by its control group, or else by its pid 1. That it is held
    /// is noted first, for whoever comes after a tool that was killed meanwhile.
    async fn hold<'a>(&'a self, name: &'a InstanceName) -> Result<Still<'a>> {
        self.store.note_still(name)?;
        let still = Still { local: self, name };
        if !self.groups.freeze(name).await? {
            self.signal(name, Signal::USR1);
            // Pid 1 passes it on to everybody, who get it with their next step.
            sleep(SETTLING).await;
        }
        Ok(still)
    }

    /// Lets a sandbox that is locked go on, where somebody has held it still and was killed before its end.
    pub(super) fn let_go(&self, name: &InstanceName) -> Result<()> {
        if !self.store.stands_still(name) {
            return Ok(());
        }
        if !self.groups.thaw(name)? {
            self.signal(name, Signal::USR2);
        }
        self.store.forget_still(name)
    }

    fn signal(&self, name: &InstanceName, signal: Signal) {
        if let Some(descriptor) = self.store.process(name).and_then(|process| process.open()) {
            // It has ended meanwhile, and then nothing of it moves.
            let _ = pidfd_send_signal(&descriptor, signal);
        }
    }

    /// Puts the disk of a sandbox that is locked back to a snapshot.
    pub(super) async fn put_back(&self, name: &InstanceName, mut record: Record, label: &str) -> Result<()> {
        let layers = record
            .kept(label)
            .ok_or_else(|| no_snapshot(name, label))?
            .layers
            .clone();
        let parts = self.parts(&record.image).await?;
        let ran = self.store.process(name).is_some();
        self.power_off(name, Stop::Force).await?;
        let names = Lock::take(&self.store.names(), false, "the layers").await?;
        record.upper = self.store.new_layer(self.ids, &parts)?;
        record.layers = layers;
        self.store.keep(name, &record)?;
        drop(names);
        if ran {
            self.power_on(name, &record).await?;
        }
        self.store.sweep(self.ids, &self.helpers).await
    }
}

/// A sandbox that stands still for as long as this is there.
struct Still<'a> {
    local: &'a Local,
    name: &'a InstanceName,
}

impl Still<'_> {
    fn end(self) -> Result<()> {
        self.local.let_go(self.name)
    }
}

impl Drop for Still<'_> {
    fn drop(&mut self) {
        // Where that fails, whoever locks it next tries again.
        let _ = self.local.let_go(self.name);
    }
}
