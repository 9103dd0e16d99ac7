//! The order in which steps are carried out: each as soon as all that it needs is done, so many at once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::{mpsc, watch};

use super::perform::Site;
use super::progress::Progress;
use super::{Event, Failure, Report, StepError, Stream};
use crate::backend::Sandboxes;
use crate::model::{Desired, Enforcement, Live};
use crate::plan::{Op, Plan, Step, StepId};

/// How far an apply has been interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Interrupt {
    /// Not at all.
    #[default]
    None,
    /// Start nothing new, finish what runs.
    Drain,
    /// The same, and write nothing more down: the environment may be somebody else's by now.
    Lost,
    /// Leave at once.
    Abort,
}

/// What has become of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Waiting(usize),
    Running,
    Done,
    /// Failed, or needs something that did: the failed step.
    Lost(StepId),
}

/// Applies a plan: carries out its steps, at most `parallel` at once. A step that fails takes those that need it
/// with it and no other. Events come in the order in which things happen.
///
/// The caller has seen to consent and to [`Plan::refusals`]; `live` is what the plan was made from.
pub async fn apply(
    plan: &Plan,
    desired: Option<&Desired>,
    live: &Live,
    backend: &dyn Sandboxes,
    parallel: usize,
    mut interrupt: watch::Receiver<Interrupt>,
    mut on_event: impl FnMut(Event<'_>),
) -> Report {
    let progress = Progress::of(plan, live);
    let is_lost = interrupt.clone();
    let site = Site {
        backend,
        desired,
        progress: &progress,
        interrupt: &is_lost,
    };
    let graph = plan.graph();
    let mut states: Vec<State> = (0..plan.steps.len())
        .map(|step| State::Waiting(graph.waits(step)))
        .collect();
    let mut ready: BTreeSet<usize> = (0..plan.steps.len()).filter(|step| graph.waits(*step) == 0).collect();
    let mut running = FuturesUnordered::new();
    let mut report = Report::default();
    let (sender, mut lines) = mpsc::unbounded_channel::<(usize, Stream, String)>();
    let mut level = *interrupt.borrow();
    let mut listening = true;

    loop {
        while level == Interrupt::None && running.len() < parallel.max(1) {
            let Some(index) = ready.pop_first() else { break };
            states[index] = State::Running;
            on_event(Event::Started(&plan.steps[index]));
            let sender = sender.clone();
            running.push(async move {
                let begun = Instant::now();
                let result = carry_out(&site, plan, index, sender).await;
                (index, begun.elapsed(), result)
            });
        }
        if running.is_empty() {
            break;
        }
        tokio::select! {
            biased;
            Some((index, stream, line)) = lines.recv() => {
                on_event(Event::Output { step: &plan.steps[index], stream, line });
            }
            changed = interrupt.changed(), if listening => {
                let next = *interrupt.borrow();
                // A sender that is gone cannot interrupt any more.
                listening = changed.is_ok();
                if next > level {
                    if next == Interrupt::Lost {
                        on_event(Event::LockLost);
                    } else if !report.interrupted {
                        on_event(Event::Draining);
                    }
                    level = next;
                    report.interrupted = true;
                }
                // Who has lost the lock must not even finish: somebody else works on the same by now.
                if level >= Interrupt::Lost {
                    report.left_running = !running.is_empty();
                    break;
                }
            }
            Some((index, elapsed, result)) = running.next() => {
                while let Ok((from, stream, line)) = lines.try_recv() {
                    on_event(Event::Output { step: &plan.steps[from], stream, line });
                }
                let step = &plan.steps[index];
                match result {
                    Ok(()) => {
                        states[index] = State::Done;
                        on_event(Event::Finished { step, elapsed });
                        report.done.push(step.id.clone());
                        for next in graph.waiting_for(index) {
                            if let State::Waiting(left) = &mut states[next] {
                                *left -= 1;
                                if *left == 0 {
                                    ready.insert(next);
                                }
                            }
                        }
                    }
                    Err(error) => {
                        states[index] = State::Lost(step.id.clone());
                        let failure = Failure::of(step, desired, error);
                        on_event(Event::Failed { step, elapsed, failure: &failure });
                        report.failed.push(failure);
                        skip(plan, &graph, index, &mut states, &mut report, &mut on_event);
                    }
                }
            }
        }
    }
    if level == Interrupt::Drain {
        let done = plan
            .steps
            .iter()
            .zip(&states)
            .filter(|(_, state)| **state == State::Done);
        let instances: BTreeMap<_, _> = done.map(|(step, _)| (&step.sandbox, &step.instance)).collect();
        for (sandbox, instance) in instances {
            site.write_down(sandbox, instance).await;
        }
    }
    let left = states
        .iter()
        .zip(&plan.steps)
        .filter(|(state, _)| matches!(state, State::Waiting(_) | State::Running));
    report.not_started = left.map(|(_, step)| step.id.clone()).collect();
    report
}

/// Marks everything that needs a failed step.
fn skip(
    plan: &Plan,
    graph: &crate::plan::Graph,
    failed: usize,
    states: &mut [State],
    report: &mut Report,
    on_event: &mut impl FnMut(Event<'_>),
) {
    let because = &plan.steps[failed].id;
    let mut left = vec![failed];
    while let Some(index) = left.pop() {
        for next in graph.waiting_for(index) {
            if matches!(states[next], State::Waiting(_)) {
                states[next] = State::Lost(because.clone());
                on_event(Event::Skipped {
                    step: &plan.steps[next],
                    because,
                });
                report.skipped.push((plan.steps[next].id.clone(), because.clone()));
                left.push(next);
            }
        }
    }
}

/// The step that started what has to be shut off again, because this one could not put its rules in force.
fn start_before(plan: &Plan, failed: usize) -> Option<&Step> {
    let step = &plan.steps[failed];
    let Op::Egress(Some(policy)) = &step.op else {
        return None;
    };
    let mut before = plan.steps[..failed].iter().rev();
    let started = before.find(|other| other.sandbox == step.sandbox && matches!(other.op, Op::Start));
    started.filter(|_| policy.enforce == Enforcement::Guest)
}

/// Carries out one step, its output going along with its number.
async fn carry_out(
    site: &Site<'_>,
    plan: &Plan,
    index: usize,
    sender: mpsc::UnboundedSender<(usize, Stream, String)>,
) -> Result<(), StepError> {
    let (own, mut lines) = mpsc::unbounded_channel();
    let forward = async {
        while let Some((stream, line)) = lines.recv().await {
            // The receiver lives as long as the loop that polls this.
            let _ = sender.send((index, stream, line));
        }
    };
    let step = &plan.steps[index];
    let (result, ()) = tokio::join!(site.perform(step, own), forward);
    if result.is_err() {
        site.progress.take_back(step);
        if let Some(start) = start_before(plan, index) {
            site.shut_off(start).await;
        }
        site.write_down(&step.sandbox, &step.instance).await;
    }
    result
}
