//! `destroy`: the end of an environment.

use std::time::Instant;

use super::super::Code;
use super::super::consent::{ConsentArgs, Purpose, consent};
use super::super::error::Error;
use super::super::interrupt::Interrupts;
use super::super::session::{self, SpecArg};
use super::super::settings::Settings;
use super::apply::{Ending, RunArgs, Work, verdict_of};
use crate::apply::observe_environment;
use crate::backend::Sandboxes;
use crate::model::{BackendChoice, EnvironmentName, Live, Place};
use crate::plan::{self, Plan};
use crate::view::Verdict;

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
}

/// Plans the deletion of all that the environment owns, asks, deletes, looks again.
pub(super) async fn run(args: &Args, settings: &Settings) -> Result<Code, Error> {
    let begun = Instant::now();
    let (environment, choice) = which(args, settings)?;
    let interrupts = Interrupts::listen();
    let backend = interrupts.guard(session::open(settings, &choice)).await??;
    let (plan, live) = interrupts.guard(look(&environment, &*backend)).await??;
    let mut view = args.run.view(&settings.output);
    let mut ending = Ending {
        plan: &plan,
        begun,
        report: None,
        remaining: None,
    };
    view.plan(&plan);
    if let Some(refused) = session::refusals(&plan, None) {
        ending.tell(&mut *view, verdict_of(&refused));
        return Err(refused);
    }
    if plan.in_sync() {
        return Ok(ending.tell(&mut *view, Verdict::NothingToDo));
    }
    let interactive = settings.interactive && !args.run.json && !args.spec.is_stdin();
    let asked = consent(
        settings,
        &interrupts,
        &plan,
        args.consent,
        Purpose::Destroy,
        interactive,
    );
    let moved = match asked.await {
        // A yes is to the end of these and no others.
        Ok(true) => {
            let (again, _) = interrupts.guard(look(&environment, &*backend)).await??;
            (again != plan).then_some(Error::Moved)
        }
        Ok(false) => None,
        Err(error) => Some(error),
    };
    if let Some(error) = moved {
        ending.tell(&mut *view, verdict_of(&error));
        return Err(error);
    }
    let work = Work {
        plan: &plan,
        desired: None,
        live: &live,
    };
    let report = args.run.carry_out(&work, &*backend, &interrupts, &mut *view).await;
    let (interrupted, complete) = (report.interrupted, report.is_complete());
    ending.report = Some(report);
    if interrupted || !complete {
        let verdict = if interrupted {
            Verdict::Interrupted
        } else {
            Verdict::Failed
        };
        return Ok(ending.tell(&mut *view, verdict));
    }
    let verdict = match interrupts.guard(look(&environment, &*backend)).await {
        Ok(Ok((left, _))) if left.in_sync() => Verdict::Done,
        Ok(Ok((left, _))) => {
            ending.remaining = Some(left);
            Verdict::Failed
        }
        Ok(Err(error)) => {
            ending.tell(&mut *view, Verdict::Failed);
            return Err(error);
        }
        Err(_) => Verdict::Interrupted,
    };
    let code = ending.tell(&mut *view, verdict);
    backend.close().await?;
    Ok(code)
}

async fn look(environment: &EnvironmentName, backend: &dyn Sandboxes) -> Result<(Plan, Live), Error> {
    let live = observe_environment(backend, environment).await?;
    let plan = plan::destroy(environment, backend.capabilities().backend, &live);
    Ok((plan, live))
}

/// Which environment, and where: from the spec, or from the flags alone.
fn which(args: &Args, settings: &Settings) -> Result<(EnvironmentName, BackendChoice), Error> {
    let flags_alone = args.spec.spec.is_none()
        && settings.environment.is_some()
        && (settings.backend.is_some() || !session::has_usual());
    let Some(name) = settings.environment.clone().filter(|_| flags_alone) else {
        let loaded = session::load(settings, &args.spec)?;
        return Ok((loaded.desired.environment, loaded.desired.backend));
    };
    let environment = EnvironmentName::new(name).map_err(|error| Error::Usage {
        message: format!("--environment: {error}"),
        hint: None,
    })?;
    let choice = BackendChoice {
        name: settings.backend.clone().unwrap_or_else(|| "local".to_owned()),
        settings: Default::default(),
        at: Place::nowhere(),
    };
    Ok((environment, choice))
}
