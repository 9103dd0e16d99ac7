//! Snapshots: those of ZFS, of an instance's dataset.
//!
//! Ours carry labels in their user properties, and the name under which they were taken, so that one that was renamed by
//! hand is ours no longer. Names that begin with [`HIDDEN`] are this backend's own business: the origin of a clone of a
//! whole disk, and what a clone still needs of a snapshot that was deleted.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::TrueNas;
use super::convert::{self, own};
use super::dialect::Machine;
use super::notes::value_of;
use crate::backend::marked::mark;
use crate::backend::retry::{retry, retry_when};
use crate::backend::{Error, ErrorKind, Result, Stop};
use crate::model::{InstanceName, Labels, LiveSnapshot, Snapshot, Status};

/// Before the names of snapshots that nobody is told of.
const HIDDEN: &str = "sbx-apply-";
/// Key of the name that a snapshot was taken under.
const NAME: &str = "own.snapshot";
/// Before the keys of what the backend remembers of the instance.
const OWN: &str = "own.";
/// So many datasets are asked for at once.
const AT_ONCE: usize = 100;

/// A snapshot as the system tells it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Taken {
    /// `DATASET@NAME`.
    #[serde(rename = "name")]
    id: String,
    dataset: String,
    snapshot_name: String,
    #[serde(default)]
    createtxg: Value,
    #[serde(default)]
    properties: Option<BTreeMap<String, Value>>,
    /// Where they stand apart.
    #[serde(default)]
    user_properties: Option<BTreeMap<String, Value>>,
}

impl Taken {
    fn number(&self, property: &str) -> Option<u64> {
        let property = self.properties.as_ref()?.get(property)?;
        let raw = ["rawvalue", "raw"]
            .into_iter()
            .find_map(|key| property.get(key)?.as_str());
        raw.and_then(|raw| raw.parse().ok())
    }

    fn order(&self) -> u64 {
        let number = self.createtxg.as_str().and_then(|text| text.parse().ok());
        number.or_else(|| self.createtxg.as_u64()).unwrap_or_default()
    }

    fn texts(&self) -> BTreeMap<String, String> {
        let both = self.properties.iter().chain(&self.user_properties).flatten();
        convert::texts(both.filter_map(|(name, value)| Some((name, value_of(value)?))))
    }

    fn short(&self) -> Snapshot {
        Snapshot {
            label: self.snapshot_name.clone(),
            size: self.number("used").filter(|size| *size > 0),
            created_at: self.number("creation"),
        }
    }

    /// With its labels, where we took it.
    pub(super) fn live(&self) -> LiveSnapshot {
        let mut texts = self.texts();
        let ours = texts.get(NAME) == Some(&self.snapshot_name);
        texts.retain(|key, _| ours && !key.starts_with(OWN));
        LiveSnapshot {
            snapshot: self.short(),
            labels: Labels(texts),
        }
    }

    /// What the backend remembered of the instance at that moment.
    fn own(&self) -> BTreeMap<String, String> {
        let texts = self.texts().into_iter();
        texts
            .filter_map(|(key, value)| Some((key.strip_prefix(OWN)?.to_uppercase().replace('-', "_"), value)))
            .collect()
    }
}

impl TrueNas {
    fn snapshot_method(&self, action: &str) -> String {
        format!("{}.{action}", self.dialect.snapshots())
    }

    /// The snapshots of some datasets, oldest first, by dataset.
    pub(super) async fn snapshots_of(&self, datasets: &[&str]) -> Result<BTreeMap<String, Vec<Taken>>> {
        let mut found: BTreeMap<String, Vec<Taken>> = BTreeMap::new();
        for datasets in datasets.chunks(AT_ONCE) {
            for taken in self.listed(datasets).await? {
                found.entry(taken.dataset.clone()).or_default().push(taken);
            }
        }
        for taken in found.values_mut() {
            taken.retain(|taken| !taken.snapshot_name.starts_with(HIDDEN));
            taken.sort_by_key(Taken::order);
        }
        Ok(found)
    }

    /// The snapshots of datasets, hidden ones too.
    async fn listed(&self, datasets: &[&str]) -> Result<Vec<Taken>> {
        let (method, params) = self.dialect.list_snapshots(datasets);
        let error = match self.client.read(&method, params).await {
            Err(error) if error.kind() == ErrorKind::NotFound => error,
            answer => return answer,
        };
        // One of them has gone meanwhile.
        let mut found = Vec::new();
        match datasets {
            [_] => return Ok(found),
            [] => return Err(error),
            more => {
                for dataset in more {
                    let (method, params) = self.dialect.list_snapshots(&[dataset]);
                    match self.client.read::<Vec<Taken>>(&method, params).await {
                        Err(error) if error.kind() == ErrorKind::NotFound => {}
                        answer => found.extend(answer?),
                    }
                }
            }
        }
        Ok(found)
    }

    async fn taken(&self, machine: &Machine) -> Result<Vec<Taken>> {
        let mut found = self.snapshots_of(&[&machine.dataset]).await?;
        Ok(found.remove(&machine.dataset).unwrap_or_default())
    }

    async fn one_taken(&self, machine: &Machine, label: &str) -> Result<Taken> {
        let found = self.taken(machine).await?.into_iter();
        let mut found = found.filter(|taken| taken.snapshot_name == label);
        found
            .next()
            .ok_or_else(|| Error::not_found(format!("`{}` has no snapshot `{label}`", machine.name)))
    }

    pub(super) async fn read_snapshots(&self, name: &InstanceName) -> Result<Vec<Snapshot>> {
        let machine = self.machine(name).await?;
        Ok(self.taken(&machine).await?.iter().map(Taken::short).collect())
    }

    pub(super) async fn take_snapshot(&self, name: &InstanceName, label: &str) -> Result<()> {
        if label.starts_with(HIDDEN) {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("a snapshot cannot begin with `{HIDDEN}`: sbx-apply's own are called so"),
            ));
        }
        let machine = self.machine(name).await?;
        let mut texts = machine.carried.labels.0.clone();
        for (word, value) in &machine.carried.own {
            let word = word.to_lowercase().replace('_', "-");
            texts.insert(format!("{OWN}{word}"), value.clone());
        }
        texts.insert(NAME.to_owned(), label.to_owned());
        let params = json!([{
            "dataset": machine.dataset,
            "name": label,
            "properties": convert::properties(&texts),
        }]);
        self.client
            .change(&self.snapshot_method("create"), params)
            .await
            .map(drop)
    }

    pub(super) async fn drop_snapshot(&self, name: &InstanceName, label: &str) -> Result<()> {
        let machine = self.machine(name).await?;
        let taken = self.one_taken(&machine, label).await?;
        let Err(error) = self.destroy(&taken.id, false).await else {
            return Ok(());
        };
        if !has_clones(&error) {
            return Err(error);
        }
        // Its clones need it. It gets out of the way, and goes with the last of them.
        let hidden = format!("{}@{HIDDEN}{}", machine.dataset, mark()?);
        let Some((method, params)) = self.dialect.rename_snapshot(&taken.id, &hidden) else {
            return Err(error.with_hint(
                "clones of it are there, and this version of TrueNAS cannot set it aside: delete them first; 25.10 can",
            ));
        };
        self.client
            .change(method, params)
            .await
            .map_err(|error| error.within("cannot set it aside for its clones"))?;
        self.destroy(&hidden, true).await
    }

    /// Deletes a snapshot, now or, deferred, with the last of its clones. That there is none is no error: the try that was
    /// not heard of has worked.
    async fn destroy(&self, id: &str, defer: bool) -> Result<()> {
        let params = json!([id, { "defer": defer, "recursive": false }]);
        let method = self.snapshot_method("delete");
        let mut lost = 0;
        let again = |error: &Error| {
            lost += u32::from(error.kind() == ErrorKind::Unreachable);
            // 26 calls one that has clones busy, and it stays so.
            error.kind().is_transient() && lost <= 2 && !has_clones(error)
        };
        match retry_when(|| self.client.change(&method, params.clone()), again).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            answer => answer.map(drop),
        }
    }

    /// Puts the disk back. ZFS goes back over newer snapshots only by deleting them.
    pub(super) async fn go_back(&self, name: &InstanceName, label: &str) -> Result<()> {
        let machine = self.machine(name).await?;
        let taken = self.one_taken(&machine, label).await?;
        let ran = matches!(machine.status, Status::Running | Status::Frozen);
        if ran {
            self.power_off(name, Stop::Force).await?;
        }
        let params = json!([taken.id, { "recursive": true, "recursive_clones": false, "force": true }]);
        let method = self.snapshot_method("rollback");
        let back = retry(|| self.client.change(&method, params.clone())).await.map(drop);
        // Also when it has failed, it runs as before.
        if ran {
            self.power_on(name).await?;
        }
        back
    }

    /// The snapshot that a clone is made of, what was remembered at its moment, and whether it is for this clone alone.
    pub(super) async fn origin(
        &self,
        machine: &Machine,
        label: Option<&str>,
    ) -> Result<(String, BTreeMap<String, String>, bool)> {
        if let Some(label) = label {
            let taken = self.one_taken(machine, label).await?;
            let own = taken.own();
            return Ok((taken.id, own, false));
        }
        let name = format!("{HIDDEN}{}", mark()?);
        let params = json!([{ "dataset": machine.dataset, "name": name }]);
        self.client.change(&self.snapshot_method("create"), params).await?;
        Ok((format!("{}@{name}", machine.dataset), machine.carried.own.clone(), true))
    }

    /// Lets go of a snapshot that was taken for one clone: it goes with that.
    pub(super) async fn let_go(&self, snapshot: &str) {
        let params = json!([snapshot, { "defer": true, "recursive": false }]);
        if let Err(error) = self.client.change(&self.snapshot_method("delete"), params).await {
            tracing::debug!(snapshot, %error, "cannot delete a clone's origin");
        }
    }

    /// Deletes every snapshot of the disk of an instance that is about to be deleted, or is gone; a clone of one takes it over first.
    pub(super) async fn drop_snapshots(&self, dataset: &str) -> Result<()> {
        for taken in self.listed(&[dataset]).await? {
            let Err(error) = self.destroy(&taken.id, false).await else {
                continue;
            };
            let clones: Vec<Cloned> = self.client.read("pool.dataset.query", json!([])).await?;
            let clone = clones.into_iter().find(|clone| clone.is_of(&taken.id));
            let Some(clone) = clone else { return Err(error) };
            self.client.change("pool.dataset.promote", json!([clone.id])).await?;
        }
        Ok(())
    }

    /// Deletes every snapshot of a note's dataset. Tells whether there were any.
    pub(super) async fn drop_snapshots_of_note(&self, dataset: &str) -> Result<bool> {
        let taken = self.listed(&[dataset]).await?;
        let gone = taken.iter().map(|taken| async {
            let gone = self.destroy(&taken.id, false).await;
            gone.map_err(|error| error.within(format_args!("cannot delete the snapshot `{}`", taken.id)))
        });
        futures_util::future::try_join_all(gone).await?;
        Ok(!taken.is_empty())
    }

    /// Whether a snapshot is this instance's: promotion leaves those of a source with its clone.
    pub(super) fn is_of(taken: &LiveSnapshot, name: &str) -> bool {
        taken
            .labels
            .get(Labels::INSTANCE)
            .is_none_or(|instance| instance == name)
    }

    /// The own things of an instance that a clone of it has too.
    pub(super) fn passed_on(own_of_source: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let kept = [own::KEY, own::HOST_KEY];
        let kept = own_of_source.iter().filter(|(word, _)| kept.contains(&word.as_str()));
        kept.map(|(word, value)| (word.clone(), value.clone())).collect()
    }
}

/// Whether a snapshot was not deleted because of its clones. Each version has its own number and its own words for that.
fn has_clones(error: &Error) -> bool {
    let words = error.to_string();
    ["dependent clones", "following clones"]
        .iter()
        .any(|known| words.contains(known))
}

#[derive(Debug, Deserialize)]
struct Cloned {
    id: String,
    #[serde(default)]
    origin: Value,
}

impl Cloned {
    fn is_of(&self, snapshot: &str) -> bool {
        value_of(&self.origin) == Some(snapshot)
    }
}
