//! `snapshot restore`: back to what was.

use std::ffi::OsString;

use super::super::super::Code;
use super::super::super::consent::{ConsentArgs, Loss, consent_to};
use super::super::super::error::Error;
use super::super::super::interrupt::Interrupts;
use super::super::super::lock::{LockArgs, Place, Worked};
use super::super::super::sandbox::{Found, Named, find, interactive, refused};
use super::super::super::session;
use super::super::super::settings::Settings;
use crate::apply::{Lock, scope_of};
use crate::backend::Changes;
use crate::model::{Labels, Status};
use crate::plan;
use crate::view::clean;

const EXAMPLES: &str = "\
What is on the disk now is lost: a typed yes in a terminal, or --allow-data-loss. `protect true`
refuses it. A running sandbox is stopped for it and started again. Settings, limits and variables
stay as they are; what the disk then lacks of the spec, the next plan shows.

Examples:
  sbx-apply snapshot restore task-1 before-upgrade
  sbx-apply snapshot restore sbx.kdl task-1 ready --allow-data-loss";

/// Arguments of `snapshot restore`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, override_usage = "sbx-apply snapshot restore [OPTIONS] [SPEC] <SANDBOX> <LABEL>")]
pub(super) struct Args {
    /// Spec, as everywhere, the sandbox's name in it, and the snapshot's
    #[arg(value_name = "SPEC SANDBOX LABEL", num_args = 1..=3, required = true)]
    words: Vec<OsString>,

    #[command(flatten)]
    consent: ConsentArgs,

    #[command(flatten)]
    lock: LockArgs,
}

/// Asks, and puts the disk back.
pub(super) async fn run(args: &Args, settings: &Settings) -> Result<Code, Error> {
    let named = Named::of(&args.words, &["LABEL"])?;
    let label = &named.rest[0];
    let loaded = session::load(settings, &named.spec)?;
    let desired = &loaded.desired;
    let interrupts = Interrupts::listen();
    let backend = interrupts.guard(session::open(settings, &desired.backend)).await??;
    let found = interrupts.guard(find(&*backend, &loaded, &named.sandbox)).await??;
    super::there(&found, label)?;
    if found.is_protected(desired) {
        return Err(refused(
            &loaded,
            "plan::protected",
            format!(
                "`{}` is protected, and restoring would lose what is on its disk",
                found.name
            ),
            "apply once with `protect false`",
        ));
    }
    let running = match found.instance.status {
        Status::Stopped => "",
        _ => "; it is stopped for that and started again",
    };
    let newer = match backend.capabilities().bounds.restore_deletes_newer {
        true => newer_than(&found, label),
        false => String::new(),
    };
    let loss = Loss {
        what: format!(
            "`{}` loses what is on its disk now, and gets what `{label}` holds{newer}{running}",
            found.name
        ),
        consented: "restoring it",
    };
    let asked = interactive(settings, &named.spec);
    let prompt = format!("Restore {} to {}?", found.name, clean(label));
    consent_to(settings, &interrupts, args.consent, Some(&loss), &prompt, asked).await?;
    let place = Place {
        environment: &desired.environment,
        scope: scope_of(desired),
        doing: "snapshot restore",
    };
    let work = async |_: &Lock| {
        let found = super::again(&*backend, &loaded, &found).await?;
        // The record first: whoever is stopped in between leaves a disk that has more than its record says, which the
        // next apply sees to. A record that says more than the disk has would hide what is missing.
        let changes = record(&found, label)?;
        backend.configure(&found.instance.name, &changes).await?;
        backend.restore_snapshot(&found.instance.name, label).await?;
        Ok(Worked::whole(()))
    };
    args.lock.under(settings, &interrupts, &backend, place, work).await?;
    backend.close().await?;
    settings.output.note(&format!(
        "Restored `{}` to its snapshot `{}`.",
        found.name,
        clean(label)
    ));
    Ok(Code::Done)
}

/// The snapshots that go with it, where newer ones do; those of the same second may.
fn newer_than(found: &Found, label: &str) -> String {
    let all = &found.instance.snapshots;
    let moment = all.get(label).and_then(|taken| taken.snapshot.created_at);
    let newer = all.values().map(|taken| &taken.snapshot);
    let newer = newer.filter(|taken| taken.label != label && taken.created_at >= moment);
    let newer: Vec<String> = newer.map(|taken| format!("`{}`", clean(&taken.label))).collect();
    match newer.is_empty() {
        true => String::new(),
        false => format!("; its newer snapshots are deleted: {}", newer.join(", ")),
    }
}

/// The record of what is on the disk is the snapshot's own.
fn record(found: &Found, label: &str) -> Result<Changes, Error> {
    let snapshot = super::there(found, label)?;
    let then = super::is_ours(found, snapshot).then(|| snapshot.labels.applied());
    let mut labels = Labels::default();
    labels.set_applied(&plan::restored(&found.instance.labels.applied(), then.as_ref()));
    Ok(Changes {
        labels: labels.0.into_iter().map(|(key, value)| (key, Some(value))).collect(),
        ..Changes::default()
    })
}
