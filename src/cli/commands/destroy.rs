//! `destroy`: the end of an environment.

use std::time::Instant;

use super::super::Code;
use super::super::consent::{ConsentArgs, Purpose, consent};
use super::super::error::Error;
use super::super::interrupt::Interrupts;
use super::super::lock::{LockArgs, Place as Locked, Worked};
use super::super::session::{self, SpecArg};
use super::super::settings::Settings;
use super::apply::{Ending, RunArgs, Work, interrupted, verdict_of, verdict_on};
use crate::apply::{Lock, observe_environment, scope_of_environment};
use crate::backend::Sandboxes;
use crate::model::{EnvironmentName, Live};
use crate::plan::{self, Plan};
use crate::view::{Verdict, View};

const EXAMPLES: &str = "\
Needs no spec: with --environment and --backend, none is read. With --environment alone, the
spec in this folder, if there is one, says where the backend is.

Examples:
  sbx-apply destroy
  sbx-apply destroy sbx.kdl --allow-data-loss
  sbx-apply destroy --environment demo --backend incus";

/// Arguments of `destroy`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    spec: SpecArg,

    #[command(flatten)]
    consent: ConsentArgs,

    #[command(flatten)]
    run: RunArgs,

    #[command(flatten)]
    lock: LockArgs,
}

/// Plans the deletion of all that the environment owns, asks, deletes, looks again.
pub(super) async fn run(args: &Args, settings: &Settings) -> Result<Code, Error> {
    let begun = Instant::now();
    let mut view = args.run.view(&settings.output);
    let ended = destroy(args, settings, begun, &mut *view).await;
    ended.inspect_err(|error| view.broken_off(verdict_of(error), begun.elapsed()))
}

async fn destroy(args: &Args, settings: &Settings, begun: Instant, view: &mut dyn View) -> Result<Code, Error> {
    let (environment, choice) = session::environment_of(settings, &args.spec)?;
    let interrupts = Interrupts::listen();
    let backend = interrupts.guard(session::open(settings, &choice)).await??;
    let job = Job {
        args,
        settings,
        environment: &environment,
        interrupts: &interrupts,
        backend: &*backend,
        begun,
    };
    let shown = if job.interactive() && !args.consent.yes {
        let (plan, _) = job.look().await?;
        job.show_and_ask(&plan, view).await?;
        Some(plan)
    } else {
        None
    };
    let place = Locked {
        environment: &environment,
        scope: scope_of_environment(&environment),
        doing: "destroy",
    };
    let work = async |lock: &Lock| job.carry_out(shown, lock, view).await;
    let code = args.lock.under(settings, &interrupts, &backend, place, work).await?;
    backend.close().await?;
    Ok(code)
}

/// A destroy.
struct Job<'a> {
    args: &'a Args,
    settings: &'a Settings,
    environment: &'a EnvironmentName,
    interrupts: &'a Interrupts,
    backend: &'a dyn Sandboxes,
    begun: Instant,
}

impl Job<'_> {
    fn interactive(&self) -> bool {
        self.settings.interactive && !self.args.run.json && !self.args.spec.is_stdin()
    }

    /// Removes what is left of an environment without sandboxes: also what a killed destroy has left of the last of them.
    async fn end(&self, lock: &Lock) -> Result<(), Error> {
        if let Err(error) = self.backend.tidy(self.environment).await {
            self.settings
                .output
                .note(&format!("note: {error}; the next destroy does"));
        }
        Ok(lock.delete_notes().await?)
    }

    async fn look(&self) -> Result<(Plan, Live), Error> {
        self.interrupts.guard(look(self.environment, self.backend)).await?
    }

    /// Shows the plan and comes back when there is a yes to it: `true` when somebody was asked.
    async fn show_and_ask(&self, plan: &Plan, view: &mut dyn View) -> Result<bool, Error> {
        view.plan(plan);
        let asked = match session::refusals(plan, None) {
            Some(refused) => Err(refused),
            None if plan.in_sync() => Ok(false),
            None => {
                let (consented, purpose) = (self.args.consent, Purpose::Destroy);
                consent(
                    self.settings,
                    self.interrupts,
                    plan,
                    consented,
                    purpose,
                    self.interactive(),
                )
                .await
            }
        };
        asked.inspect_err(|error| {
            Ending::of(plan, self.begun).tell(view, verdict_of(error));
        })
    }

    /// The part that holds the lock, which goes with the environment.
    async fn carry_out(&self, shown: Option<Plan>, lock: &Lock, view: &mut dyn View) -> Result<Worked<Code>, Error> {
        let (mut plan, mut live) = self.look().await?;
        let mut seen = shown;
        if seen.is_none() && self.show_and_ask(&plan, view).await? {
            let again = self.look().await?;
            seen = Some(std::mem::replace(&mut plan, again.0));
            live = again.1;
        }
        let mut ending = Ending::of(&plan, self.begun);
        // A yes is to the end of these and no others.
        if seen.is_some_and(|seen| seen != plan) {
            ending.tell(view, Verdict::Refused);
            return Err(Error::Moved);
        }
        if plan.in_sync() {
            self.end(lock).await?;
            return Ok(Worked::whole(ending.tell(view, Verdict::NothingToDo)));
        }
        let work = Work {
            plan: &plan,
            desired: None,
            live: &live,
        };
        let report = self
            .args
            .run
            .carry_out(&work, self.backend, self.interrupts, view)
            .await;
        let mut verdict = verdict_on(&report, lock);
        ending.report = Some(report);
        if verdict == Verdict::Done {
            verdict = match self.look().await {
                Ok((left, _)) if left.in_sync() => {
                    self.end(lock).await?;
                    Verdict::Done
                }
                Ok((left, _)) => {
                    ending.remaining = Some(left);
                    Verdict::Failed
                }
                Err(Error::Interrupted) => interrupted(lock),
                Err(error) => {
                    ending.tell(view, Verdict::Failed);
                    return Err(error);
                }
            };
        }
        let code = ending.tell(view, verdict);
        Ok(Worked::reported(code, ending.report.as_ref()))
    }
}

async fn look(environment: &EnvironmentName, backend: &dyn Sandboxes) -> Result<(Plan, Live), Error> {
    let live = observe_environment(backend, environment).await?;
    let plan = plan::destroy(environment, backend.capabilities().backend, &live);
    Ok((plan, live))
}
