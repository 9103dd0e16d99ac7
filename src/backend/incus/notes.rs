//! What is kept of an environment itself: each note is a profile that no instance uses. In a project without
//! profiles of its own it stands in the default project, beside those of others; so it carries labels that say whose
//! it is, and one without them is refused.
//!
//! What of profiles is atomic was tried on 6.0.4: making one, and renaming one. Not so the ETag: of several writers
//! at the same moment who all know the right one, most succeed, and a deletion does not look at it at all. So taking
//! a note over is a renaming, which works for one alone: first the old note gives way, to a name that is made of its
//! text, then the new one is made in its place. Deleting one is the same without the latter. What gave way is deleted in
//! the end, with all that others left there who died before they could.

use std::collections::BTreeMap;

use async_trait::async_trait;
use reqwest::{Method, Url};
use serde::Serialize;
use serde_json::Value;

use super::client::Etag;
use super::wire::{Devices, Envelope, Profile, ProfilePost, ProfilePut, ProfilesPost};
use super::{Incus, convert};
use crate::backend::retry::retry_when;
use crate::backend::{Error, ErrorKind, KeepNotes, ReadNotes, Result};
use crate::model::{Digest, EnvironmentName, Note, NoteKey};

/// The place of a note: an environment and a key.
#[derive(Debug, Clone, Copy)]
struct Place<'a> {
    environment: &'a EnvironmentName,
    key: NoteKey,
}

impl Place<'_> {
    fn changed(self) -> Error {
        Error::new(
            ErrorKind::Conflict,
            format!(
                "the note `{}` of `{}` has changed meanwhile",
                self.key.as_str(),
                self.environment
            ),
        )
    }

    fn missing(self) -> Error {
        Error::not_found(format!("`{}` has no note `{}`", self.environment, self.key.as_str()))
    }
}

impl Incus {
    /// No project has a `_` in its name, no environment and no key.
    fn profile_of(&self, place: Place<'_>) -> String {
        let project = self.client.project();
        format!("sbx-apply_{project}_{}_{}", place.environment, place.key.as_str())
    }

    /// Where an old note goes when it is taken over.
    fn profile_of_old(&self, place: Place<'_>, old: &Note) -> String {
        let digest = Digest::of(old.as_str().as_bytes());
        format!("{}_{:.16}", self.profile_of(place), digest.as_str())
    }

    fn profile_url(&self, name: &str) -> Url {
        self.client.url(["profiles", name])
    }

    async fn fetch_note(&self, place: Place<'_>, name: &str) -> Result<Option<(Profile, Note, Etag)>> {
        let (profile, etag): (Profile, _) = match self.client.get(&self.profile_url(name)).await {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            answer => answer?,
        };
        match convert::note(place.environment, self.client.project(), &profile.config) {
            Some(note) => Ok(Some((profile, note, etag))),
            None => Err(Error::new(
                ErrorKind::Failed,
                format!("the profile `{name}` stands in the way: sbx-apply did not make it"),
            )
            .with_hint("rename that profile, or give the environment another name")),
        }
    }

    /// The note, where it is the one that is expected.
    async fn expect_note(&self, place: Place<'_>, name: &str, old: &Note) -> Result<(Profile, Etag)> {
        match self.fetch_note(place, name).await? {
            Some((profile, note, etag)) if note == *old => Ok((profile, etag)),
            Some(_) => Err(place.changed()),
            None => Err(place.missing()),
        }
    }

    async fn post_note(&self, place: Place<'_>, note: &Note) -> Result<()> {
        let body = ProfilesPost {
            name: self.profile_of(place),
            put: ProfilePut {
                config: convert::noted(place.environment, self.client.project(), note),
                description: format!(
                    "Note of sbx-apply on its environment {}. No instance uses this",
                    place.environment
                ),
                devices: Devices::new(),
            },
        };
        let url = self.client.url(["profiles"]);
        self.send_note(Method::POST, &url, Some(&body), None).await
    }

    async fn rename_note(&self, from: &str, to: &str) -> Result<()> {
        let body = ProfilePost { name: to };
        self.send_note(Method::POST, &self.profile_url(from), Some(&body), None)
            .await
    }

    /// Has a note give way; a conflict where it is another one, which then stays. Gives the names of all that has given
    /// way, to be deleted.
    async fn set_aside(&self, place: Place<'_>, old: &Note) -> Result<Vec<String>> {
        let (name, aside) = (self.profile_of(place), self.profile_of_old(place, old));
        self.expect_note(place, &name, old).await?;
        self.rename_note(&name, &aside)
            .await
            .map_err(|error| match error.kind() {
                ErrorKind::AlreadyExists | ErrorKind::NotFound => place.changed().with_source(error),
                _ => error,
            })?;
        let prefix = format!("{name}_");
        let away = self
            .notes_of(place.environment, |name| name.starts_with(&prefix))
            .await?;
        // Between the look and the renaming, somebody else may have taken it over, who then holds it.
        match away.iter().find(|(name, _)| *name == aside) {
            Some((_, note)) if note == old => Ok(away.into_iter().map(|(name, _)| name).collect()),
            Some(_) => {
                self.rename_note(&aside, &name).await?;
                Err(place.changed())
            }
            // Swept away by whoever has just taken it over.
            None => Err(place.changed()),
        }
    }

    async fn take_over(&self, place: Place<'_>, old: &Note, new: &Note) -> Result<()> {
        let away = self.set_aside(place, old).await?;
        let made = self.post_note(place, new).await;
        self.delete_profiles(away).await?;
        made.map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => place.changed().with_source(error),
            _ => error,
        })
    }

    /// The profiles that keep notes of an environment, those of some names.
    async fn notes_of(
        &self,
        environment: &EnvironmentName,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<Vec<(String, Note)>> {
        let project = self.client.project();
        let wanted = self
            .profiles()
            .await?
            .into_iter()
            .filter(|profile| wanted(&profile.name));
        let ours = wanted.filter_map(|profile| {
            let note = convert::note(environment, project, &profile.config)?;
            Some((profile.name, note))
        });
        Ok(ours.collect())
    }

    async fn profiles(&self) -> Result<Vec<Profile>> {
        let mut url = self.client.url(["profiles"]);
        url.query_pairs_mut().append_pair("recursion", "1");
        let (profiles, _) = self.client.get(&url).await?;
        Ok(profiles)
    }

    async fn delete_profiles(&self, names: Vec<String>) -> Result<()> {
        for name in names {
            self.delete_profile(&name).await?;
        }
        Ok(())
    }

    async fn delete_profile(&self, name: &str) -> Result<()> {
        let url = self.profile_url(name);
        match self.send_note(Method::DELETE, &url, None::<&()>, None).await {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Sends a change, and again where it was refused as busy.
    async fn send_note<B: Serialize + Sync>(
        &self,
        method: Method,
        url: &Url,
        body: Option<&B>,
        etag: Etag,
    ) -> Result<()> {
        let send = || async {
            let sent = self.client.change(method.clone(), url, body, etag.clone());
            sent.await.map(|_: Envelope<Value>| ())
        };
        retry_when(send, |error| error.kind() == ErrorKind::Busy).await
    }
}

#[async_trait]
impl ReadNotes for Incus {
    async fn note(&self, environment: &EnvironmentName, key: NoteKey) -> Result<Option<Note>> {
        let place = Place { environment, key };
        let found = self.fetch_note(place, &self.profile_of(place)).await;
        Ok(found
            .map_err(|error| within("read", place, error))?
            .map(|(_, note, _)| note))
    }

    async fn notes(&self, key: NoteKey) -> Result<BTreeMap<EnvironmentName, Note>> {
        let prefix = format!("sbx-apply_{}_", self.client.project());
        let found = self.profiles().await?.into_iter().filter_map(|profile| {
            let (environment, of) = profile.name.strip_prefix(&prefix)?.split_once('_')?;
            let environment = EnvironmentName::new(environment).ok().filter(|_| of == key.as_str())?;
            let note = convert::note(&environment, self.client.project(), &profile.config)?;
            Some((environment, note))
        });
        Ok(found.collect())
    }
}

#[async_trait]
impl KeepNotes for Incus {
    async fn create_note(&self, environment: &EnvironmentName, key: NoteKey, note: &Note) -> Result<()> {
        let place = Place { environment, key };
        self.post_note(place, note)
            .await
            .map_err(|error| within("make", place, error))
    }

    async fn replace_note(&self, environment: &EnvironmentName, key: NoteKey, old: &Note, new: &Note) -> Result<()> {
        let place = Place { environment, key };
        let name = self.profile_of(place);
        let replace = async {
            let (profile, etag) = self.expect_note(place, &name, old).await?;
            let put = ProfilePut {
                config: convert::noted(environment, self.client.project(), new),
                description: profile.description,
                devices: profile.devices,
            };
            self.send_note(Method::PUT, &self.profile_url(&name), Some(&put), etag)
                .await
        };
        replace.await.map_err(|error| within("change", place, error))
    }

    async fn take_over_note(&self, environment: &EnvironmentName, key: NoteKey, old: &Note, new: &Note) -> Result<()> {
        let place = Place { environment, key };
        self.take_over(place, old, new)
            .await
            .map_err(|error| within("take over", place, error))
    }

    async fn delete_note(&self, environment: &EnvironmentName, key: NoteKey, old: &Note) -> Result<()> {
        let place = Place { environment, key };
        let delete = async {
            let away = self.set_aside(place, old).await?;
            self.delete_profiles(away).await
        };
        delete.await.map_err(|error| within("delete", place, error))
    }

    async fn delete_notes(&self, environment: &EnvironmentName) -> Result<()> {
        let prefix = format!("sbx-apply_{}_{environment}_", self.client.project());
        let lock = self.profile_of(Place {
            environment,
            key: NoteKey::Lock,
        });
        let delete = async {
            let ours = self.notes_of(environment, |name| name.starts_with(&prefix)).await?;
            let mut ours: Vec<String> = ours.into_iter().map(|(name, _)| name).collect();
            // While it is there, nobody makes others.
            ours.sort_by_key(|name| *name == lock);
            self.delete_profiles(ours).await
        };
        delete
            .await
            .map_err(|error| error.within(format_args!("cannot delete the notes of `{environment}`")))
    }
}

fn within(verb: &str, place: Place<'_>, error: Error) -> Error {
    let Place { environment, key } = place;
    error.within(format_args!(
        "cannot {verb} the note `{}` of `{environment}`",
        key.as_str()
    ))
}
