//! What is under way on which instance: two operations on one at once are refused, as a daemon refuses them.

use std::collections::BTreeMap;

use super::Memory;
use super::machine::Machine;
use super::world::no_instance;
use crate::backend::{Error, ErrorKind, Result};
use crate::model::InstanceName;

/// What an operation does to an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    /// Makes it. Until then nobody else sees it.
    Make,
    /// Changes its settings or its power, or takes a snapshot.
    Change,
    /// Changes or deletes what copies are made from.
    Disk,
    /// Copies its disk. Several may at once.
    Copy,
}

/// The operations under way.
#[derive(Debug, Default)]
pub(super) struct Holds {
    alone: BTreeMap<InstanceName, Hold>,
    copies: BTreeMap<InstanceName, usize>,
}

impl Holds {
    fn take(&mut self, name: &InstanceName, hold: Hold) -> Result<()> {
        let busy = match hold {
            Hold::Make | Hold::Change => self.alone.contains_key(name),
            Hold::Disk => self.alone.contains_key(name) || self.copies.contains_key(name),
            Hold::Copy => self.alone.get(name) == Some(&Hold::Disk),
        };
        if busy {
            return Err(Error::new(
                ErrorKind::Busy,
                format!("another operation is under way on `{name}`"),
            ));
        }
        match hold {
            Hold::Copy => *self.copies.entry(name.clone()).or_default() += 1,
            Hold::Make | Hold::Change | Hold::Disk => {
                self.alone.insert(name.clone(), hold);
            }
        }
        Ok(())
    }

    fn release(&mut self, name: &InstanceName, hold: Hold) {
        if hold != Hold::Copy {
            self.alone.remove(name);
        } else if let Some(count) = self.copies.get_mut(name) {
            *count -= 1;
            if *count == 0 {
                self.copies.remove(name);
            }
        }
    }

    /// Whether its disk is about to be another one.
    pub(super) fn disk_is_held(&self, name: &InstanceName) -> bool {
        self.alone.get(name) == Some(&Hold::Disk)
    }
}

/// An operation under way. Dropped, it is over.
#[derive(Debug)]
pub(super) struct Held<'a> {
    memory: &'a Memory,
    name: &'a InstanceName,
    hold: Hold,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.memory.world().holds.release(self.name, self.hold);
    }
}

impl Memory {
    /// Starts an operation on an instance; a name that is free for [`Hold::Make`].
    pub(super) fn hold<'a>(&'a self, name: &'a InstanceName, hold: Hold) -> Result<Held<'a>> {
        let mut world = self.world();
        let there = world.machines.contains_key(name);
        if hold == Hold::Make {
            if there || world.holds.alone.get(name) == Some(&Hold::Make) {
                return Err(Error::new(
                    ErrorKind::AlreadyExists,
                    format!("there is an instance `{name}` already"),
                ));
            }
        } else if !there {
            return Err(no_instance(name));
        }
        world.holds.take(name, hold)?;
        drop(world);
        Ok(Held {
            memory: self,
            name,
            hold,
        })
    }
}

impl Held<'_> {
    /// Changes the instance, where it is still there.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Machine) -> Result<T>) -> Result<T> {
        change(self.memory.world().machine_mut(self.name)?)
    }
}
