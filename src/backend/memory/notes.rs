//! What is kept of an environment itself.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use async_trait::async_trait;

use super::Memory;
use crate::backend::{Error, ErrorKind, KeepNotes, ReadNotes, Result};
use crate::model::{EnvironmentName, Note, NoteKey};

#[async_trait]
impl ReadNotes for Memory {
    async fn note(&self, environment: &EnvironmentName, key: NoteKey) -> Result<Option<Note>> {
        self.count("note");
        self.pause().await;
        Ok(self.world().notes.get(&(environment.clone(), key)).cloned())
    }

    async fn notes(&self, key: NoteKey) -> Result<BTreeMap<EnvironmentName, Note>> {
        self.count("notes");
        self.pause().await;
        let world = self.world();
        let of_key = world.notes.iter().filter(|((_, of), _)| *of == key);
        Ok(of_key
            .map(|((environment, _), note)| (environment.clone(), note.clone()))
            .collect())
    }
}

#[async_trait]
impl KeepNotes for Memory {
    async fn create_note(&self, environment: &EnvironmentName, key: NoteKey, note: &Note) -> Result<()> {
        self.count("create_note");
        self.pause().await;
        match self.world().notes.entry((environment.clone(), key)) {
            Entry::Vacant(place) => {
                place.insert(note.clone());
                Ok(())
            }
            Entry::Occupied(_) => Err(Error::new(
                ErrorKind::AlreadyExists,
                format!("`{environment}` has a note `{}` already", key.as_str()),
            )),
        }
    }

    async fn replace_note(&self, environment: &EnvironmentName, key: NoteKey, old: &Note, new: &Note) -> Result<()> {
        self.count("replace_note");
        self.pause().await;
        self.exchange_note(environment, key, old, Some(new))
    }

    async fn take_over_note(&self, environment: &EnvironmentName, key: NoteKey, old: &Note, new: &Note) -> Result<()> {
        self.count("take_over_note");
        self.pause().await;
        self.exchange_note(environment, key, old, Some(new))
    }

    async fn delete_note(&self, environment: &EnvironmentName, key: NoteKey, old: &Note) -> Result<()> {
        self.count("delete_note");
        self.pause().await;
        self.exchange_note(environment, key, old, None)
    }

    async fn delete_notes(&self, environment: &EnvironmentName) -> Result<()> {
        self.count("delete_notes");
        self.pause().await;
        self.world().notes.retain(|(of, _), _| of != environment);
        Ok(())
    }
}

impl Memory {
    fn exchange_note(&self, environment: &EnvironmentName, key: NoteKey, old: &Note, new: Option<&Note>) -> Result<()> {
        let mut world = self.world();
        let place = (environment.clone(), key);
        match world.notes.get(&place) {
            Some(note) if note == old => {}
            Some(_) => {
                return Err(Error::new(
                    ErrorKind::Conflict,
                    format!("the note `{}` of `{environment}` has changed meanwhile", key.as_str()),
                ));
            }
            None => {
                return Err(Error::not_found(format!(
                    "`{environment}` has no note `{}`",
                    key.as_str()
                )));
            }
        }
        match new {
            Some(new) => world.notes.insert(place, new.clone()),
            None => world.notes.remove(&place),
        };
        Ok(())
    }
}
