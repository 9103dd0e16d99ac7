//! Starting and stopping.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Signal, pidfd_send_signal};
use tokio::task::spawn_blocking;

use super::Local;
use super::helper::unexpected;
use super::image;
use super::network::Subject;
use super::policy::Kept;
use super::running::Process;
use super::state::{Lock, Record, failed};
use super::wire::{Join, Reply, Request, Start};
use crate::backend::{Error, ErrorKind, Result, Stop};
use crate::model::{InstanceName, PinnedPolicy};

/// How long the kernel may take to end a sandbox's processes. It writes out what they have written.
pub(super) const END: Duration = Duration::from_secs(60);
/// How long a sandbox that was asked to end may take after whoever asked is gone.
const ASKED: Duration = Duration::from_secs(5);

impl Local {
    /// Starts a sandbox that is locked; nothing when it runs.
    pub(super) async fn power_on(&self, name: &InstanceName, record: &Record) -> Result<()> {
        if self.store.process(name).is_some() {
            return Ok(());
        }
        self.check_all_ports(name, record)?;
        let parts = self.parts(&record.image).await?;
        let policy = record.egress.as_ref().map(Kept::policy);
        self.store.write_etc(name, self.ids, &parts, policy.as_ref())?;
        if let Some(mask) = image::mask_of(&parts) {
            let file = self.store.sandbox(name)?.join(image::MASK);
            std::fs::write(&file, mask).map_err(|source| failed(format!("cannot write {}", file.display()), source))?;
        }
        let start = Start {
            ids: self.ids,
            tree: self.store.tree(name, record, &parts, true)?,
            name: name.to_string(),
            record: self.store.run(name)?,
            in_use: self.in_use(name)?,
            groups: self.groups.make(name, record)?,
            network: self.network.joins(),
            binds: self.binds(name, record)?,
        };
        let mut started = self.launch(name, start, policy).await;
        if started.is_ok() {
            started = self.open_ports(name, record).await;
            if started.is_err() {
                // Why it has no ports is what is told.
                let _ = self.power_off(name, Stop::Force).await;
            }
        }
        if started.is_err() {
            // What is left does no harm, and is replaced by the next start.
            let _ = self.leave_network(name).await;
        }
        started.map_err(|error| error.within(format_args!("cannot start `{name}`")))
    }

    /// Has a helper start it, and joins it to a network in between.
    async fn launch(&self, name: &InstanceName, start: Start, policy: Option<PinnedPolicy>) -> Result<()> {
        let folder = self.store.sandbox(name)?;
        let subject = Subject {
            name,
            folder: &folder,
            policy,
        };
        let begun = async {
            let mut helper = self.helpers.ask(&Request::Start(start)).await?;
            let pid = match helper.reply().await? {
                Reply::Done => None,
                Reply::Ready => Some(helper.receive().await?),
                other => return Err(unexpected(&other)),
            };
            Ok((helper, pid))
        };
        let (begun, prepared) = tokio::join!(begun, self.network.prepare(&subject));
        let (mut helper, pid) = begun?;
        let Some(pid) = pid else { return Ok(()) };
        let joined = match prepared {
            Ok(prepared) => self.network.join(&subject, prepared, pid).await,
            Err(error) => Err(error),
        };
        let (join, result) = match joined {
            Ok(None) => (Join::Done, Ok(())),
            Ok(Some(device)) => (Join::Device(device), Ok(())),
            Err(error) => (Join::Failed, Err(error)),
        };
        helper.send(&join).await?;
        let reply = helper.reply().await;
        result?;
        match reply? {
            Reply::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Removes what joined a sandbox that has ended to a network.
    async fn leave_network(&self, name: &InstanceName) -> Result<()> {
        let folder = self.store.sandbox(name)?;
        let subject = Subject {
            name,
            folder: &folder,
            policy: None,
        };
        self.network.part(&subject).await
    }

    /// Stops a sandbox that is locked; nothing when it does not run. When it returns, nothing holds its disk.
    pub(super) async fn power_off(&self, name: &InstanceName, how: Stop) -> Result<()> {
        if let Some(process) = self.store.process(name) {
            // From here on it counts as stopped: it may end at any time, also when this tool is gone.
            let (run, ending) = (self.store.run(name)?, self.store.ending(name)?);
            std::fs::rename(&run, &ending).map_err(|source| failed(format!("cannot stop `{name}`"), source))?;
            self.end(name, &process, how).await?;
        }
        self.close_ports(name).await?;
        // Helpers that run commands in it see them end, and go.
        self.wait_for_helpers(name).await?;
        let _ = std::fs::remove_file(self.store.run(name)?);
        let _ = std::fs::remove_file(self.store.ending(name)?);
        let (left, ()) = tokio::join!(self.leave_network(name), self.groups.remove(name));
        left
    }

    /// Ends what somebody has begun to stop who is gone, where there is such a thing. Its disk is in use until then.
    pub(super) async fn finish_ending(&self, name: &InstanceName) -> Result<()> {
        let ending = self.store.ending(name)?;
        if let Some(process) = Process::read(&ending) {
            self.end(name, &process, Stop::Clean(ASKED)).await?;
        }
        let _ = std::fs::remove_file(ending);
        Ok(())
    }

    /// Ends the first process of a sandbox, and with it all others.
    async fn end(&self, name: &InstanceName, process: &Process, how: Stop) -> Result<()> {
        let Some(descriptor) = process.open() else {
            return Ok(());
        };
        let send = |signal| {
            // It has ended meanwhile.
            let _ = pidfd_send_signal(&descriptor, signal);
        };
        let clean = match how {
            Stop::Clean(patience) => {
                send(Signal::TERM);
                ends(&descriptor, patience).await
            }
            Stop::Force => false,
        };
        if !clean {
            send(Signal::KILL);
            if !ends(&descriptor, END).await {
                return Err(Error::new(
                    ErrorKind::Timeout,
                    format!("`{name}` has not ended within {} s", END.as_secs()),
                ));
            }
        }
        Ok(())
    }

    /// Waits until no helper is in a sandbox that does not run. A helper may outlive the tool that asked it.
    pub(super) async fn wait_for_helpers(&self, name: &InstanceName) -> Result<()> {
        let in_use = self.in_use(name)?;
        match in_use.exists() {
            true => Lock::take(&in_use, true, &format!("`{name}`")).await.map(drop),
            false => Ok(()),
        }
    }

    /// What helpers hold while they are in a sandbox.
    pub(super) fn in_use(&self, name: &InstanceName) -> Result<std::path::PathBuf> {
        Ok(self.store.sandbox(name)?.join("in-use"))
    }
}

/// Whether a process ends within a time.
pub(super) async fn ends(process: &OwnedFd, patience: Duration) -> bool {
    let Ok(process) = process.try_clone() else { return false };
    let wait = move || {
        let end = Instant::now() + patience;
        loop {
            let left = Timespec::try_from(end.saturating_duration_since(Instant::now())).ok();
            match poll(&mut [PollFd::new(&process, PollFlags::IN)], left.as_ref()) {
                Ok(ready) => return ready > 0,
                Err(Errno::INTR) => {}
                Err(_) => return false,
            }
        }
    };
    spawn_blocking(wait).await.unwrap_or(false)
}
