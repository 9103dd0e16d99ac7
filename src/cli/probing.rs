//! `--probe`: looking out of sandboxes, for `check` and `apply`.

use std::net::{IpAddr, SocketAddr};

use super::error::Error;
use super::interrupt::Interrupts;
use super::session;
use super::settings::Settings;
use crate::backend::Sandboxes;
use crate::model::{Desired, EgressMode, Live};
use crate::plan::{Matched, Plan};
use crate::probe::{Outcome, Probe, Subject, probe, usual_canary};

/// Whether and how egress is probed.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(super) struct ProbeArgs {
    /// Also try, from inside each sandbox with an egress policy, whether it holds: a small program
    /// is put into it, run and removed; 3 when it leaks
    #[arg(long)]
    pub(super) probe: bool,

    /// An address that no policy opens and this machine reaches [default: 1.1.1.1:443]
    #[arg(long, value_name = "ADDR:PORT", requires = "probe")]
    pub(super) canary: Option<SocketAddr>,
}

/// Whether any of some probes shows a leak.
pub(super) fn leaks(probes: &[Probe]) -> bool {
    probes.iter().any(|probe| probe.outcome == Outcome::Leak)
}

impl ProbeArgs {
    /// Probes what a check is about; none unless that was asked for. Everything else of a check only reads; this runs a
    /// program inside.
    pub(super) async fn check(
        &self,
        settings: &Settings,
        interrupts: &Interrupts,
        desired: &Desired,
        (plan, live): (&Plan, &Live),
    ) -> Result<Option<Vec<Probe>>, Error> {
        if !self.probe {
            return Ok(None);
        }
        let probing = async {
            let backend = session::open(settings, &desired.backend).await?;
            let probes = self.run(&*backend, desired, plan, live).await;
            backend.close().await?;
            Ok::<_, Error>(probes)
        };
        interrupts.guard(probing).await?.map(Some)
    }

    /// Probes the sandboxes that a plan is about and whose policy closes something.
    pub(super) async fn run(&self, backend: &dyn Sandboxes, desired: &Desired, plan: &Plan, live: &Live) -> Vec<Probe> {
        let matched = Matched::of(desired, live);
        let closing = desired.sandboxes.values().filter(|sandbox| {
            let policy = sandbox.egress.as_ref();
            plan.selected.contains(&sandbox.name)
                && policy.is_some_and(|policy| policy.mode != EgressMode::Unrestricted)
        });
        let there = closing.filter_map(|sandbox| Some((sandbox, matched.owned.get(&sandbox.name)?)));
        let subjects: Vec<Subject> = there
            .map(|(sandbox, instance)| Subject {
                sandbox: sandbox.name.clone(),
                instance: instance.name.clone(),
                status: instance.status,
                policy: instance.egress.clone(),
            })
            .collect();
        let canary = self.canary.unwrap_or_else(usual_canary);
        probe(backend, &subjects, canary, &resolvers()).await
    }
}

/// The DNS servers of this machine (resolv.conf(5)).
fn resolvers() -> Vec<IpAddr> {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let servers = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    servers.filter_map(|server| server.trim().parse().ok()).collect()
}
