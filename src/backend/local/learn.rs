//! Watching what a sandbox asks for: see `crate::backend::watch`.

use super::Local;
use super::network::Subject;
use super::policy::Kept;
use super::running::Process;
use super::state::Record;
use crate::backend::watch::Watch;
use crate::backend::{Doing, Error, ErrorKind, Result};
use crate::model::{InstanceName, Learned};

impl Local {
    /// Opens a sandbox while something is done, and gives what it asked for.
    pub(super) async fn watch_while(&self, name: &InstanceName, during: Doing<'_>) -> Result<Learned> {
        // Not held meanwhile: what is done needs the sandbox.
        let (lock, record) = self.lock(name).await?;
        let process = self.store.process(name);
        let process = process.ok_or_else(|| Error::new(ErrorKind::Invalid, "it does not run"))?;
        let folder = self.store.sandbox(name)?;
        let subject = Subject {
            name,
            folder: &folder,
            policy: record.egress.as_ref().map(Kept::policy),
        };
        let watch = self.network.watch(&subject, process.pid).await?;
        let opened = self.let_through(&subject, &process, &record, &watch).await;
        drop(lock);
        if opened.is_ok() {
            during.await;
        }
        let (_lock, record) = self.lock(name).await?;
        // It may have ended, and a sandbox that starts gets rules of its own.
        if self.store.process(name).as_ref() == Some(&process) {
            let subject = Subject {
                policy: record.egress.as_ref().map(Kept::policy),
                ..subject
            };
            self.network.update(&subject, process.pid, None).await?;
            let parts = self.parts(&record.image).await?;
            self.store.write_etc(name, self.ids, &parts, subject.policy.as_ref())?;
        }
        let learned = watch.end().await?;
        opened.map(|()| learned)
    }

    async fn let_through(
        &self,
        subject: &Subject<'_>,
        process: &Process,
        record: &Record,
        watch: &Watch,
    ) -> Result<()> {
        let pass = watch.pass();
        self.network.update(subject, process.pid, Some(pass)).await?;
        let parts = self.parts(&record.image).await?;
        let asking = (subject.policy.as_ref(), Some(pass.server()));
        self.store.write_etc_asking(subject.name, self.ids, &parts, asking)
    }
}
