//! Plans in files: `plan --out`, and what `apply` does with one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::error::Error;
use super::session::{Made, PlanArgs, SpecArg};
use super::settings::Settings;
use crate::model::{Digest, SandboxName};
use crate::plan::Plan;
use crate::plan::saved::{Saved, SavedInput, SavedOptions, SavedState, moved, state};
use crate::spec::{Loaded, Rejected};
use crate::view::json::{self, FORMAT_VERSION, PlanDocument};

/// A kept plan has at most so many bytes: 256 MiB. One for 5,000 sandboxes with some files has about 20.
const LIMIT: u64 = 256 << 20;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Codes of diagnostics that say that a source is not what it was when the plan was made: then the spec made sense.
const SOURCES: [&str; 8] = [
    "spec::missing-source",
    "spec::unreadable",
    "spec::source-not-a-file",
    "spec::source-not-a-folder",
    "spec::source-too-large",
    "spec::tree-too-large",
    "spec::special-file",
    "spec::more-in-folder",
];

/// A plan that was read from a file, whole and of this version.
#[derive(Debug)]
pub(super) struct SavedPlan {
    saved: Saved,
    /// The plan as it was shown.
    document: Value,
}

/// Where a plan is to be kept, checked before anything else is done.
pub(super) fn check_target(path: &Path, spec: &SpecArg) -> Result<(), Error> {
    if spec.is_stdin() {
        return Err(Error::usage(
            "--out: a spec from standard input cannot be read again when the plan is applied",
            "put the spec into a file",
        ));
    }
    if !is_saved(path) {
        return Err(Error::usage(
            format!("--out: {} does not end in .json", path.display()),
            "`apply` knows a kept plan by that ending",
        ));
    }
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io(format!("cannot write {}", path.display()), error)),
        // Only an older plan is written over.
        Ok(there) if there.is_file() && read_document(path).is_ok_and(|document| document.get("saved").is_some()) => {
            Ok(())
        }
        Ok(_) => Err(Error::usage(
            format!("--out: {} is there already, and is no kept plan", path.display()),
            "name another file, or remove this one",
        )),
    }
}

/// Whether a path is that of a kept plan, by its name.
pub(super) fn is_saved(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "json")
}

/// Keeps a plan: in one piece, for its owner only.
pub(super) fn write(
    path: &Path,
    settings: &Settings,
    spec: &SpecArg,
    args: &PlanArgs,
    loaded: &Loaded,
    made: &Made,
) -> Result<(), Error> {
    let spec = spec.find()?;
    let Some(spec) = spec.to_str() else {
        return Err(Error::usage("--out: the spec's path is not UTF-8", "rename it"));
    };
    let choice = &loaded.desired.backend;
    let ignore = settings
        .ignore
        .iter()
        .map(|(sandbox, field)| format!("{sandbox}/{field}"));
    let saved = Saved {
        version: VERSION.to_owned(),
        spec: spec.to_owned(),
        inputs: inputs(&loaded.sources.digests()),
        options: SavedOptions {
            environment: settings.environment.clone(),
            backend: settings.backend.clone(),
            variables: settings.variables.clone(),
            ignore: ignore.collect(),
            prune: args.prune,
            targets: args.targets.clone(),
            connection: settings.place(choice),
        },
        state: state_of(loaded, made),
        digest: String::new(),
    };
    let mut document = value(&PlanDocument {
        saved: Some(&saved),
        ..PlanDocument::of(&made.plan)
    });
    let digest = seal(&mut document);
    document["saved"]["digest"] = Value::String(digest);
    let text = json::pretty(&document);
    put(path, text.as_bytes()).map_err(|error| Error::io(format!("cannot write {}", path.display()), error))
}

fn put(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    // Made for its owner only; what variables say stands in it.
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    file.write_all(b"\n")?;
    file.as_file().sync_all()?;
    file.persist(path).map(drop).map_err(|error| error.error)
}

fn inputs(digests: &[crate::spec::SourceDigest]) -> Vec<SavedInput> {
    let input = |input: &crate::spec::SourceDigest| SavedInput {
        path: input.path.clone(),
        sha256: input.digest.to_string(),
    };
    digests.iter().map(input).collect()
}

fn state_of(loaded: &Loaded, made: &Made) -> std::collections::BTreeMap<String, SavedState> {
    let selected = |name: &SandboxName| made.plan.selected.contains(name);
    let pruned = made.options.prune && made.options.targets.is_empty();
    state(&loaded.desired, &made.live, selected, pruned)
}

fn value(document: &PlanDocument<'_>) -> Value {
    // Strings, numbers, lists and maps with string keys always serialize.
    serde_json::to_value(document).unwrap_or_default()
}

/// The digest of a document, as [`Saved::digest`] says. Leaves its own place empty.
fn seal(document: &mut Value) -> String {
    document["saved"]["digest"] = Value::String(String::new());
    Digest::of(document.to_string().as_bytes()).to_string()
}

fn read_document(path: &Path) -> Result<Value, Error> {
    let unreadable = |error| Error::io(format!("cannot read {}", path.display()), error);
    // A pipe that nobody writes to must not be waited for.
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file: File = file.map_err(unreadable)?;
    let mut bytes = Vec::new();
    let size = file.take(LIMIT + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    let no_plan = |why: String| {
        Error::usage(
            format!("{} is no kept plan: {why}", path.display()),
            "`plan --out FILE.json` makes one",
        )
    };
    if size as u64 > LIMIT {
        return Err(no_plan(format!("it has more than {} MiB", LIMIT >> 20)));
    }
    serde_json::from_slice(&bytes).map_err(|error| no_plan(error.to_string()))
}

impl SavedPlan {
    /// Reads a kept plan.
    pub(super) fn read(path: &Path) -> Result<Self, Error> {
        let mut document = read_document(path)?;
        let shown = path.display();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        if document["saved"].is_null() {
            return Err(Error::usage(
                format!("{shown} is no kept plan: it does not say what it was made from"),
                "`plan --out FILE.json` makes one; what `plan --json` prints is only for reading",
            ));
        }
        let again = "make the plan again with this version";
        let (format, version) = (text(&document["format_version"]), text(&document["saved"]["version"]));
        if format != FORMAT_VERSION {
            return Err(Error::usage(
                format!("{shown} has the format version \"{format}\", and this program knows \"{FORMAT_VERSION}\""),
                again,
            ));
        }
        if version != VERSION {
            return Err(Error::usage(
                format!("{shown} was made by version {version}, and this is {VERSION}"),
                again,
            ));
        }
        let told = text(&document["saved"]["digest"]);
        if seal(&mut document) != told {
            return Err(Error::usage(
                format!("{shown} is not as it was written: it has been edited or damaged"),
                "make the plan again",
            ));
        }
        let saved = serde_json::from_value(document["saved"].take())
            .map_err(|error| Error::usage(format!("{shown} is no kept plan: {error}"), "make the plan again"))?;
        Ok(Self { saved, document })
    }

    /// The spec that it was made from.
    pub(super) fn spec(&self) -> SpecArg {
        SpecArg {
            spec: Some(PathBuf::from(&self.saved.spec)),
        }
    }

    /// The settings to make it again with.
    pub(super) fn settings(&self, settings: &Settings) -> Result<Settings, Error> {
        settings.pinned_to(&self.saved.options).map_err(|flag| differs(&flag))
    }

    /// How it was planned. What the command line says may only be the same.
    pub(super) fn plan_args(&self, given: &PlanArgs) -> Result<PlanArgs, Error> {
        let options = &self.saved.options;
        if given.prune && !options.prune {
            return Err(differs("--prune"));
        }
        if !given.targets.is_empty() && given.targets != options.targets {
            return Err(differs("--target"));
        }
        Ok(PlanArgs {
            prune: options.prune,
            targets: options.targets.clone(),
        })
    }

    /// A spec that no longer loads has moved, where its files or its sources are others.
    pub(super) fn why_rejected(&self, rejected: Rejected) -> Error {
        let texts = inputs(&rejected.sources.digests());
        let mut moved: Vec<String> = texts
            .iter()
            .filter(|input| !self.saved.inputs.contains(input))
            .map(|input| format!("{} has changed", input.path))
            .collect();
        let of_sources = rejected
            .diagnostics
            .iter()
            .filter(|problem| SOURCES.contains(&problem.code));
        moved.extend(of_sources.map(|problem| problem.message.clone()));
        if moved.is_empty() {
            return rejected.into();
        }
        Error::Outdated { moved }
    }

    /// Whether all that it was made from is as it was, and gives the same plan again.
    pub(super) fn check(&self, loaded: &Loaded, made: &Made) -> Result<(), Error> {
        let mut lines = moved(&self.saved, &inputs(&loaded.sources.digests()), &state_of(loaded, made));
        if lines.is_empty() {
            lines = self.other_plan(&made.plan);
        }
        if lines.is_empty() {
            return Ok(());
        }
        Err(Error::Outdated { moved: lines })
    }

    /// What the plan is about that it was not, or was about and is not: the backend's own abilities may have changed,
    /// files that nobody declared have come, an accepted difference's day may be over.
    fn other_plan(&self, plan: &Plan) -> Vec<String> {
        let now = value(&PlanDocument::of(plan));
        let same = |key: &str| self.document[key] == now[key];
        if ["environment", "backend", "changes", "steps", "refusals"]
            .into_iter()
            .all(same)
        {
            return Vec::new();
        }
        let changes = |document: &Value| document["changes"].as_array().cloned().unwrap_or_default();
        let (before, after) = (changes(&self.document), changes(&now));
        let only = |these: &[Value], those: &[Value]| -> Vec<String> {
            let only = these.iter().filter(|change| !those.contains(change));
            only.map(|change| {
                let text = |key: &str| change[key].as_str().unwrap_or_default().to_owned();
                format!("{}: {} {}", text("sandbox"), text("kind"), text("name"))
                    .trim_end()
                    .to_owned()
            })
            .collect()
        };
        let mut lines = only(&before, &after);
        lines.extend(only(&after, &before));
        lines.sort_unstable();
        lines.dedup();
        if lines.is_empty() {
            lines.push("the steps of the plan".to_owned());
        }
        lines
    }
}

fn differs(flag: &str) -> Error {
    Error::usage(
        format!("{flag} is not what this plan was made with"),
        "leave it out: the plan knows; or make another plan",
    )
}
