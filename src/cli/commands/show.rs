//! `show`: what there is.

use std::collections::{BTreeMap, BTreeSet};

use super::super::Code;
use super::super::error::Error;
use super::super::interrupt::Interrupts;
use super::super::session::{self, SpecArg};
use super::super::settings::Settings;
use crate::apply::{find_volumes, observe};
use crate::backend::Reader;
use crate::model::{
    Desired, Enforcement, Field, Instance, InstanceName, Kind, Labels, Lifetime, Live, LiveInstance, SandboxName,
    VolumeKey,
};
use crate::plan::{Matched, Options, Reason, plan};
use crate::view::show::{self, Attached, Row, Show};

/// Arguments of `show`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    spec: SpecArg,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Shows the sandboxes of the spec, and those that are left over.
pub(super) async fn run(args: &Args, settings: &Settings) -> Result<Code, Error> {
    let loaded = session::load(settings, &args.spec)?;
    let desired = &loaded.desired;
    let interrupts = Interrupts::listen();
    let (live, instances, stale) = interrupts
        .guard(async {
            let reader = session::open_reader(settings, &desired.backend).await?;
            look(&*reader, desired, settings).await
        })
        .await??;
    let mut shown = Show::new(desired.environment.as_str(), desired.backend.name.as_str());
    let matched = Matched::of(desired, &live);
    let row = |sandbox: &SandboxName, leftover| {
        let name = matched.name_of(&desired.environment, sandbox);
        let owned = matched.owned.get(sandbox).copied();
        let foreign = owned.is_none() && live.instances.contains_key(&name);
        let mut row = row(sandbox, &name, owned, instances.get(&name), settings.now);
        row.workspace.keep(kept(&live, sandbox, owned));
        row.leftover = leftover;
        row.stale = stale.get(sandbox).cloned().unwrap_or_default();
        if foreign {
            row.status = "foreign";
        }
        row
    };
    shown.sandboxes = desired.sandboxes.keys().map(|name| row(name, false)).collect();
    let left = matched.left_over(desired);
    // Of some there is nothing left but volumes.
    let gone = live.volumes.keys().map(|key| &key.sandbox);
    let gone = gone.filter(|name| !desired.sandboxes.contains_key(*name) && !matched.owned.contains_key(*name));
    let left: Vec<&SandboxName> = left
        .into_iter()
        .map(|(name, _)| name)
        .chain(gone.collect::<BTreeSet<_>>())
        .collect();
    shown.sandboxes.extend(left.into_iter().map(|name| row(name, true)));
    settings.output.result(&if args.json {
        show::json(&shown)
    } else {
        show::human(&shown)
    });
    Ok(Code::Done)
}

/// The volumes of a sandbox that are not attached to it: there may be none any more.
fn kept<'a>(
    live: &'a Live,
    sandbox: &'a SandboxName,
    owned: Option<&'a LiveInstance>,
) -> impl Iterator<Item = &'a VolumeKey> {
    let of_it = live.volumes.keys().filter(move |key| key.sandbox == *sandbox);
    of_it.filter(move |key| owned.is_none_or(|instance| !instance.workspace.volumes.contains_key(&key.name)))
}

/// What is stale of each sandbox.
type Stale = BTreeMap<SandboxName, Vec<String>>;

async fn look(
    reader: &dyn Reader,
    desired: &Desired,
    settings: &Settings,
) -> Result<(Live, BTreeMap<InstanceName, Instance>, Stale), Error> {
    let mut live = observe(reader, desired, &BTreeSet::new()).await?;
    find_volumes(reader, &desired.environment, &mut live).await?;
    let instances = reader.list().await?;
    let instances = instances
        .into_iter()
        .map(|instance| (instance.name.clone(), instance))
        .collect();
    // Nobody has looked at files, which recipes do not need: they are in the records.
    let options = Options {
        now: settings.now,
        ignore: settings.ignore.clone(),
        ..Options::default()
    };
    // Without targets, none is unknown.
    let planned = plan(desired, &live, reader.capabilities(), &options);
    let changes = planned.map(|plan| plan.changes).unwrap_or_default();
    let mut stale = Stale::new();
    for change in changes.iter().filter(|change| change.reason == Reason::Stale) {
        let what = match change.kind {
            Kind::Snapshot => format!("snapshot:{}", change.name),
            _ => "source".to_owned(),
        };
        stale.entry(change.sandbox.clone()).or_default().push(what);
    }
    Ok((live, instances, stale))
}

fn row(
    sandbox: &SandboxName,
    name: &InstanceName,
    owned: Option<&LiveInstance>,
    instance: Option<&Instance>,
    now: u64,
) -> Row {
    let applied = owned.map(|instance| instance.labels.applied()).unwrap_or_default();
    let fact = |field: &str| applied.get(&Field::sandbox(field)).map(str::to_owned);
    let mut snapshots: Vec<_> = owned
        .map(|instance| instance.snapshots.values().collect())
        .unwrap_or_default();
    snapshots.sort_by_key(|snapshot| snapshot.snapshot.created_at);
    let policy = owned.and_then(|instance| instance.egress.as_ref());
    Row {
        sandbox: sandbox.to_string(),
        instance: name.to_string(),
        status: owned.map_or("missing", |instance| instance.status.as_str()),
        addresses: instance
            .filter(|_| owned.is_some())
            .map(|instance| instance.addresses.iter().map(ToString::to_string).collect())
            .unwrap_or_default(),
        egress: policy.map(|live| live.policy.key.name.clone()),
        egress_best_effort: policy.is_some_and(|live| live.policy.enforce == Enforcement::Guest),
        egress_fault: policy
            .and_then(|live| live.fault.as_ref())
            .map(|fault| fault.text.clone()),
        workspace: owned
            .map(|instance| Attached::of(&instance.workspace))
            .unwrap_or_default(),
        source: fact("image").or_else(|| Some(format!("clone of {}", fact("clone-from")?))),
        snapshots: snapshots
            .into_iter()
            .map(|snapshot| snapshot.snapshot.label.clone())
            .collect(),
        stale: Vec::new(),
        age: owned
            .and_then(|instance| instance.created_at)
            .map(|created| now.saturating_sub(created)),
        ttl: owned.and_then(|instance| Some(instance.labels.get(Labels::TTL)?.to_owned())),
        expires_in: owned.and_then(|instance| expires_in(instance.lifetime(now))),
        complete: owned.is_some_and(|instance| instance.labels.is_true(Labels::COMPLETE)),
        leftover: false,
    }
}

/// Seconds until the end; none where there is none.
fn expires_in(lifetime: Lifetime) -> Option<i64> {
    match lifetime {
        Lifetime::Left(left) => Some(i64::try_from(left).unwrap_or(i64::MAX)),
        Lifetime::Over(since) => Some(i64::try_from(since).map_or(i64::MIN, |since| -since)),
        Lifetime::Unbounded | Lifetime::Unknown => None,
    }
}
