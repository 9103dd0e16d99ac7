//! What is kept of an environment itself: each note is a dataset, `POOL/sbx-apply/ENVIRONMENT/KEY`, that holds no files;
//! its text stands in its user properties.
//!
//! Making a dataset works for one alone, which makes a lock of it. Changing its properties and deleting it do not look
//! at what stands there; so whoever takes a note over, or deletes it, first makes a second dataset beside it, a claim,
//! which is named by the note's version: of many who have seen the same note, one gets it. A claim that nobody lets go of
//! is that of somebody who died; then there is a next one.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{TrueNas, convert};
use crate::backend::marked::mark;
use crate::backend::{Error, ErrorKind, KeepNotes, ReadNotes, Result};
use crate::model::{EnvironmentName, Note, NoteKey};

/// The dataset below a pool that everything of ours is in.
const FOLDER: &str = "sbx-apply";
/// Stands for the environment of instances that are of none. No environment is called so.
pub(super) const NOBODY: &str = "0";
/// How long whoever claims a note may take; and how often others look.
const CLAIMED: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(300);
/// How often a making is tried that others get in the way of.
const TRIES: u32 = 8;

/// Keys of a dataset's texts.
const TEXT: &str = "note";
const VERSION: &str = "version";

/// A note as it stands there.
#[derive(Debug, Clone)]
struct Standing {
    note: Note,
    /// A word that no other note ever had.
    version: String,
    /// The names of its properties.
    properties: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Dataset {
    id: String,
    #[serde(default)]
    user_properties: BTreeMap<String, Value>,
}

/// A user property's value, which some versions wrap.
pub(super) fn value_of(property: &Value) -> Option<&str> {
    property
        .as_str()
        .or_else(|| property.get("rawvalue").and_then(Value::as_str))
        .or_else(|| property.get("value").and_then(Value::as_str))
}

impl TrueNas {
    async fn note_dataset(&self, environment: &str, key: NoteKey) -> Result<String> {
        let pool = self.dialect.pool().await?;
        Ok(format!("{pool}/{FOLDER}/{environment}/{}", key.as_str()))
    }

    async fn standing(&self, dataset: &str) -> Result<Option<Standing>> {
        let filter = json!([[["id", "=", dataset]], { "extra": { "retrieve_children": false } }]);
        let found: Vec<Dataset> = self.client.read("pool.dataset.query", filter).await?;
        let Some(found) = found.into_iter().next() else {
            return Ok(None);
        };
        let values = found.user_properties.iter();
        let values = values.filter_map(|(name, value)| Some((name, value_of(value)?)));
        let mut texts = convert::texts(values);
        let (note, version) = (texts.remove(TEXT).and_then(Note::new), texts.remove(VERSION));
        match note.zip(version) {
            Some((note, version)) => Ok(Some(Standing {
                note,
                version,
                properties: found.user_properties.into_keys().collect(),
            })),
            None => Err(Error::new(
                ErrorKind::Failed,
                format!("the dataset `{dataset}` stands in the way: sbx-apply did not make it"),
            )
            .with_hint("rename that dataset, or give the environment another name")),
        }
    }

    /// Makes a dataset with these texts; already-exists where there is one. Others may be making its parents.
    async fn make_dataset(&self, dataset: &str, texts: &BTreeMap<String, String>) -> Result<()> {
        let properties: Vec<Value> = convert::properties(texts)
            .into_iter()
            .map(|(key, value)| json!({ "key": key, "value": value }))
            .collect();
        let params = json!([{
            "name": dataset,
            "type": "FILESYSTEM",
            "create_ancestors": true,
            "user_properties": properties,
        }]);
        let mut left = TRIES;
        loop {
            let Err(error) = self.client.change("pool.dataset.create", params.clone()).await else {
                return Ok(());
            };
            if matches!(
                error.kind(),
                ErrorKind::Unreachable | ErrorKind::Timeout | ErrorKind::Unauthorised
            ) {
                return Err(error);
            }
            // What the refusal says does not tell whether it is about this dataset or a parent.
            let filter = json!([[["id", "=", dataset]], { "extra": { "retrieve_children": false } }]);
            let found: Vec<Dataset> = self.client.read("pool.dataset.query", filter).await?;
            if !found.is_empty() {
                return Err(error.with_kind(ErrorKind::AlreadyExists));
            }
            left -= 1;
            let in_the_way = error.to_string().to_lowercase().contains("exist") || error.kind().is_transient();
            if left == 0 || !in_the_way {
                return Err(error);
            }
            sleep(LOOK).await;
        }
    }

    /// Deletes a dataset of ours; no error where there is none. A system that takes snapshots of a whole pool by the clock
    /// has taken some of this one, too; there is nothing in them, and they go before it.
    async fn drop_dataset(&self, dataset: &str) -> Result<()> {
        let mut left = TRIES;
        loop {
            let error = match self.delete_dataset(dataset).await {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
                Err(error) => error,
                Ok(()) => return Ok(()),
            };
            if left == 0 || matches!(error.kind(), ErrorKind::Unreachable | ErrorKind::Unauthorised) {
                return Err(error);
            }
            left -= 1;
            match error.kind() {
                ErrorKind::Busy => sleep(LOOK).await,
                _ if self.drop_snapshots_of_note(dataset).await? => {}
                _ => return Err(error),
            }
        }
    }

    pub(super) async fn read_note(&self, environment: &str, key: NoteKey) -> Result<Option<Note>> {
        let dataset = self.note_dataset(environment, key).await?;
        Ok(self.standing(&dataset).await?.map(|standing| standing.note))
    }

    pub(super) async fn make_note(&self, environment: &str, key: NoteKey, note: &Note) -> Result<()> {
        let dataset = self.note_dataset(environment, key).await?;
        self.make_dataset(&dataset, &texts(note)?).await
    }

    /// The note, where it is the one that is expected.
    async fn expect_note(&self, dataset: &str, old: &Note) -> Result<Standing> {
        match self.standing(dataset).await? {
            Some(standing) if standing.note == *old => Ok(standing),
            Some(_) => Err(changed(dataset)),
            None => Err(Error::not_found(format!("there is no note `{dataset}`"))),
        }
    }

    /// Gets the right to remove a note of that version; a conflict where somebody else had it and used it. Gives the
    /// datasets to be deleted when it was used.
    async fn claim(&self, dataset: &str, standing: &Standing) -> Result<Vec<String>> {
        let mut claims = Vec::new();
        loop {
            let claim = format!("{dataset}_{}_{}", standing.version, claims.len());
            claims.push(claim.clone());
            match self.make_dataset(&claim, &BTreeMap::new()).await {
                Ok(()) => break,
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
            let until = Instant::now() + CLAIMED;
            while Instant::now() < until {
                sleep(LOOK).await;
                match self.standing(dataset).await? {
                    Some(now) if now.version == standing.version => {}
                    _ => return Err(changed(dataset)),
                }
            }
        }
        // Between the look and the claim, somebody else may have been through with it.
        match self.standing(dataset).await? {
            Some(now) if now.version == standing.version && now.note == standing.note => Ok(claims),
            _ => {
                self.drop_datasets(claims).await?;
                Err(changed(dataset))
            }
        }
    }

    async fn drop_datasets(&self, datasets: Vec<String>) -> Result<()> {
        for dataset in datasets {
            self.drop_dataset(&dataset).await?;
        }
        Ok(())
    }

    async fn remove_note(&self, dataset: &str, old: &Note, new: Option<&Note>) -> Result<()> {
        let standing = self.expect_note(dataset, old).await?;
        let claims = self.claim(dataset, &standing).await?;
        let done = async {
            self.drop_dataset(dataset).await?;
            match new {
                Some(new) => self.make_dataset(dataset, &texts(new)?).await,
                None => Ok(()),
            }
        };
        let done = done.await;
        self.drop_datasets(claims).await?;
        done.map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => changed(dataset).with_source(error),
            _ => error,
        })
    }
}

/// Whether a name below an environment's folder, `/KEY` or `/KEY_VERSION_NUMBER`, is one that is given here.
fn is_note(name: &str) -> bool {
    const KEYS: [NoteKey; 4] = [NoteKey::Lock, NoteKey::SecretKey, NoteKey::SshKey, NoteKey::SpecFiles];
    let name = name.trim_start_matches('/');
    KEYS.iter().any(|key| {
        let rest = name.strip_prefix(key.as_str());
        rest.is_some_and(|rest| rest.is_empty() || (rest.starts_with('_') && !rest.contains('/')))
    })
}

fn texts(note: &Note) -> Result<BTreeMap<String, String>> {
    Ok(BTreeMap::from([
        (TEXT.to_owned(), note.as_str().to_owned()),
        (VERSION.to_owned(), mark()?),
    ]))
}

fn changed(dataset: &str) -> Error {
    Error::new(
        ErrorKind::Conflict,
        format!("the note `{dataset}` has changed meanwhile"),
    )
}

fn within(what: &'static str, environment: &EnvironmentName) -> impl FnOnce(Error) -> Error {
    move |error| error.within(format_args!("cannot {what} a note of `{environment}`"))
}

#[async_trait]
impl ReadNotes for TrueNas {
    async fn note(&self, environment: &EnvironmentName, key: NoteKey) -> Result<Option<Note>> {
        let found = self.read_note(environment.as_str(), key).await;
        found.map_err(within("read", environment))
    }
}

#[async_trait]
impl KeepNotes for TrueNas {
    async fn create_note(&self, environment: &EnvironmentName, key: NoteKey, note: &Note) -> Result<()> {
        let made = self.make_note(environment.as_str(), key, note).await;
        made.map_err(within("make", environment))
    }

    async fn replace_note(&self, environment: &EnvironmentName, key: NoteKey, old: &Note, new: &Note) -> Result<()> {
        let replaced = async {
            let dataset = self.note_dataset(environment.as_str(), key).await?;
            let standing = self.expect_note(&dataset, old).await?;
            let properties = convert::properties(&texts(new)?);
            let set = properties
                .iter()
                .map(|(key, value)| json!({ "key": key, "value": value }));
            let gone = standing
                .properties
                .iter()
                .filter(|name| !properties.contains_key(*name));
            // What is not ours is none of our business.
            let gone = gone.filter(|name| convert::is_property(name));
            let gone = gone.map(|key| json!({ "key": key, "remove": true }));
            let updates: Vec<Value> = set.chain(gone).collect();
            let params = json!([dataset, { "user_properties_update": updates }]);
            self.client.change("pool.dataset.update", params).await.map(drop)
        };
        replaced.await.map_err(within("replace", environment))
    }

    async fn take_over_note(&self, environment: &EnvironmentName, key: NoteKey, old: &Note, new: &Note) -> Result<()> {
        let taken = async {
            let dataset = self.note_dataset(environment.as_str(), key).await?;
            self.remove_note(&dataset, old, Some(new)).await
        };
        taken.await.map_err(within("take over", environment))
    }

    async fn delete_note(&self, environment: &EnvironmentName, key: NoteKey, old: &Note) -> Result<()> {
        let deleted = async {
            let dataset = self.note_dataset(environment.as_str(), key).await?;
            self.remove_note(&dataset, old, None).await
        };
        deleted.await.map_err(within("delete", environment))
    }

    async fn delete_notes(&self, environment: &EnvironmentName) -> Result<()> {
        let deleted = async {
            let lock = self.note_dataset(environment.as_str(), NoteKey::Lock).await?;
            let (folder, _) = lock.rsplit_once('/').unwrap_or((&lock, ""));
            let below = json!([[["id", "^", format!("{folder}/")]]]);
            let found: Vec<Dataset> = self.client.read("pool.dataset.query", below).await?;
            let (mut ours, theirs): (Vec<String>, Vec<String>) = found
                .into_iter()
                .map(|dataset| dataset.id)
                .partition(|dataset| dataset.strip_prefix(folder).is_some_and(is_note));
            ours.retain(|dataset| *dataset != lock);
            ours.push(lock.clone());
            // What somebody else has put there stays, and so does the folder.
            ours.extend(theirs.is_empty().then(|| folder.to_owned()));
            let prefix = format!("{environment}-");
            self.finish_deletions(|name| name.starts_with(&prefix)).await?;
            self.drop_datasets(ours).await
        };
        deleted.await.map_err(within("delete", environment))
    }
}
