//! `snapshot delete`: one less.

use std::ffi::OsString;

use super::super::super::Code;
use super::super::super::consent::{ConsentArgs, Loss, consent_to};
use super::super::super::error::Error;
use super::super::super::interrupt::Interrupts;
use super::super::super::lock::{LockArgs, Place, Worked};
use super::super::super::sandbox::{Named, find, interactive, refused};
use super::super::super::session;
use super::super::super::settings::Settings;
use crate::apply::{Lock, scope_of};
use crate::view::clean;

const EXAMPLES: &str = "\
Where another sandbox was cloned from it, consent is needed as for what loses data: the clone stays,
but cannot be made again from it. One that somebody else took is left alone (4).

Examples:
  sbx-apply snapshot delete task-1 before-upgrade
  sbx-apply snapshot delete sbx.kdl base ready --allow-data-loss";

/// Arguments of `snapshot delete`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, override_usage = "sbx-apply snapshot delete [OPTIONS] [SPEC] <SANDBOX> <LABEL>")]
pub(super) struct Args {
    /// Spec, as everywhere, the sandbox's name in it, and the snapshot's
    #[arg(value_name = "SPEC SANDBOX LABEL", num_args = 1..=3, required = true)]
    words: Vec<OsString>,

    #[command(flatten)]
    consent: ConsentArgs,

    #[command(flatten)]
    lock: LockArgs,
}

/// Asks, and deletes it.
pub(super) async fn run(args: &Args, settings: &Settings) -> Result<Code, Error> {
    let named = Named::of(&args.words, &["LABEL"])?;
    let label = &named.rest[0];
    let loaded = session::load(settings, &named.spec)?;
    let desired = &loaded.desired;
    let interrupts = Interrupts::listen();
    let backend = interrupts.guard(session::open(settings, &desired.backend)).await??;
    let found = interrupts.guard(find(&*backend, &loaded, &named.sandbox)).await??;
    if !super::is_ours(&found, super::there(&found, label)?) {
        return Err(refused(
            &loaded,
            "snapshot::not-ours",
            format!("the snapshot `{label}` of `{}` was not taken by this tool", found.name),
            "who took it may delete it, with the backend's own tools",
        ));
    }
    let clones = found.clones_of(label);
    let loss = (!clones.is_empty()).then(|| Loss {
        what: format!(
            "`{label}` of `{}` is needed to make {} again",
            found.name,
            clones.join(", ")
        ),
        consented: "deleting it",
    });
    let prompt = format!("Delete the snapshot {} of {}?", clean(label), found.name);
    let asked = interactive(settings, &named.spec);
    consent_to(settings, &interrupts, args.consent, loss.as_ref(), &prompt, asked).await?;
    let place = Place {
        environment: &desired.environment,
        scope: scope_of(desired),
        doing: "snapshot delete",
    };
    let work = async |_: &Lock| {
        let found = super::again(&*backend, &loaded, &found).await?;
        // Somebody may have cloned it since.
        if found.clones_of(label) != clones {
            return Err(Error::Moved);
        }
        backend.delete_snapshot(&found.instance.name, label).await?;
        Ok(Worked::whole(()))
    };
    args.lock.under(settings, &interrupts, &backend, place, work).await?;
    backend.close().await?;
    settings
        .output
        .note(&format!("Deleted the snapshot `{}` of `{}`.", clean(label), found.name));
    let declared = desired.sandboxes.get(&found.name);
    if declared.is_some_and(|sandbox| sandbox.snapshots.iter().any(|(name, _)| name.as_str() == label)) {
        settings
            .output
            .note("The spec declares it: the next apply takes it again.");
    }
    Ok(Code::Done)
}
