//! Starting and stopping.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Signal, pidfd_send_signal};
use tokio::task::spawn_blocking;

use super::Local;
use super::state::{Lock, Record};
use super::wire::{Request, Start};
use crate::backend::{Error, ErrorKind, Result, Stop};
use crate::model::InstanceName;

/// How long the kernel may take to end a sandbox's processes. It writes out what they have written.
const END: Duration = Duration::from_secs(60);

impl Local {
    /// Starts a sandbox that is locked; nothing when it runs.
    pub(super) async fn power_on(&self, name: &InstanceName, record: &Record) -> Result<()> {
        if self.store.process(name).is_some() {
            return Ok(());
        }
        let parts = self.parts(&record.image).await?;
        let start = Start {
            ids: self.ids,
            tree: self.store.tree(name, record, &parts, true)?,
            name: name.to_string(),
            record: self.store.run(name)?,
            in_use: self.in_use(name)?,
            groups: self.groups.make(name, record)?,
            network: false,
        };
        self.helpers
            .perform(&Request::Start(start))
            .await
            .map_err(|error| error.within(format_args!("cannot start `{name}`")))
    }

    /// Stops a sandbox that is locked; nothing when it does not run. When it returns, nothing holds its disk.
    pub(super) async fn power_off(&self, name: &InstanceName, how: Stop) -> Result<()> {
        if let Some(process) = self.store.process(name)
            && let Some(descriptor) = process.open()
        {
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
        }
        // Helpers that run commands in it see them end, and go.
        self.wait_for_helpers(name).await?;
        let _ = std::fs::remove_file(self.store.run(name)?);
        self.groups.remove(name).await;
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
async fn ends(process: &OwnedFd, patience: Duration) -> bool {
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
