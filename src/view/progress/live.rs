//! Live lines: one for each sandbox that is being worked on, and a total.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::super::palette::{Tone, paint};
use super::super::{Output, clean};
use super::plain::{DRAINING, LOCK_LOST, output_line};
use crate::apply::Event;
use crate::model::SandboxName;
use crate::plan::{Plan, Step, StepId};
use crate::view::human::{is_shown, took};

#[derive(Debug)]
pub(super) struct Live {
    output: Output,
    lines: MultiProgress,
    total: ProgressBar,
    sandboxes: BTreeMap<SandboxName, Sandbox>,
    /// Names are padded to this, so that titles stand below each other.
    width: usize,
}

/// One sandbox: how much of it is left, and its line while something runs.
#[derive(Debug)]
struct Sandbox {
    left: usize,
    steps: usize,
    lost: bool,
    begun: Option<Instant>,
    running: Vec<(StepId, String)>,
    line: Option<ProgressBar>,
}

impl Live {
    pub(super) fn new(output: Output, plan: &Plan) -> Self {
        let lines = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        let mut sandboxes: BTreeMap<SandboxName, Sandbox> = BTreeMap::new();
        for step in &plan.steps {
            let sandbox = sandboxes.entry(step.sandbox.clone()).or_insert(Sandbox {
                left: 0,
                steps: 0,
                lost: false,
                begun: None,
                running: Vec::new(),
                line: None,
            });
            sandbox.left += 1;
            sandbox.steps += usize::from(is_shown(step));
        }
        let total = lines.add(ProgressBar::new(plan.steps.len() as u64));
        total.set_style(style("  {bar:24} {pos}/{len} steps  {elapsed}"));
        total.enable_steady_tick(Duration::from_millis(200));
        let width = sandboxes
            .keys()
            .map(|name| name.as_str().len())
            .max()
            .unwrap_or(0)
            .min(24);
        Self {
            output,
            lines,
            total,
            sandboxes,
            width,
        }
    }

    pub(super) fn event(&mut self, event: &Event<'_>) {
        match event {
            Event::Started(step) => self.started(step),
            Event::Output { step, line, .. } => self.print(&output_line(step, line)),
            Event::Finished { step, .. } => self.ended(step, false),
            Event::Failed { step, elapsed, .. } => {
                self.print(&format!(
                    "{} {:width$}  {}  {}",
                    paint(Tone::Wrong, "✗"),
                    step.sandbox,
                    clean(&step.title),
                    paint(Tone::Wrong, format!("failed after {}", took(*elapsed))),
                    width = self.width
                ));
                self.ended(step, true);
            }
            Event::Skipped { step, .. } => self.ended(step, true),
            Event::LockLost => self.print(&paint(Tone::Warning, LOCK_LOST)),
            Event::Draining => self.print(&paint(Tone::Warning, DRAINING)),
        }
    }

    fn started(&mut self, step: &Step) {
        let width = self.width;
        let Some(sandbox) = self.sandboxes.get_mut(&step.sandbox) else {
            return;
        };
        sandbox.begun.get_or_insert_with(Instant::now);
        if !is_shown(step) {
            return;
        }
        sandbox.running.push((step.id.clone(), clean(&step.title).into_owned()));
        let message = sandbox.message();
        let line = sandbox.line.get_or_insert_with(|| {
            let line = self.lines.insert_before(&self.total, ProgressBar::new_spinner());
            line.set_style(style("{spinner} {prefix}  {wide_msg} {elapsed:>4}"));
            line.set_prefix(format!("{:width$}", step.sandbox));
            line.enable_steady_tick(Duration::from_millis(100));
            line
        });
        line.reset_elapsed();
        line.set_message(message);
    }

    fn ended(&mut self, step: &Step, lost: bool) {
        self.total.inc(1);
        let Some(sandbox) = self.sandboxes.get_mut(&step.sandbox) else {
            return;
        };
        sandbox.left = sandbox.left.saturating_sub(1);
        sandbox.lost |= lost;
        sandbox.running.retain(|(id, _)| *id != step.id);
        if !sandbox.running.is_empty() {
            if let Some(line) = &sandbox.line {
                line.set_message(sandbox.message());
            }
            return;
        }
        // The next step follows at once, so the line stays for it.
        if sandbox.left > 0 && !lost {
            return;
        }
        if let Some(line) = sandbox.line.take() {
            line.finish_and_clear();
            self.lines.remove(&line);
        }
        if !sandbox.lost && sandbox.steps > 0 {
            let text = format!(
                "{} {:width$}  {}",
                paint(Tone::Added, "✓"),
                step.sandbox,
                paint(
                    Tone::Faint,
                    format!(
                        "{}, {}",
                        super::super::human::counted(sandbox.steps, "step", "steps"),
                        took(sandbox.begun.map(|begun| begun.elapsed()).unwrap_or_default())
                    )
                ),
                width = self.width
            );
            self.print(&text);
        }
    }

    /// Writes a line that stays, above the live ones.
    fn print(&self, text: &str) {
        self.lines.suspend(|| self.output.note(text));
    }

    pub(super) fn close(self) {
        // Lines that cannot be drawn cannot be cleared either.
        let _ = self.lines.clear();
    }
}

impl Sandbox {
    fn message(&self) -> String {
        let titles: Vec<&str> = self.running.iter().map(|(_, title)| title.as_str()).collect();
        titles.join(", ")
    }
}

fn style(template: &str) -> ProgressStyle {
    // The templates stand in this file; one that does not parse would show as the default.
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("━╸─")
}
