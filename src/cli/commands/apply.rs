//! `apply`: plans, asks, applies, verifies.

use std::collections::BTreeSet;
use std::time::Instant;

use super::super::Code;
use super::super::consent::{ConsentArgs, Purpose, consent};
use super::super::error::Error;
use super::super::interrupt::Interrupts;
use super::super::lock::{LockArgs, Place, Worked};
use super::super::probing::{ProbeArgs, leaks};
use super::super::saved::{SavedPlan, is_saved};
use super::super::session::{self, Made, PlanArgs, SpecArg};
use super::super::settings::Settings;
use crate::apply::{Lock, Report, apply, keep_key, keep_spec_record, observe, observe_scope, scope_of, verify};
use crate::backend::Sandboxes;
use crate::model::{Desired, Diagnostic, EnvironmentName, Live, SandboxName, SpecRecord};
use crate::plan::{Plan, spec_record};
use crate::spec::{Loaded, Source, Sources, read_again};
use crate::view::diagnostics::Style;
use crate::view::{Outcome, Output, Verdict, View, human, json};

const EXAMPLES: &str = "\
Outside a terminal nothing is asked: the plan is applied, unless it loses data; that needs
--allow-data-loss, or nothing is done (4). So does a spec that has changed in a folder which a
sandbox can write to: look at it, then pass --allow-changed-spec.

In the place of SPEC, a plan that was kept by `plan --out FILE.json`: exactly that plan is
applied, or nothing is done (4) when the spec, a source or the live system has moved.

One apply or destroy at a time works on an environment; another one is refused (4), or waits
with --lock-timeout. A lock whose process is dead is taken over.

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

    /// Consent to a spec that a sandbox may have written
    #[arg(long)]
    allow_changed_spec: bool,

    #[command(flatten)]
    plan: PlanArgs,

    #[command(flatten)]
    run: RunArgs,

    #[command(flatten)]
    lock: LockArgs,

    #[command(flatten)]
    probe: ProbeArgs,
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
    let mut view = args.run.view(&settings.output);
    let ended = work(args, settings, begun, &mut *view).await;
    ended.inspect_err(|error| view.broken_off(verdict_of(error), begun.elapsed()))
}

async fn work(args: &Args, settings: &Settings, begun: Instant, view: &mut dyn View) -> Result<Code, Error> {
    let given = Given::of(args, settings)?;
    let desired = &given.loaded.desired;
    let interrupts = Interrupts::listen();
    let backend = interrupts
        .guard(session::open(&given.settings, &desired.backend))
        .await??;
    let job = Job {
        args,
        given: &given,
        interrupts: &interrupts,
        backend: &*backend,
        begun,
    };
    // Whoever thinks about a plan does not keep others from theirs.
    let shown = if job.interactive() && !args.consent.yes {
        let made = job.plan().await?;
        job.show_and_ask(&made, view).await?;
        if made.plan.steps.is_empty() && !args.probe.probe && !job.has_to_record(&made) {
            return Ok(Ending::of(&made.plan, begun).tell(view, Verdict::NothingToDo));
        }
        Some(made.plan)
    } else {
        None
    };
    let place = Place {
        environment: &desired.environment,
        scope: scope_of(desired),
        doing: "apply",
    };
    let work = async |lock: &Lock| job.carry_out(shown, lock, view).await;
    let code = args.lock.under(settings, &interrupts, &backend, place, work).await?;
    backend.close().await?;
    Ok(code)
}

/// An apply.
struct Job<'a> {
    args: &'a Args,
    given: &'a Given,
    interrupts: &'a Interrupts,
    backend: &'a dyn Sandboxes,
    begun: Instant,
}

impl Job<'_> {
    fn interactive(&self) -> bool {
        self.given.settings.interactive && !self.args.run.json && !self.args.spec.is_stdin()
    }

    async fn plan(&self) -> Result<Made, Error> {
        let Given {
            settings,
            plan_args,
            loaded,
            ..
        } = self.given;
        let planning = session::make_plan(settings, &loaded.desired, self.backend, plan_args, false);
        self.interrupts.guard(planning).await?
    }

    /// Shows the plan and comes back when there is a yes to it: `true` when somebody was asked.
    async fn show_and_ask(&self, made: &Made, view: &mut dyn View) -> Result<bool, Error> {
        let plan = &made.plan;
        let asked = async {
            if let Some(saved) = &self.given.saved {
                saved.check(&self.given.loaded, made)?;
            }
            view.plan(plan);
            if let Some(refused) = session::refusals(plan, Some(&self.given.loaded)) {
                return Err(refused);
            }
            if plan.in_sync() && (plan.spec_changes.is_empty() || plan.steps.is_empty()) {
                return Ok(false);
            }
            let (settings, interactive) = (&self.given.settings, self.interactive());
            if let Some(refused) = self.unread_spec(plan).filter(|_| !interactive) {
                return Err(refused);
            }
            // Nobody says yes to what somebody else may have written, without having seen that.
            let consented = ConsentArgs {
                yes: self.args.consent.yes && (plan.spec_changes.is_empty() || self.args.allow_changed_spec),
                ..self.args.consent
            };
            consent(settings, self.interrupts, plan, consented, Purpose::Apply, interactive).await
        };
        let asked = asked.await;
        asked.inspect_err(|error| {
            Ending::of(plan, self.begun).tell(view, verdict_of(error));
        })
    }

    /// Files of the spec that a sandbox may have written and that nobody has said yes to, as what stands in the way.
    fn unread_spec(&self, plan: &Plan) -> Option<Error> {
        if plan.spec_changes.is_empty() || self.args.allow_changed_spec {
            return None;
        }
        let diagnostics = plan.spec_changes.iter().map(|change| {
            let at = Source::new(&change.file, "").place(0, 0);
            Diagnostic::new("plan::changed-spec", change.to_string(), &at, "")
                .with_help("look at the change, then pass --allow-changed-spec if it is yours")
        });
        Some(Error::Refused {
            diagnostics: diagnostics.collect(),
            sources: self.given.loaded.sources.clone(),
            code: Code::Refused,
        })
    }

    /// What there is to record of the spec's own files when nothing else is to be done; see [`spec_record`].
    fn settled_record(&self, selected: &BTreeSet<SandboxName>, live: &Live) -> Option<SpecRecord> {
        let desired = &self.given.loaded.desired;
        let now = read_again(&desired.files);
        spec_record(desired, selected, live, Some(&now), self.backend.capabilities())
    }

    /// Whether the spec's own files were not recorded yet as they are, and somebody has said yes to them.
    fn has_to_record(&self, made: &Made) -> bool {
        let kept = made.live.spec_records.get(&made.plan.environment);
        self.may_record(&made.plan) && self.settled_record(&made.plan.selected, &made.live).as_ref() != kept
    }

    /// Whether what the spec's own files say has somebody's yes. Where nothing is to be done, nobody was asked.
    fn may_record(&self, plan: &Plan) -> bool {
        let asked = !(plan.in_sync() && plan.steps.is_empty());
        plan.spec_changes.is_empty() || self.args.allow_changed_spec || asked
    }

    /// The part that holds the lock. What was shown and said yes to before must still be what there is to do.
    async fn carry_out(&self, shown: Option<Plan>, lock: &Lock, view: &mut dyn View) -> Result<Worked<Code>, Error> {
        let mut made = self.plan().await?;
        let mut seen = shown;
        if seen.is_none() && self.show_and_ask(&made, view).await? {
            // It took time to answer, in which hands may have moved.
            let again = self.plan().await?;
            seen = Some(std::mem::replace(&mut made, again).plan);
        }
        let plan = &made.plan;
        let mut ending = Ending::of(plan, self.begun);
        ending.spec = Some((&self.given.loaded.sources, self.given.settings.diagnostics));
        if let Some(seen) = seen {
            // What a kept plan was made from is more than what it does.
            let saved = self.given.saved.as_ref();
            let same = match saved.map_or(Ok(()), |saved| saved.check(&self.given.loaded, &made)) {
                Ok(()) if seen != *plan => Err(Error::Moved),
                same => same,
            };
            if let Err(moved) = same {
                ending.tell(view, Verdict::Refused);
                return Err(moved);
            }
        }
        let desired = &self.given.loaded.desired;
        let work = Work {
            plan,
            desired: Some(desired),
            live: &made.live,
        };
        if let Err(error) = keep_key(self.backend, desired, &made.live, plan).await {
            ending.tell(view, Verdict::Failed);
            return Err(error.into());
        }
        let environment = &desired.environment;
        let mut kept = made.live.spec_records.get(environment).cloned();
        let may_record = self.may_record(plan);
        if may_record && !plan.steps.is_empty() {
            // From here on sandboxes may write to it.
            let capabilities = self.backend.capabilities();
            let record = spec_record(desired, &plan.selected, &made.live, None, capabilities);
            if let Err(error) = keep_spec_record(self.backend, environment, kept.as_ref(), record.as_ref()).await {
                ending.tell(view, Verdict::Failed);
                return Err(error.into());
            }
            kept = record;
        }
        // Records may be due even where nobody sees a difference.
        let report = self
            .args
            .run
            .carry_out(&work, self.backend, self.interrupts, view)
            .await;
        let ended = verdict_on(&report, lock);
        ending.report = Some(report);
        let mut after = None;
        let ended = match ended {
            Verdict::Done if plan.in_sync() => Verdict::NothingToDo,
            Verdict::Done => {
                let verified = verify(self.backend, desired, (plan, &made.live), &made.options);
                match self.interrupts.guard(verified).await {
                    Ok(Ok(verified)) => {
                        let in_sync = verified.plan.in_sync();
                        ending.remaining = Some(verified.plan);
                        after = Some(verified.live);
                        if in_sync { Verdict::Done } else { Verdict::Failed }
                    }
                    Ok(Err(error)) => {
                        ending.tell(view, Verdict::Failed);
                        return Err(error.into());
                    }
                    Err(_) => interrupted(lock),
                }
            }
            ended => ended,
        };
        if may_record
            && matches!(ended, Verdict::Done | Verdict::NothingToDo | Verdict::Failed)
            && lock.loss().is_none()
        {
            let recorded = self.record_spec(&made, after, kept.as_ref()).await;
            if let Err(error) = recorded {
                ending.tell(view, Verdict::Failed);
                return Err(error);
            }
        }
        if matches!(ended, Verdict::Done | Verdict::NothingToDo) && lock.loss().is_none() {
            self.tidy(environment).await;
        }
        let code = ending.tell(view, ended);
        let code = match code {
            Code::Done if self.args.probe.probe => self.probe(&made, view).await?,
            code => code,
        };
        Ok(Worked::reported(code, ending.report.as_ref()))
    }
}

impl Job<'_> {
    /// Records the spec's own files as they are when all is done, also where something of it failed.
    async fn record_spec(&self, made: &Made, after: Option<Live>, kept: Option<&SpecRecord>) -> Result<(), Error> {
        let desired = &self.given.loaded.desired;
        let after = match after {
            Some(after) => after,
            None if made.plan.steps.is_empty() => made.live.clone(),
            // Nothing that could be written to, before or after.
            None if kept.is_none() => return Ok(()),
            None => Live {
                spec_records: made.live.spec_records.clone(),
                ..observe_scope(self.backend, &scope_of(desired)).await?
            },
        };
        let record = self.settled_record(&made.plan.selected, &after);
        keep_spec_record(self.backend, &desired.environment, kept, record.as_ref()).await?;
        Ok(())
    }

    /// Removes what instances that somebody else has deleted have left. That it stays does no harm.
    async fn tidy(&self, environment: &EnvironmentName) {
        if let Err(error) = self.backend.tidy(environment).await {
            let text = format!("note: {error}; `sbx-apply destroy` does, or the next apply");
            self.given.settings.output.note(&text);
        }
    }

    /// Looks out of what was applied.
    async fn probe(&self, made: &Made, view: &mut dyn View) -> Result<Code, Error> {
        let desired = &self.given.loaded.desired;
        let looked = async {
            let live = observe(self.backend, desired, &made.plan.selected).await?;
            Ok::<_, Error>(self.args.probe.run(self.backend, desired, &made.plan, &live).await)
        };
        let probes = self.interrupts.guard(looked).await??;
        view.probes(&probes);
        Ok(if leaks(&probes) { Code::Drift } else { Code::Done })
    }
}

/// What to say of steps that were carried out.
pub(super) fn verdict_on(report: &Report, lock: &Lock) -> Verdict {
    match report {
        report if report.interrupted => interrupted(lock),
        report if !report.is_complete() => Verdict::Failed,
        _ => Verdict::Done,
    }
}

/// What to say when something was broken off: somebody asked for that, or the lock was lost.
pub(super) fn interrupted(lock: &Lock) -> Verdict {
    match lock.loss() {
        Some(_) => Verdict::Failed,
        None => Verdict::Interrupted,
    }
}

/// How an error ends an apply that no step of it does.
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
    /// What excerpts are drawn from, and how.
    pub(super) spec: Option<(&'a Sources, Style)>,
}

impl<'a> Ending<'a> {
    /// Of a plan of which nothing is carried out yet.
    pub(super) fn of(plan: &'a Plan, begun: Instant) -> Self {
        Self {
            plan,
            begun,
            report: None,
            remaining: None,
            spec: None,
        }
    }

    /// Tells the end, and gives the code for it.
    pub(super) fn tell(&self, view: &mut dyn View, verdict: Verdict) -> Code {
        view.outcome(&Outcome {
            verdict,
            plan: self.plan,
            report: self.report.as_ref(),
            remaining: self.remaining.as_ref(),
            spec: self.spec,
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
