//! `apply`: plans, asks, applies, verifies.

use std::time::Instant;

use super::super::Code;
use super::super::consent::{ConsentArgs, Purpose, consent};
use super::super::error::Error;
use super::super::interrupt::Interrupts;
use super::super::saved::{SavedPlan, is_saved};
use super::super::session::{self, PlanArgs, SpecArg};
use super::super::settings::Settings;
use crate::apply::{Report, apply, verify};
use crate::backend::Sandboxes;
use crate::model::{Desired, Live};
use crate::plan::Plan;
use crate::spec::Loaded;
use crate::view::{Outcome, Output, Verdict, View, human, json};

const EXAMPLES: &str = "\
Outside a terminal nothing is asked: the plan is applied, unless it loses data; that needs
--allow-data-loss, or nothing is done (4).

In the place of SPEC, a plan that was kept by `plan --out FILE.json`: exactly that plan is
applied, or nothing is done (4) when the spec, a source or the live system has moved.

Examples:
  sbx-apply apply
  sbx-apply apply sbx.yaml --yes --prune
  sbx-apply apply --json > events.ndjson";

/// Arguments of `apply`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    spec: SpecArg,

    #[command(flatten)]
    consent: ConsentArgs,

    #[command(flatten)]
    plan: PlanArgs,

    #[command(flatten)]
    run: RunArgs,
}

/// How steps are carried out and shown.
#[derive(Debug, clap::Args)]
pub(super) struct RunArgs {
    /// How many steps run at once [default: what suits the backend]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(super) parallel: Option<u16>,

    /// Print events as JSON, one on each line
    #[arg(long)]
    pub(super) json: bool,
}

impl RunArgs {
    /// The view that was asked for.
    pub(super) fn view(&self, output: &Output) -> Box<dyn View> {
        if self.json {
            Box::new(json::Follow::new(output.clone()))
        } else {
            Box::new(human::Follow::new(output.clone()))
        }
    }

    /// Carries a plan out, with events to the view.
    pub(super) async fn carry_out(
        &self,
        work: &Work<'_>,
        backend: &dyn Sandboxes,
        interrupts: &Interrupts,
        view: &mut dyn View,
    ) -> Report {
        let parallel = self.parallel.map_or(backend.capabilities().concurrency, usize::from);
        let receiver = interrupts.receiver();
        apply(
            work.plan,
            work.desired,
            work.live,
            backend,
            parallel,
            receiver,
            |event| {
                view.event(work.plan, &event);
            },
        )
        .await
    }
}

/// What there is to apply: a spec, or a kept plan, which names one.
struct Given {
    saved: Option<SavedPlan>,
    settings: Settings,
    plan_args: PlanArgs,
    loaded: Loaded,
}

impl Given {
    fn of(args: &Args, settings: &Settings) -> Result<Self, Error> {
        let Some(path) = args.spec.spec.as_deref().filter(|path| is_saved(path)) else {
            return Ok(Self {
                saved: None,
                settings: settings.clone(),
                plan_args: args.plan.clone(),
                loaded: session::load(settings, &args.spec)?,
            });
        };
        let saved = SavedPlan::read(path)?;
        let settings = saved.settings(settings)?;
        let loaded = match session::load(&settings, &saved.spec()) {
            Err(Error::Rejected(rejected)) => return Err(saved.why_rejected(*rejected)),
            loaded => loaded?,
        };
        Ok(Self {
            plan_args: saved.plan_args(&args.plan)?,
            saved: Some(saved),
            settings,
            loaded,
        })
    }
}

/// What is carried out.
pub(super) struct Work<'a> {
    pub(super) plan: &'a Plan,
    pub(super) desired: Option<&'a Desired>,
    pub(super) live: &'a Live,
}

/// Plans, asks, applies, verifies.
pub(super) async fn run(args: &Args, settings: &Settings) -> Result<Code, Error> {
    let begun = Instant::now();
    let Given {
        saved,
        settings,
        plan_args,
        loaded,
    } = &Given::of(args, settings)?;
    let desired = &loaded.desired;
    let interrupts = Interrupts::listen();
    let backend = interrupts.guard(session::open(settings, &desired.backend)).await??;
    let planning = session::make_plan(settings, desired, &*backend, plan_args);
    let made = interrupts.guard(planning).await??;
    let plan = &made.plan;
    let mut view = args.run.view(&settings.output);
    let mut ending = Ending {
        plan,
        begun,
        report: None,
        remaining: None,
    };

    if let Some(saved) = saved
        && let Err(outdated) = saved.check(loaded, &made)
    {
        ending.tell(&mut *view, verdict_of(&outdated));
        return Err(outdated);
    }
    view.plan(plan);
    if let Some(refused) = session::refusals(plan, Some(loaded)) {
        ending.tell(&mut *view, verdict_of(&refused));
        return Err(refused);
    }
    if !plan.in_sync() {
        let interactive = settings.interactive && !args.run.json && !args.spec.is_stdin();
        let asked = consent(settings, &interrupts, plan, args.consent, Purpose::Apply, interactive);
        let moved = match asked.await {
            // A yes is to this plan and no other: what it was made from must still be so.
            Ok(true) => {
                let again = session::make_plan(settings, desired, &*backend, plan_args);
                let again = interrupts.guard(again).await??;
                (again.plan != *plan).then_some(Error::Moved)
            }
            Ok(false) => None,
            Err(error) => Some(error),
        };
        if let Some(error) = moved {
            ending.tell(&mut *view, verdict_of(&error));
            return Err(error);
        }
    }
    let work = Work {
        plan,
        desired: Some(desired),
        live: &made.live,
    };
    // Records may be due even where nobody sees a difference.
    let report = args.run.carry_out(&work, &*backend, &interrupts, &mut *view).await;
    let ended = match &report {
        report if report.interrupted => Verdict::Interrupted,
        report if !report.is_complete() => Verdict::Failed,
        _ if plan.in_sync() => Verdict::NothingToDo,
        _ => Verdict::Done,
    };
    ending.report = Some(report);
    if ended != Verdict::Done {
        return Ok(ending.tell(&mut *view, ended));
    }
    let seen = interrupts.guard(verify(&*backend, desired, plan, &made.options)).await;
    let verified = match seen {
        Ok(Ok(verified)) => verified,
        Ok(Err(error)) => {
            ending.tell(&mut *view, Verdict::Failed);
            return Err(error.into());
        }
        Err(_) => return Ok(ending.tell(&mut *view, Verdict::Interrupted)),
    };
    let verdict = if verified.plan.in_sync() {
        Verdict::Done
    } else {
        Verdict::Failed
    };
    ending.remaining = Some(verified.plan);
    let code = ending.tell(&mut *view, verdict);
    backend.close().await?;
    Ok(code)
}

/// How an error that comes before the first write ends an apply.
pub(super) fn verdict_of(error: &Error) -> Verdict {
    match error.code() {
        Code::Refused => Verdict::Refused,
        Code::Interrupted => Verdict::Interrupted,
        _ => Verdict::Failed,
    }
}

/// What the end will be told from.
pub(super) struct Ending<'a> {
    pub(super) plan: &'a Plan,
    pub(super) begun: Instant,
    pub(super) report: Option<Report>,
    pub(super) remaining: Option<Plan>,
}

impl Ending<'_> {
    /// Tells the end, and gives the code for it.
    pub(super) fn tell(&self, view: &mut dyn View, verdict: Verdict) -> Code {
        view.outcome(&Outcome {
            verdict,
            plan: self.plan,
            report: self.report.as_ref(),
            remaining: self.remaining.as_ref(),
            elapsed: self.begun.elapsed(),
        });
        match verdict {
            Verdict::Done | Verdict::NothingToDo => Code::Done,
            Verdict::Failed => Code::Error,
            Verdict::Refused => Code::Refused,
            Verdict::Interrupted => Code::Interrupted,
        }
    }
}
