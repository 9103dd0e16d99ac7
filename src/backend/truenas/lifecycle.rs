//! Making, changing, starting, stopping and deleting instances.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use super::TrueNas;
use super::convert::{Carried, own};
use super::dialect::{Machine, New, Update};
use super::notes::NOBODY;
use crate::backend::retry::{retry, retry_when};
use crate::backend::{Changes, CreateOpts, Error, ErrorKind, Exec as _, Result, Scope, Stop};
use crate::model::{Field, InstanceName, Labels, Memory, SandboxName, Status};

/// How long an instance that was not made bare may take until it runs commands.
const READY: Duration = Duration::from_secs(90);
/// How long what another run has begun may take.
const OTHERS: Duration = Duration::from_secs(20 * 60);
/// How long looking for commands that were left may take.
const ORPHANS: Duration = Duration::from_secs(10);

/// New names are of the spec's form; the system would take others, too.
fn check_name(name: &str) -> Result<()> {
    match SandboxName::new(name) {
        Ok(_) => Ok(()),
        Err(error) => Err(Error::new(ErrorKind::Invalid, error.to_string())),
    }
}

/// What this backend cannot give must not be dropped silently, whoever asks.
fn check(opts: &CreateOpts) -> Result<()> {
    let lacks = [
        (opts.disk.is_some(), "a size of the disk"),
        (opts.target.is_some(), "a member of a cluster"),
    ];
    if let Some((_, what)) = lacks.iter().find(|(asked, _)| *asked) {
        return Err(Error::unsupported(format!("TrueNAS takes no {what} for a container")));
    }
    check_config(opts.config.keys().next())
}

fn check_config(key: Option<&String>) -> Result<()> {
    match key {
        Some(key) => Err(Error::new(
            ErrorKind::Invalid,
            format!("TrueNAS has no setting `{key}` of containers"),
        )),
        None => Ok(()),
    }
}

fn bytes(memory: Option<Memory>) -> Result<Option<u64>> {
    match memory {
        Some(Memory::Bytes(bytes)) => Ok(Some(bytes.0)),
        Some(Memory::Percent(_)) => Err(Error::unsupported("TrueNAS bounds memory in bytes, and not by a share")
            .with_hint("write a size, such as `1GiB`")),
        None => Ok(None),
    }
}

/// What an instance carries until it has its disk: whoever is stopped in between must not leave one that looks like a clone.
/// That its disk is of something else than the spec says makes the next apply make it anew.
fn unfinished(carried: &Carried) -> Carried {
    let mut carried = carried.clone();
    let mut applied = carried.labels.applied();
    let source = Field::sandbox("clone-from");
    if applied.get(&source).is_some() {
        applied.set(source, "unfinished");
        carried.labels.set_applied(&applied);
    }
    carried
}

fn busy(error: &Error) -> bool {
    error.kind() == ErrorKind::Busy
}

impl TrueNas {
    /// What a new instance carries.
    fn carried(opts: &CreateOpts) -> Carried {
        let environment = opts.labels.get(Labels::ENVIRONMENT).unwrap_or(NOBODY);
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let mut own = BTreeMap::from([
            (own::CREATED.to_owned(), now.as_secs().to_string()),
            (own::KEY.to_owned(), environment.to_owned()),
        ]);
        own.extend(opts.image.clone().map(|image| (own::IMAGE.to_owned(), image)));
        Carried {
            env: opts.env.clone(),
            labels: opts.labels.clone(),
            own,
        }
    }

    /// A new instance from an image.
    pub(super) async fn create_from_image(&self, opts: &CreateOpts) -> Result<()> {
        let image = opts
            .image
            .as_deref()
            .ok_or_else(|| Error::new(ErrorKind::Invalid, "an image is needed"))?;
        check_name(&opts.name)?;
        check(opts)?;
        let new = New {
            name: &opts.name,
            image,
            variables: Self::carried(opts).write()?,
            unfinished: BTreeMap::new(),
            cpu: opts.cpu,
            memory: bytes(opts.memory)?,
        };
        let make = || async {
            self.make_room(new.name, None).await?;
            self.dialect.create(&new).await
        };
        retry_when(make, busy).await?;
        self.made(opts).await
    }

    /// A new instance with the disk of another, and nothing else of it.
    pub(super) async fn create_from_copy(
        &self,
        from: &InstanceName,
        label: Option<&str>,
        opts: &CreateOpts,
    ) -> Result<()> {
        check_name(&opts.name)?;
        check(opts)?;
        let mut carried = Self::carried(opts);
        let memory = bytes(opts.memory)?;
        let source = self.machine(from).await?;
        let (snapshot, remembered, alone) = self.origin(&source, label).await?;
        let result = async {
            // Whose key opens the disk is in the disk.
            let passed_on = Self::passed_on(&remembered);
            carried.own.remove(own::KEY);
            carried.own.extend(passed_on);
            let image = source.carried.own.get(own::IMAGE).cloned();
            if let Some(image) = &image {
                carried.own.insert(own::IMAGE.to_owned(), image.clone());
            }
            let image = image
                .or(source.image.clone())
                .ok_or_else(|| Error::unsupported(format!("it cannot be told what image `{from}` was made from")))?;
            let new = New {
                name: &opts.name,
                image: &image,
                variables: carried.write()?,
                unfinished: unfinished(&carried).write()?,
                cpu: opts.cpu,
                memory,
            };
            let make = || async {
                self.make_room(new.name, Some(&source)).await?;
                self.dialect.create_from(&source, &snapshot, &new).await
            };
            retry_when(make, busy).await
        };
        let result = result.await;
        if alone {
            self.let_go(&snapshot).await;
        }
        result?;
        self.made(opts).await
    }

    async fn made(&self, opts: &CreateOpts) -> Result<()> {
        if opts.bare {
            return Ok(());
        }
        let name = InstanceName::observed(&opts.name);
        self.power_on(&name).await?;
        self.ready(&name, READY).await
    }

    /// Changes settings and labels. The system knows no versions of an instance: what is not changed is read right
    /// before, and written again.
    pub(super) async fn change_settings(&self, name: &InstanceName, changes: &Changes) -> Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        if changes.disk.flatten().is_some() {
            return Err(Error::unsupported("TrueNAS takes no size of the disk for a container"));
        }
        check_config(
            changes
                .config
                .iter()
                .find(|(_, value)| value.is_some())
                .map(|(key, _)| key),
        )?;
        let memory = changes.memory.map(bytes).transpose()?;
        set_of(changes).write()?;
        // Repeating is safe: it writes the same values over whatever is read anew.
        retry(|| async {
            let _held = self.changing.lock().await;
            let machine = self.machine(name).await?;
            let mut carried = machine.carried.clone();
            lay_over(&mut carried.env, &changes.env);
            lay_over(&mut carried.labels.0, &changes.labels);
            let update = Update {
                variables: Some(carried.write()?),
                cpu: changes.cpu,
                memory,
            };
            self.dialect.update(&machine, update).await
        })
        .await
    }

    /// Puts labels in the place of all that it has, where those are the ones that were seen.
    pub(super) async fn replace_labels(&self, name: &InstanceName, seen: &Labels, labels: &Labels) -> Result<()> {
        let _held = self.changing.lock().await;
        let machine = self.machine(name).await?;
        if machine.carried.labels == *labels {
            return Ok(());
        }
        if machine.carried.labels != *seen {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!("the labels of `{name}` have changed meanwhile"),
            ));
        }
        let carried = Carried {
            labels: labels.clone(),
            ..machine.carried.clone()
        };
        let variables = carried.write()?;
        retry(|| async {
            let update = Update {
                variables: Some(variables.clone()),
                ..Update::default()
            };
            self.dialect.update(&machine, update).await
        })
        .await
    }

    /// Starts it.
    pub(super) async fn power_on(&self, name: &InstanceName) -> Result<()> {
        retry(|| async {
            let machine = self.machine(name).await?;
            if machine.status == Status::Running {
                return Ok(());
            }
            let Err(error) = self.dialect.start(&machine).await else {
                return Ok(());
            };
            // Somebody else was faster, or the answer was lost.
            match self.machine(name).await {
                Ok(machine) if machine.status == Status::Running => Ok(()),
                _ => Err(error),
            }
        })
        .await
    }

    /// Stops it.
    pub(super) async fn power_off(&self, name: &InstanceName, how: Stop) -> Result<()> {
        self.doors.shut(name.as_str()).await;
        if let Stop::Clean(_) = how {
            match self.stop_by(name, how).await {
                Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Unauthorised) => {
                    tracing::debug!(instance = %name, %error, "did not shut down, ending it");
                }
                answer => return answer,
            }
        }
        self.stop_by(name, Stop::Force).await
    }

    async fn stop_by(&self, name: &InstanceName, how: Stop) -> Result<()> {
        retry(|| async {
            let machine = self.machine(name).await?;
            if machine.status == Status::Stopped {
                return Ok(());
            }
            let Err(error) = self.dialect.stop(&machine, how).await else {
                return Ok(());
            };
            match self.machine(name).await {
                Ok(machine) if machine.status == Status::Stopped => Ok(()),
                _ => Err(error),
            }
        })
        .await
    }

    /// Deletes it with its snapshots.
    pub(super) async fn remove(&self, name: &InstanceName) -> Result<()> {
        self.doors.shut(name.as_str()).await;
        let mut begun = None;
        loop {
            let machine = match (self.machine(name).await, begun) {
                // What was not heard of has worked.
                (Err(error), Some(machine)) if error.kind() == ErrorKind::NotFound => {
                    return self.drop_what_is_left(&machine).await;
                }
                (machine, earlier) => {
                    begun = earlier;
                    machine?
                }
            };
            if machine.status != Status::Stopped {
                self.stop_by(name, Stop::Force).await?;
            }
            let apart = self.dialect.snapshots_go_first();
            if apart {
                self.mark_disk(&machine).await?;
                self.drop_snapshots(&machine.dataset).await?;
            }
            match retry_when(|| self.dialect.delete(&machine), busy).await {
                Err(error) if error.kind() == ErrorKind::Unreachable && begun.is_none() => begun = Some(machine),
                Err(error) if error.kind() == ErrorKind::NotFound && begun.is_some() => {
                    return self.drop_what_is_left(&machine).await;
                }
                Err(error) if apart && !matches!(error.kind(), ErrorKind::Unauthorised) => {
                    // It lets go of the container first, and a snapshot that was taken meanwhile keeps the disk.
                    return match self.machine(name).await {
                        Err(gone) if gone.kind() == ErrorKind::NotFound => self.drop_rest(&machine).await,
                        _ => Err(error),
                    };
                }
                answer => {
                    answer?;
                    return self.drop_what_is_left(&machine).await;
                }
            }
        }
    }

    /// Deletes the disk of an instance that is gone, where the system may have left it without a word.
    async fn drop_what_is_left(&self, machine: &Machine) -> Result<()> {
        match self.dialect.tells_failed_deletions() {
            true => Ok(()),
            false => self.drop_rest(machine).await,
        }
    }

    /// Waits for what is under way on the instances of a scope, whoever began it, and ends commands there that nobody
    /// listens to any more.
    pub(super) async fn await_others(&self, scope: &Scope) -> Result<()> {
        let prefix = scope.environment.as_ref().map(|environment| format!("{environment}-"));
        let concerns = |name: &str| {
            scope.names.contains(&InstanceName::observed(name))
                || prefix.as_ref().is_some_and(|prefix| name.starts_with(prefix.as_str()))
        };
        self.client.settle(self.dialect.jobs(), &concerns, OTHERS).await?;
        self.finish_deletions(concerns).await?;
        for name in self.running_in(scope).await? {
            // A sandbox that takes no commands runs none of ours.
            let ended = tokio::time::timeout(ORPHANS, self.end_orphans(&name)).await;
            if let Ok(Err(error)) = ended {
                tracing::debug!(instance = %name, %error, "cannot look for commands that were left");
            }
        }
        Ok(())
    }
}

/// What changes set, alone.
fn set_of(changes: &Changes) -> Carried {
    // What is taken away has a name, too.
    let set = |map: &BTreeMap<String, Option<String>>| {
        let set = map
            .iter()
            .map(|(key, value)| (key.clone(), value.clone().unwrap_or_default()));
        set.collect()
    };
    Carried {
        env: set(&changes.env),
        labels: Labels(set(&changes.labels)),
        own: BTreeMap::new(),
    }
}

/// Sets and takes away.
fn lay_over(map: &mut BTreeMap<String, String>, changes: &BTreeMap<String, Option<String>>) {
    for (key, value) in changes {
        match value {
            Some(value) => map.insert(key.clone(), value.clone()),
            None => map.remove(key),
        };
    }
}
