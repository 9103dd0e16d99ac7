//! `gc`: the end of what has outlived its ttl.

use std::time::Instant;

use super::super::Code;
use super::super::error::Error;
use super::super::interrupt::Interrupts;
use super::super::lock::{LockArgs, Place, Worked};
use super::super::session::{self, SpecArg};
use super::super::settings::Settings;
use super::apply::{Ending, RunArgs, Work, interrupted, verdict_on};
use crate::apply::{Lock, observe_environment, observe_owned, scope_of_environment};
use crate::backend::Sandboxes;
use crate::model::{EnvironmentName, Live};
use crate::plan::{self, Plan};
use crate::view::{Verdict, View, human};

const EXAMPLES: &str = "\
A ttl counts from a sandbox's creation, as the last apply wrote it down; making it anew starts it
again. Asks nothing: to call it is the consent. What is protected stays, and is shown.

Examples:
  sbx-apply gc                          what the spec in this folder describes
  sbx-apply gc --environment demo --backend incus
  sbx-apply gc --all --backend incus    every environment there, each under its own lock";

/// Arguments of `gc`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    spec: SpecArg,

    /// Every environment of the backend, instead of the spec's
    #[arg(long, conflicts_with_all = ["spec", "environment", "break_lock"])]
    all: bool,

    #[command(flatten)]
    run: RunArgs,

    #[command(flatten)]
    lock: LockArgs,
}

/// Deletes what has outlived its ttl, of one environment or of all.
pub(super) async fn run(args: &Args, settings: &Settings) -> Result<Code, Error> {
    let (one, choice) = if args.all {
        (None, session::backend_of(settings)?)
    } else {
        let (environment, choice) = session::environment_of(settings, &args.spec)?;
        (Some(environment), choice)
    };
    let interrupts = Interrupts::listen();
    let backend = interrupts.guard(session::open(settings, &choice)).await??;
    let job = Job {
        args,
        settings,
        interrupts: &interrupts,
        backend: &backend,
    };
    let code = match one {
        Some(environment) => job.collect(&environment).await?,
        None => job.collect_all().await?,
    };
    backend.close().await?;
    Ok(code)
}

/// A collection.
struct Job<'a> {
    args: &'a Args,
    settings: &'a Settings,
    interrupts: &'a Interrupts,
    backend: &'a std::sync::Arc<dyn Sandboxes>,
}

impl Job<'_> {
    fn plan(&self, environment: &EnvironmentName, live: &Live) -> Plan {
        let backend = self.backend.capabilities().backend;
        plan::gc(environment, backend, live, self.settings.now)
    }

    async fn look(&self, environment: &EnvironmentName) -> Result<(Plan, Live), Error> {
        let live = self
            .interrupts
            .guard(observe_environment(&**self.backend, environment))
            .await??;
        Ok((self.plan(environment, &live), live))
    }

    /// Every environment that has something to delete, or something to tell of. One that cannot be dealt with, for
    /// somebody works on it, keeps no other from its turn.
    async fn collect_all(&self) -> Result<Code, Error> {
        let live = self.interrupts.guard(observe_owned(&**self.backend)).await??;
        let plans = plan::environments(&live)
            .into_iter()
            .map(|name| self.plan(&name, &live))
            .filter(|plan| !plan.steps.is_empty() || !plan.notices.is_empty() || !plan.refusals.is_empty());
        let mut worst = Code::Done;
        let mut nothing = true;
        for plan in plans {
            nothing &= plan.steps.is_empty();
            let code = match self.collect(&plan.environment).await {
                Ok(Code::Interrupted) => return Ok(Code::Interrupted),
                Err(Error::Interrupted) => return Err(Error::Interrupted),
                Ok(code) => code,
                Err(error) => {
                    error.report(&self.settings.output, self.settings.diagnostics);
                    error.code()
                }
            };
            worst = match (worst, code) {
                (Code::Error, _) | (_, Code::Error) => Code::Error,
                (Code::Done, code) => code,
                (worst, _) => worst,
            };
        }
        if nothing && !self.args.run.json {
            self.say("Nothing to delete.");
        }
        Ok(worst)
    }

    /// One environment. Its lock is taken only where something is to be done.
    async fn collect(&self, environment: &EnvironmentName) -> Result<Code, Error> {
        let begun = Instant::now();
        let mut view = self.args.run.view(&self.settings.output);
        let (plan, _) = self.look(environment).await?;
        if plan.steps.is_empty() && plan.refusals.is_empty() {
            return Ok(self.nothing(&plan, begun, &mut *view));
        }
        let place = Place {
            environment,
            scope: scope_of_environment(environment),
            doing: "gc",
        };
        let work = async |lock: &Lock| self.carry_out(environment, begun, lock, &mut *view).await;
        let (settings, interrupts) = (self.settings, self.interrupts);
        self.args
            .lock
            .under(settings, interrupts, self.backend, place, work)
            .await
    }

    /// Nothing is to be deleted; something may be to tell.
    fn nothing(&self, plan: &Plan, begun: Instant, view: &mut dyn View) -> Code {
        if self.args.run.json {
            view.plan(plan);
        } else {
            let environment = &plan.environment;
            match human::notices(plan) {
                Some(notices) => self.say(&format!("Nothing to delete in {environment}.\n\n{notices}")),
                None if !self.args.all => self.say(&format!("Nothing to delete in {environment}.")),
                None => {}
            }
        }
        Ending::of(plan, begun).tell(view, Verdict::NothingToDo)
    }

    fn say(&self, text: &str) {
        if !self.settings.output.quiet() {
            self.settings.output.result(text);
        }
    }

    /// The part that holds the lock: looks anew, for a sandbox may have been made again meanwhile.
    async fn carry_out(
        &self,
        environment: &EnvironmentName,
        begun: Instant,
        lock: &Lock,
        view: &mut dyn View,
    ) -> Result<Worked<Code>, Error> {
        let (plan, live) = self.look(environment).await?;
        let mut ending = Ending::of(&plan, begun);
        if let Some(refused) = session::refusals(&plan, None) {
            view.plan(&plan);
            ending.tell(view, Verdict::Refused);
            return Err(refused);
        }
        if plan.steps.is_empty() {
            return Ok(Worked::whole(self.nothing(&plan, begun, view)));
        }
        view.plan(&plan);
        let work = Work {
            plan: &plan,
            desired: None,
            live: &live,
        };
        let run = &self.args.run;
        let report = run.carry_out(&work, &**self.backend, self.interrupts, view).await;
        let mut verdict = verdict_on(&report, lock);
        ending.report = Some(report);
        if verdict == Verdict::Done {
            match self.look(environment).await {
                Ok((left, _)) if left.steps.is_empty() => {}
                Ok((left, _)) => {
                    ending.remaining = Some(left);
                    verdict = Verdict::Failed;
                }
                Err(Error::Interrupted) => verdict = interrupted(lock),
                Err(error) => {
                    ending.tell(view, Verdict::Failed);
                    return Err(error);
                }
            }
        }
        let code = ending.tell(view, verdict);
        Ok(Worked::reported(code, ending.report.as_ref()))
    }
}
