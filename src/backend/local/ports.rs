//! Ports of this machine that lead into a sandbox. A process beside the sandbox forwards them, as a helper started it; it
//! ends with the sandbox, and what it forwards is what is open.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use rustix::process::{Signal, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use super::Local;
use super::power::{END, ends};
use super::running::Process;
use super::state::Record;
use super::wire::{Ports, Request};
use crate::backend::attachable::{Opens, taken};
use crate::backend::{Error, ErrorKind, Result};
use crate::model::{GuestPort, InstanceName, Protocol, Workspace};

/// The process that forwards the ports of a sandbox, as it is recorded.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Forwarder {
    pub(super) process: Process,
    /// The port of this machine that leads to each of the sandbox.
    pub(super) ports: BTreeMap<String, u16>,
}

impl Local {
    /// Puts the ports of a sandbox into what is attached to it: of one that runs, those that are open.
    pub(super) fn observe_ports(&self, name: &InstanceName, record: &Record, workspace: &mut Workspace) {
        let ports = match self.store.process(name) {
            Some(_) => self.forwarder(name).map(|forwarder| forwarder.ports),
            None => record.attached.as_ref().map(|attached| attached.ports.clone()),
        };
        for (guest, host) in parsed(&ports.unwrap_or_default()) {
            workspace.ports.insert(guest, host.to_string());
            workspace.listening.insert((host, guest.protocol));
        }
    }

    /// Refuses ports that somebody else than this sandbox has.
    pub(super) fn check_ports(
        &self,
        name: &InstanceName,
        wanted: impl Iterator<Item = (GuestPort, u16)>,
    ) -> Result<()> {
        let open = self
            .forwarder(name)
            .map(|forwarder| forwarder.ports)
            .unwrap_or_default();
        let open: BTreeSet<(u16, Protocol)> = parsed(&open).map(|(guest, host)| (host, guest.protocol)).collect();
        let wanted = wanted.map(|(guest, host)| (host, guest.protocol));
        let wanted = wanted.filter(|port| !open.contains(port)).collect();
        match taken(&wanted, Opens::Itself).into_iter().next() {
            Some(((port, _), why)) => Err(Error::new(
                ErrorKind::AlreadyExists,
                format!("port {port} of this machine {why}"),
            )
            .with_hint("choose another one with `host`, or end what listens there")),
            None => Ok(()),
        }
    }

    /// The same for all that a sandbox is to have.
    pub(super) fn check_all_ports(&self, name: &InstanceName, record: &Record) -> Result<()> {
        let ports = record.attached.iter().flat_map(|attached| parsed(&attached.ports));
        self.check_ports(name, ports)
    }

    /// Opens the ports of a sandbox that is locked and runs, in place of those that are open.
    pub(super) async fn open_ports(&self, name: &InstanceName, record: &Record) -> Result<()> {
        self.close_ports(name).await?;
        let ports = record.attached.as_ref().map(|attached| attached.ports.clone());
        let (Some(ports), Some(process)) = (ports.filter(|ports| !ports.is_empty()), self.store.process(name)) else {
            return Ok(());
        };
        let request = Request::Ports(Ports {
            ids: self.ids,
            process,
            in_use: self.in_use(name)?,
            groups: self.groups.membership(name),
            record: self.forwarding(name)?,
            ports,
        });
        self.helpers.perform(&request).await
    }

    /// Opens ports anew after a change of the record; those of the record before it where that fails.
    pub(super) async fn change_ports(&self, name: &InstanceName, before: &Record, record: &Record) -> Result<()> {
        let Err(error) = self.open_ports(name, record).await else {
            return Ok(());
        };
        self.store.keep(name, before)?;
        match self.open_ports(name, before).await {
            Ok(()) => Err(error),
            Err(_) => Err(error.with_hint("no port of it is open now: apply again when that is out of the way")),
        }
    }

    /// Closes all ports of a sandbox.
    pub(super) async fn close_ports(&self, name: &InstanceName) -> Result<()> {
        let descriptor = self.forwarder(name).and_then(|forwarder| forwarder.process.open());
        if let Some(descriptor) = descriptor {
            // It has ended meanwhile, or will.
            let _ = pidfd_send_signal(&descriptor, Signal::KILL);
            if !ends(&descriptor, END).await {
                return Err(Error::new(
                    ErrorKind::Timeout,
                    format!("what forwards the ports of `{name}` does not end"),
                ));
            }
        }
        let _ = std::fs::remove_file(self.forwarding(name)?);
        Ok(())
    }

    /// What forwards, where it runs.
    fn forwarder(&self, name: &InstanceName) -> Option<Forwarder> {
        let bytes = std::fs::read(self.forwarding(name).ok()?).ok()?;
        let forwarder: Forwarder = serde_json::from_slice(&bytes).ok()?;
        forwarder.process.is_alive().then_some(forwarder)
    }

    fn forwarding(&self, name: &InstanceName) -> Result<PathBuf> {
        Ok(self.store.sandbox(name)?.join("ports.json"))
    }
}

/// Ports as a record writes them.
fn parsed(ports: &BTreeMap<String, u16>) -> impl Iterator<Item = (GuestPort, u16)> {
    ports
        .iter()
        .filter_map(|(guest, host)| Some((guest.parse().ok()?, *host)))
}
