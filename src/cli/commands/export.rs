//! `export`: what is there, written as a spec.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use indexmap::IndexMap;

use super::super::Code;
use super::super::error::Error;
use super::super::interrupt::Interrupts;
use super::super::session;
use super::super::settings::Settings;
use super::super::unknown::unknown_instance;
use crate::apply::{look_inside, observe_environment};
use crate::backend::{Reader, Scope};
use crate::model::{
    BackendChoice, Capabilities, Capability, Desired, EnvironmentName, InstanceName, Live, Ownership, SandboxName,
};
use crate::plan::{Matched, export_query, make_whole, read_back};
use crate::spec::{Format, Request, load, sayable, write};

const NOTES: &str = "\
Changes nothing. What an environment owns comes with the files that its record names, and plans
empty at once; an instance that somebody else has made comes with its settings, and plans empty
once it is adopted. What cannot be read back stands in comments: set-up steps, the sources of
trees, secrets, and all that was ever done inside an instance by hand.

Examples:
  sbx-apply export --environment demo --backend incus > demo.kdl
  sbx-apply export web db --backend incus --environment shop --format yaml > shop.yaml";

/// How many bytes of files a spec takes in.
const ROOM: u64 = 384 << 10;

/// Settings of a backend that a spec shares with others.
const SHARED: [&str; 5] = ["remote", "project", "profile", "pool", "network"];

/// The environment of instances that nobody owns, where none is named.
const NAMELESS: &str = "exported";

/// Arguments of `export`.
#[derive(Debug, clap::Args)]
#[command(after_help = NOTES)]
pub(crate) struct Args {
    /// These instances, by their names on the backend, instead of an environment's
    #[arg(value_name = "INSTANCE")]
    instances: Vec<String>,

    /// The language to write
    #[arg(long, value_name = "FORMAT", default_value = "kdl")]
    format: Language,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Language {
    Kdl,
    Yaml,
}

impl From<Language> for Format {
    fn from(language: Language) -> Self {
        match language {
            Language::Kdl => Self::Kdl,
            Language::Yaml => Self::Yaml,
        }
    }
}

/// Prints the spec.
pub(super) async fn run(args: &Args, settings: &Settings) -> Result<Code, Error> {
    let named = settings
        .environment
        .as_deref()
        .map(session::environment_name)
        .transpose()?;
    if named.is_none() && args.instances.is_empty() {
        return Err(Error::usage(
            "neither an environment nor an instance is named",
            "export --environment demo, or export INSTANCE…",
        ));
    }
    let choice = session::backend_of(settings)?;
    let interrupts = Interrupts::listen();
    let read = async {
        let reader = session::open_reader(settings, &choice).await?;
        let mut found = match &named {
            Some(environment) if args.instances.is_empty() => owned(environment, &*reader).await?,
            _ => these(&args.instances, named, &*reader).await?,
        };
        for (_, name) in &found.sandboxes {
            let Some(instance) = found.live.instances.get(name) else {
                continue;
            };
            let query = export_query(instance);
            if !query.is_empty() {
                found
                    .live
                    .files
                    .insert(name.clone(), reader.inspect(name, &query).await?);
            }
        }
        if reader.capabilities().can(Capability::EgressGuest) {
            let names = found.sandboxes.iter().map(|(_, name)| name.clone()).collect();
            look_inside(&*reader, &mut found.live, names).await?;
        }
        Ok::<_, Error>((found, reader.capabilities().clone()))
    };
    let (found, capabilities) = interrupts.guard(read).await??;
    // Not where a daemon happens to be on this machine.
    let mut shared = settings.place(&choice);
    shared.retain(|key, _| SHARED.contains(&key.as_str()));
    let backend = BackendChoice {
        settings: shared,
        ..choice
    };
    let root = settings.root.clone().unwrap_or_else(|| PathBuf::from("."));
    let root = root
        .canonicalize()
        .map_err(|error| Error::io(format!("cannot open {}", root.display()), error))?;
    let written = |with_mounts: Option<&Path>| {
        let (desired, about) = found.desired(backend.clone(), &capabilities, settings.now, with_mounts);
        let text = write(&desired, &found.head(), &about, args.format.into(), &root)?;
        // What is printed is what was meant, whatever the live system holds.
        let request = Request {
            root: Some(root.clone()),
            ..Request::text("<export>", text.as_bytes(), Some(args.format.into()))
        };
        load(&request)?;
        Ok::<_, Error>(text)
    };
    // What hands have mounted may be nothing that a spec would.
    let text = written(Some(&root)).or_else(|_| written(None))?;
    settings.output.result(&text);
    Ok(Code::Done)
}

/// What is exported.
struct Found {
    environment: EnvironmentName,
    /// Each with the name that it has in the spec.
    sandboxes: Vec<(SandboxName, InstanceName)>,
    /// Those that nobody owns yet.
    foreign: BTreeSet<SandboxName>,
    live: Live,
}

impl Found {
    /// The spec, and what there is to say about each sandbox. With those mounts whose sources lie below a folder.
    fn desired(
        &self,
        backend: BackendChoice,
        capabilities: &Capabilities,
        now: u64,
        mounts_below: Option<&Path>,
    ) -> (Desired, BTreeMap<SandboxName, Vec<String>>) {
        let mut about: BTreeMap<SandboxName, Vec<String>> = BTreeMap::new();
        let mut room = ROOM;
        let mut sandboxes = IndexMap::new();
        for (name, instance) in &self.sandboxes {
            let Some(live) = self.live.instances.get(instance) else {
                continue;
            };
            let nothing = Default::default();
            let found = self.live.files.get(instance).unwrap_or(&nothing);
            let mut exported = read_back(name, live, found, &mut room);
            let mut lines = exported.left_out;
            lines.extend(sayable(&mut exported.sandbox, mounts_below));
            if self.foreign.contains(name) {
                lines.push("whatever was installed or written in it by hand is not in here".to_owned());
            }
            about.insert(name.clone(), lines);
            sandboxes.insert(name.clone(), exported.sandbox);
        }
        let desired = Desired {
            environment: self.environment.clone(),
            backend,
            sandboxes,
            secrets: Default::default(),
            files: Vec::new(),
        };
        let mut left_out = |name: &SandboxName, line| about.entry(name.clone()).or_default().push(line);
        let desired = make_whole(desired, &mut left_out, &self.live, &self.sandboxes, capabilities, now);
        (desired, about)
    }

    /// What stands above the spec.
    fn head(&self) -> Vec<String> {
        let mut head = vec!["Written by sbx-apply export.".to_owned()];
        let foreign = self.sandboxes.iter().filter(|(name, _)| self.foreign.contains(name));
        let adopt: Vec<String> = foreign
            .map(|(name, instance)| format!("  sbx-apply adopt SPEC {name} {instance}"))
            .collect();
        if !adopt.is_empty() {
            head.push("Adopt what nobody owns yet, and the plan is empty:".to_owned());
            head.extend(adopt);
        }
        head
    }
}

/// All that an environment owns.
async fn owned(environment: &EnvironmentName, reader: &dyn Reader) -> Result<Found, Error> {
    let live = observe_environment(reader, environment).await?;
    let matched = Matched::owned_by(environment, &live);
    if !matched.refusals.is_empty() {
        return Err(Error::Refused {
            diagnostics: matched.refusals.into_iter().map(|refusal| refusal.diagnostic).collect(),
            sources: Default::default(),
            code: Code::Refused,
        });
    }
    let sandboxes: Vec<_> = matched
        .in_order()
        .into_iter()
        .map(|(name, instance)| (name.clone(), instance.name.clone()))
        .collect();
    if sandboxes.is_empty() {
        return Err(Error::usage(
            format!("the environment `{environment}` owns nothing here"),
            "is it the right backend, and the right project? Instances of others are exported by their names",
        ));
    }
    Ok(Found {
        environment: environment.clone(),
        sandboxes,
        foreign: BTreeSet::new(),
        live,
    })
}

/// Instances by their names. Those that are owned say which environment it is.
async fn these(names: &[String], named: Option<EnvironmentName>, reader: &dyn Reader) -> Result<Found, Error> {
    let nameless = EnvironmentName::new(NAMELESS).ok();
    let wanted: BTreeSet<InstanceName> = names.iter().map(InstanceName::observed).collect();
    let scope = Scope {
        environment: named.clone().or_else(|| nameless.clone()),
        names: wanted.clone(),
    };
    let all = reader.observe(&scope).await?.into_iter();
    let live = Live {
        instances: all
            .filter(|instance| wanted.contains(&instance.name))
            .map(|instance| (instance.name.clone(), instance))
            .collect(),
        ..Live::default()
    };
    if let Some(missing) = wanted.iter().find(|name| !live.instances.contains_key(*name)) {
        return Err(unknown_instance(missing, reader).await?);
    }
    let owners: BTreeMap<&InstanceName, (EnvironmentName, SandboxName)> = live
        .instances
        .iter()
        .filter_map(|(name, instance)| match instance.labels.ownership(name) {
            Ownership::Owned { environment, sandbox } => Some((name, (environment, sandbox))),
            Ownership::Foreign => None,
        })
        .collect();
    let mut environments: BTreeSet<&EnvironmentName> = owners.values().map(|(environment, _)| environment).collect();
    environments.extend(&named);
    if environments.len() > 1 {
        let all: Vec<String> = environments.iter().map(ToString::to_string).collect();
        return Err(Error::usage(
            format!("these belong to several environments: {}", all.join(", ")),
            "export those of one at a time",
        ));
    }
    let environment = environments.into_iter().next().cloned().or(nameless);
    let Some(environment) = environment else {
        return Err(Error::usage("no environment is named", "name one: --environment"));
    };
    let mut sandboxes: Vec<(SandboxName, InstanceName)> = owners
        .iter()
        .map(|(instance, (_, sandbox))| (sandbox.clone(), (*instance).clone()))
        .collect();
    let mut foreign = BTreeSet::new();
    for instance in wanted.iter().filter(|name| !owners.contains_key(*name)) {
        let name = sandbox_name(&environment, instance, |name| {
            sandboxes.iter().all(|(taken, _)| taken.as_str() != name)
        });
        let Some(name) = name else {
            let message = format!("`{environment}` is too long: it leaves no room for the names of sandboxes");
            return Err(Error::usage(message, "name another: --environment"));
        };
        foreign.insert(name.clone());
        sandboxes.push((name, instance.clone()));
    }
    sandboxes.sort_by(|(one, _), (other, _)| one.in_natural_order(other));
    Ok(Found {
        environment,
        sandboxes,
        foreign,
        live,
    })
}

/// The name that an instance gets in the spec: its own without the environment's, as far as a name can have that; none where none fits.
fn sandbox_name(
    environment: &EnvironmentName,
    instance: &InstanceName,
    is_free: impl Fn(&str) -> bool,
) -> Option<SandboxName> {
    let own = instance.as_str();
    let own = own.strip_prefix(&format!("{environment}-")).unwrap_or(own);
    let fit = |text: &str| {
        InstanceName::of(environment, &SandboxName::new(text).ok()?).ok()?;
        SandboxName::new(text).ok()
    };
    let plain: String = own
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '-'
            }
        })
        .take(50)
        .collect();
    let plain = plain.trim_matches('-');
    let numbered = (1..=1_000).map(|number| format!("s{number}"));
    [plain.to_owned(), format!("s-{plain}")]
        .into_iter()
        .chain(numbered)
        .filter(|name| is_free(name))
        .find_map(|name| fit(&name))
}
