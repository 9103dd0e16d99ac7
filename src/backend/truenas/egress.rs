//! Outbound network policy: inside the guest, for the system has no rules for what leaves a container.
//!
//! Commands reach a sandbox by its own network here. The kernel of a sandbox follows no connections before it has rules
//! that ask for it, so the first ones to be loaded cut the connection by which they came: they are loaded by a process
//! that outlives it, and what that said is read by another connection.

use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, sleep, timeout};

use super::TrueNas;
use super::ssh::quoted;
use crate::backend::inside::{self, Guests, RULES};
use crate::backend::marked::mark;
use crate::backend::{Error, ErrorKind, NetworkPolicy, ReadPolicy, Result};
use crate::model::{InstanceName, LookInside, PinnedPolicy, Status};

/// How long whoever began it waits for a word: with rules that were there before, it comes.
const HANDED_OVER: Duration = Duration::from_secs(3);
/// How long it may take until rules are loaded, and somebody gets in again.
const LOADED: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(100);

#[async_trait]
impl ReadPolicy for TrueNas {
    async fn look_inside(&self, name: &InstanceName) -> Result<LookInside> {
        inside::read(self, name)
            .await
            .map_err(|error| error.within(format_args!("cannot look at the egress policy inside `{name}`")))
    }
}

#[async_trait]
impl NetworkPolicy for TrueNas {
    async fn set_policy(&self, name: &InstanceName, policy: Option<&PinnedPolicy>) -> Result<()> {
        let set = async {
            match policy {
                Some(policy) if policy.enforce == inside::INSIDE => {
                    self.reachable(name).await?;
                    inside::put(self, name, policy).await
                }
                Some(_) => Err(Error::unsupported("TrueNAS has no rules for what leaves a container")
                    .with_hint("have it enforced inside the sandbox, `enforce \"guest\"`, which is best effort")),
                None => {
                    self.reachable(name).await?;
                    inside::lift(self, name).await
                }
            }
        };
        set.await
            .map_err(|error: Error| error.within(format_args!("cannot set the egress policy of `{name}`")))
    }
}

#[async_trait]
impl Guests for TrueNas {
    async fn load(&self, name: &InstanceName, program: &str) -> Result<()> {
        let (session, _) = self.enter(name).await?;
        // Nobody else's: the folder is root's, and so is the name.
        let said = format!("/run/sbx-apply-egress-{}", mark()?);
        let (program, rules, said) = (quoted(program), quoted(RULES), quoted(&said));
        let load = format!(
            "{program} -f {rules} >{said}.part 2>&1; echo \"ended with $?\" >>{said}.part; mv {said}.part {said}"
        );
        let script = format!("mkdir -p /run; (trap '' HUP; {load}) </dev/null >/dev/null 2>&1 &\n");
        // Whether this word comes back tells nothing.
        let _ = timeout(HANDED_OVER, session.ask(&script)).await;
        let until = Instant::now() + LOADED;
        loop {
            self.doors.shut(name.as_str()).await;
            let (session, _) = self.enter_until(name, until).await?;
            let ask = format!("cat {said} 2>/dev/null && rm -f {said}");
            if let Ok(Ok(text)) = timeout(HANDED_OVER, session.ask(&ask)).await
                && let Some((why, code)) = text.rsplit_once("ended with ")
            {
                let why: String = why
                    .lines()
                    .next()
                    .unwrap_or_default()
                    .chars()
                    .filter(|c| !c.is_control())
                    .take(200)
                    .collect();
                return match code.trim() {
                    "0" => Ok(()),
                    code => Err(Error::new(
                        ErrorKind::Failed,
                        format!("the rules inside could not be changed: nft ended with {code}: {why}"),
                    )),
                };
            }
            if Instant::now() >= until {
                return Err(Error::new(
                    ErrorKind::Timeout,
                    "the rules inside were not loaded in time",
                ));
            }
            sleep(PAUSE).await;
        }
    }
}

impl TrueNas {
    /// Whether its rules can be reached now.
    async fn reachable(&self, name: &InstanceName) -> Result<()> {
        match self.machine(name).await?.status {
            Status::Running => Ok(()),
            _ => Err(
                Error::new(ErrorKind::Invalid, "it does not run, and its rules are in its files")
                    .with_hint("start it, or write the policy into the spec: `apply` starts it for that"),
            ),
        }
    }
}
