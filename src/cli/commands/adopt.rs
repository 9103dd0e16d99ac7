//! `adopt`: an instance that somebody else has made becomes a sandbox of the spec.

use std::path::PathBuf;

use super::super::Code;
use super::super::error::Error;
use super::super::interrupt::Interrupts;
use super::super::lock::{LockArgs, Place, Worked};
use super::super::session::{self, SpecArg};
use super::super::settings::Settings;
use super::super::unknown::{meant, some, unknown_instance};
use crate::apply::{observe_with, scope_of};
use crate::backend::{ErrorKind, Sandboxes};
use crate::model::{Desired, InstanceName, Sandbox};
use crate::plan::{Adoption, adopt, overdue};
use crate::spec::Loaded;
use crate::view::clean;

const NOTES: &str = "\
Writes labels, and nothing else: the instance keeps its name, its settings and its disk. Image,
clone source, set-up steps and seeds count as done; the next plan shows all else that differs as
pending. Refused (4) where the instance has an owner, or the sandbox an instance.

Examples:
  sbx-apply adopt sbx.kdl web my-old-container
  sbx-apply plan sbx.kdl";

/// Arguments of `adopt`.
#[derive(Debug, clap::Args)]
#[command(after_help = NOTES)]
pub(crate) struct Args {
    /// Spec: a path, or - for standard input
    #[arg(value_name = "SPEC")]
    spec: PathBuf,

    /// The sandbox that it becomes, by its name in the spec
    #[arg(value_name = "SANDBOX")]
    sandbox: String,

    /// The instance, by its name on the backend
    #[arg(value_name = "INSTANCE")]
    instance: String,

    #[command(flatten)]
    lock: LockArgs,
}

/// Labels an instance as a sandbox.
pub(super) async fn run(args: &Args, settings: &Settings) -> Result<Code, Error> {
    let spec = SpecArg {
        spec: Some(args.spec.clone()),
    };
    let loaded = session::load(settings, &spec)?;
    let sandbox = sandbox(&loaded.desired, &args.sandbox)?;
    let interrupts = Interrupts::listen();
    let backend = interrupts
        .guard(session::open(settings, &loaded.desired.backend))
        .await??;
    let place = Place {
        environment: &loaded.desired.environment,
        scope: scope_of(&loaded.desired),
        doing: "adopt",
    };
    let instance = InstanceName::observed(args.instance.as_str());
    let work = async |_: &_| take_over(&loaded, sandbox, &instance, &*backend, settings.now).await;
    let (adopted, overdue) = args.lock.under(settings, &interrupts, &backend, place, work).await?;
    backend.close().await?;
    let (name, environment) = (clean(instance.as_str()), &loaded.desired.environment);
    let said = if adopted { "is now" } else { "is already" };
    let spec = clean(&args.spec.to_string_lossy()).into_owned();
    if !settings.output.quiet() {
        settings.output.result(&format!(
            "{name} {said} the sandbox {} of {environment}. See what differs: sbx-apply plan {spec}",
            sandbox.name
        ));
    }
    if let Some(overdue) = overdue {
        settings.output.message(&format!("Mind: {overdue}."));
    }
    Ok(Code::Done)
}

/// The part that holds the lock. Whether anything had to be done, and what there is to know of the instance's ttl.
async fn take_over(
    loaded: &Loaded,
    sandbox: &Sandbox,
    name: &InstanceName,
    backend: &dyn Sandboxes,
    now: u64,
) -> Result<Worked<(bool, Option<String>)>, Error> {
    let live = observe_with(backend, &loaded.desired, name).await?;
    let Some(instance) = live.instances.get(name) else {
        return Err(unknown_instance(name, backend).await?);
    };
    let labels = match adopt(&loaded.desired, sandbox, instance, &live) {
        Ok(Adoption::Done) => return Ok(Worked::whole((false, overdue(sandbox, instance, now)))),
        Ok(Adoption::Labels(labels)) => labels,
        Err(refusal) => {
            return Err(Error::Refused {
                diagnostics: vec![refusal.diagnostic],
                sources: loaded.sources.clone(),
                code: Code::Refused,
            });
        }
    };
    match backend.relabel(name, &instance.labels, &labels).await {
        // Another environment has its own lock.
        Err(error) if error.kind() == ErrorKind::Conflict => Err(Error::Consent {
            message: format!("somebody else has labelled `{name}` at the same moment; nothing was done"),
            details: None,
            hint: Some("look whose it is now, and adopt again if it is nobody's".to_owned()),
        }),
        answer => {
            answer?;
            Ok(Worked::whole((true, overdue(sandbox, instance, now))))
        }
    }
}

/// The sandbox of that name.
fn sandbox<'a>(desired: &'a Desired, name: &str) -> Result<&'a Sandbox, Error> {
    let all = || desired.sandboxes.values();
    if let Some(sandbox) = all().find(|sandbox| sandbox.name.as_str() == name) {
        return Ok(sandbox);
    }
    let of_count: Vec<&str> = all()
        .filter(|sandbox| sandbox.base.as_str() == name)
        .map(|sandbox| sandbox.name.as_str())
        .collect();
    if let [first, ..] = of_count[..] {
        let count = of_count.len();
        return Err(Error::usage(
            format!("`{name}` stands for {count} sandboxes, and one instance is only one of them"),
            format!("name the one, such as {first}"),
        ));
    }
    let names: Vec<&str> = all().map(|sandbox| sandbox.name.as_str()).collect();
    Err(Error::usage(
        format!("no sandbox is named `{name}`{}", meant(name, &names)),
        format!("the spec has: {}", some(&names)),
    ))
}
