//! What most commands begin with: the spec, the backend, what is live, the plan.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Code;
use super::error::Error;
use super::interrupt::Interrupts;
use super::settings::Settings;
use crate::apply::{find_volumes, observe};
use crate::backend::{Reader, Sandboxes};
use crate::model::{BackendChoice, Desired, EnvironmentName, Live, Place};
use crate::plan::{self, Options, Plan, RefusalKind};
use crate::spec::{self, FILE_LIMIT, Input, Loaded, Request};

/// The files that are looked for where none is named.
const USUAL: [&str; 2] = ["sbx.kdl", "sbx.yaml"];

/// The spec's argument.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct SpecArg {
    /// Spec: a path, or - for standard input [default: sbx.kdl or sbx.yaml here]
    #[arg(value_name = "SPEC")]
    pub(super) spec: Option<PathBuf>,
}

impl SpecArg {
    /// Whether the spec itself comes by standard input, so that nobody can answer there.
    pub(super) fn is_stdin(&self) -> bool {
        self.spec.as_deref() == Some(Path::new("-"))
    }

    /// Where the spec is.
    pub(super) fn find(&self) -> Result<PathBuf, Error> {
        if let Some(path) = &self.spec {
            return Ok(path.clone());
        }
        match usual() {
            (Some(path), None) | (None, Some(path)) => Ok(path),
            (Some(_), Some(_)) => Err(Error::usage(
                format!("this folder has both {} and {}", USUAL[0], USUAL[1]),
                "name the one you mean",
            )),
            (None, None) => Err(Error::usage(
                format!("no spec: this folder has neither {} nor {}", USUAL[0], USUAL[1]),
                "name one, or - for standard input",
            )),
        }
    }
}

/// The usual files that are here.
fn usual() -> (Option<PathBuf>, Option<PathBuf>) {
    let here = |name: &str| Some(PathBuf::from(name)).filter(|path| path.is_file());
    (here(USUAL[0]), here(USUAL[1]))
}

/// Whether a spec would be found where none is named.
fn has_usual() -> bool {
    !matches!(usual(), (None, None))
}

/// Reads the spec.
pub(super) fn load(settings: &Settings, spec: &SpecArg) -> Result<Loaded, Error> {
    let path = spec.find()?;
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder.to_owned(),
        _ => PathBuf::from("."),
    };
    let input = if path == Path::new("-") {
        Input::Text {
            name: "<stdin>".to_owned(),
            bytes: read_stdin()?,
            format: None,
        }
    } else {
        Input::File(path)
    };
    let mut loaded = spec::load(&Request {
        input,
        root: settings.root.clone(),
        environment: settings.environment.clone(),
        backend: settings.backend.clone(),
        variables: settings.variables.clone(),
        allow_unsafe_config: settings.allow_unsafe_config.clone(),
    })?;
    check_ignored(settings, &loaded.desired)?;
    loaded.desired.secrets = settings.caller.secrets(&loaded.desired)?;
    // Where a backend may look for what the spec names by its path. No spec can say that itself.
    let root = settings.root.clone().unwrap_or_else(|| folder.clone());
    let choice = &mut loaded.desired.backend;
    let known: Vec<&str> = settings.registry.settings(&choice.name).collect();
    for (key, folder) in [("folder", folder), ("root", root)] {
        if let Some(real) = known.contains(&key).then(|| folder.canonicalize().ok()).flatten() {
            choice
                .settings
                .insert(key.to_owned(), real.to_string_lossy().into_owned());
        }
    }
    Ok(loaded)
}

/// Which environment, and where: from the spec, or from the flags alone.
pub(super) fn environment_of(settings: &Settings, spec: &SpecArg) -> Result<(EnvironmentName, BackendChoice), Error> {
    let flags_alone =
        spec.spec.is_none() && settings.environment.is_some() && (settings.backend.is_some() || !has_usual());
    let Some(name) = settings.environment.as_deref().filter(|_| flags_alone) else {
        let loaded = load(settings, spec)?;
        return Ok((loaded.desired.environment, loaded.desired.backend));
    };
    Ok((environment_name(name)?, flagged(settings)))
}

/// The name that `--environment` says.
pub(super) fn environment_name(name: &str) -> Result<EnvironmentName, Error> {
    EnvironmentName::new(name).map_err(|error| Error::Usage {
        message: format!("--environment: {error}"),
        hint: None,
    })
}

/// Where, for what is about no spec: as the flags say, or the spec in this folder, if there is one.
pub(super) fn backend_of(settings: &Settings) -> Result<BackendChoice, Error> {
    if settings.backend.is_some() || !has_usual() {
        return Ok(flagged(settings));
    }
    Ok(load(settings, &SpecArg { spec: None })?.desired.backend)
}

/// The backend that the flags name.
fn flagged(settings: &Settings) -> BackendChoice {
    BackendChoice {
        name: settings.backend.clone().unwrap_or_else(|| "local".to_owned()),
        settings: BTreeMap::new(),
        at: Place::nowhere(),
    }
}

/// All of standard input, within bounds.
pub(super) fn read_stdin() -> Result<Vec<u8>, Error> {
    bounded(std::io::stdin().lock()).map_err(|error| Error::io("cannot read standard input", error))
}

/// All of a file, within bounds.
pub(super) fn read_spec(path: &Path) -> Result<Vec<u8>, Error> {
    File::open(path)
        .and_then(bounded)
        .map_err(|error| Error::io(format!("cannot read {}", path.display()), error))
}

/// One byte more than a spec may have at most, so that the spec's own error says so.
fn bounded(from: impl Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(FILE_LIMIT as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A misspelt `--ignore` would go unnoticed, and what it was meant for be repaired.
fn check_ignored(settings: &Settings, desired: &Desired) -> Result<(), Error> {
    let unknown = settings.ignore.iter().find(|(name, _)| {
        desired
            .sandboxes
            .values()
            .all(|sandbox| sandbox.name.as_str() != name && sandbox.base.as_str() != name)
    });
    match unknown {
        Some((name, _)) => Err(unknown_sandbox("--ignore", name, desired)),
        None => Ok(()),
    }
}

fn unknown_sandbox(flag: &str, name: &str, desired: &Desired) -> Error {
    let mut names: Vec<&str> = Vec::new();
    for sandbox in desired.sandboxes.values() {
        if !names.contains(&sandbox.base.as_str()) {
            names.push(sandbox.base.as_str());
        }
    }
    Error::usage(
        format!("{flag}: no sandbox is named `{name}`"),
        format!("the spec has: {}", names.join(", ")),
    )
}

/// The settings to open it with, after what is worth knowing of them.
fn connection(settings: &Settings, choice: &BackendChoice) -> BTreeMap<String, String> {
    if let Some(note) = settings.passed_over(choice) {
        settings.output.note(&note);
    }
    settings.connection(choice)
}

/// Opens the backend for changing.
pub(super) async fn open(settings: &Settings, choice: &BackendChoice) -> Result<Arc<dyn Sandboxes>, Error> {
    let connection = connection(settings, choice);
    Ok(settings.registry.open(&choice.name, &connection).await?)
}

/// Opens the backend for reading.
pub(super) async fn open_reader(settings: &Settings, choice: &BackendChoice) -> Result<Arc<dyn Reader>, Error> {
    let connection = connection(settings, choice);
    Ok(settings.registry.open_reader(&choice.name, &connection).await?)
}

/// A plan, and what it was made from.
#[derive(Debug)]
pub(super) struct Made {
    /// The plan.
    pub(super) plan: Plan,
    /// What was live.
    pub(super) live: Live,
    /// How it was planned.
    pub(super) options: Options,
}

/// Which part of the spec is planned for, and whether what left it goes.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct PlanArgs {
    /// Also delete what left the spec: sandboxes, snapshots, volumes
    #[arg(long)]
    pub(super) prune: bool,

    /// Only this sandbox, and what it depends on; may be repeated
    #[arg(long = "target", value_name = "S")]
    pub(super) targets: Vec<String>,
}

/// In which form a plan is printed.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(super) struct FormatArgs {
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,

    /// Print Markdown, for a comment on a pull request
    #[arg(long, conflicts_with = "json")]
    pub(super) markdown: bool,
}

/// Looks and plans; see [`Options::only_compared`].
pub(super) async fn make_plan(
    settings: &Settings,
    desired: &Desired,
    reader: &dyn Reader,
    args: &PlanArgs,
    only_compared: bool,
) -> Result<Made, Error> {
    let options = Options {
        prune: args.prune,
        only_compared,
        targets: args.targets.clone(),
        ignore: settings.ignore.clone(),
        now: settings.now,
    };
    let unknown = |error: plan::UnknownTarget| unknown_sandbox("--target", &error.0, desired);
    let selected = plan::select(desired, &options.targets).map_err(unknown)?;
    let mut live = observe(reader, desired, &selected).await?;
    if options.prune {
        // What nothing names any more is found by nothing else.
        find_volumes(reader, &desired.environment, &mut live).await?;
    }
    let plan = plan::plan(desired, &live, reader.capabilities(), &options).map_err(unknown)?;
    tracing::info!(changes = plan.changes.len(), steps = plan.steps.len(), "planned");
    Ok(Made { plan, live, options })
}

/// The same for a command that only reads: loads, opens, looks and plans; to compare and no more, or to show what an apply
/// would do.
pub(super) async fn plan_of(
    settings: &Settings,
    spec: &SpecArg,
    args: &PlanArgs,
    only_compared: bool,
) -> Result<(Loaded, Made), Error> {
    let loaded = load(settings, spec)?;
    let interrupts = Interrupts::listen();
    let made = interrupts
        .guard(async {
            let reader = open_reader(settings, &loaded.desired.backend).await?;
            make_plan(settings, &loaded.desired, &*reader, args, only_compared).await
        })
        .await??;
    Ok((loaded, made))
}

/// What stands in a plan's way, as an error.
pub(super) fn refusals(plan: &Plan, loaded: Option<&Loaded>) -> Option<Error> {
    if plan.refusals.is_empty() {
        return None;
    }
    let refused = plan.refusals.iter().any(|refusal| refusal.kind == RefusalKind::Refused);
    Some(Error::Refused {
        diagnostics: plan.refusals.iter().map(|refusal| refusal.diagnostic.clone()).collect(),
        sources: loaded.map(|loaded| loaded.sources.clone()).unwrap_or_default(),
        code: if refused { Code::Refused } else { Code::Error },
    })
}
