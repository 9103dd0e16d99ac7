//! Commands in simulated instances: answered by a test's hook, or by the imitated shell.

use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::Memory;
use super::shell::{Shell, put};
use crate::backend::{Error, ErrorKind, Exec, ExecOpts, Output, Result, Streams};
use crate::model::{Capability, InstanceName};

#[async_trait]
impl Exec for Memory {
    async fn run(&self, name: &InstanceName, opts: &ExecOpts, streams: Streams<'_>) -> Result<i32> {
        let command = opts.command.join(" ");
        self.note("run", [format!("exec {name} {} {command}", opts.account.owner)]);
        self.simulate(name, opts, streams).await
    }

    async fn ready(&self, name: &InstanceName, timeout: Duration) -> Result<()> {
        self.count("ready");
        self.need(Capability::Exec)?;
        let end = Instant::now() + timeout;
        loop {
            self.pause().await;
            if self.world().machine(name)?.runs() {
                return Ok(());
            }
            if Instant::now() >= end {
                return Err(Error::new(
                    ErrorKind::Timeout,
                    format!("`{name}` took no commands within {timeout:?}"),
                ));
            }
            tokio::time::sleep(Duration::from_millis(10).min(timeout)).await;
        }
    }
}

impl Memory {
    async fn simulate(&self, name: &InstanceName, opts: &ExecOpts, mut streams: Streams<'_>) -> Result<i32> {
        self.need(Capability::Exec)?;
        self.pause().await;
        if let Some(output) = self.hooked(name, opts)? {
            put(&mut streams.stdout, &output.stdout).await?;
            put(&mut streams.stderr, &output.stderr).await?;
            return Ok(output.code);
        }
        let mut env = self.world().machine(name)?.env.clone();
        env.insert("HOME".to_owned(), opts.account.home.clone());
        env.insert("USER".to_owned(), opts.account.name.clone());
        env.extend(opts.env.clone());
        let mut shell = Shell {
            memory: self,
            name,
            owner: opts.account.owner,
            env,
            streams,
        };
        match opts.timeout {
            None => shell.run(opts).await,
            Some(timeout) => tokio::time::timeout(timeout, shell.run(opts)).await.map_err(|_| {
                Error::new(
                    ErrorKind::Timeout,
                    format!("a command in `{name}` took longer than {timeout:?}"),
                )
            })?,
        }
    }

    /// What the hook answers, if it does.
    fn hooked(&self, name: &InstanceName, opts: &ExecOpts) -> Result<Option<Output>> {
        let mut world = self.world();
        let hook = world.hook.clone();
        let machine = world.machine_mut(name)?;
        if !machine.runs() {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("no command can be run in `{name}`: it does not run"),
            ));
        }
        Ok(hook.and_then(|hook| hook(machine, opts)))
    }
}
