//! What is kept of an environment itself: a file for each note, changed under one lock.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;

use async_trait::async_trait;

use super::Local;
use super::state::{Lock, failed, private, sync};
use crate::backend::{Error, ErrorKind, KeepNotes, ReadNotes, Result};
use crate::model::{EnvironmentName, Note, NoteKey};

#[async_trait]
impl ReadNotes for Local {
    async fn note(&self, environment: &EnvironmentName, key: NoteKey) -> Result<Option<Note>> {
        self.read_note(environment, key)
    }

    async fn notes(&self, key: NoteKey) -> Result<BTreeMap<EnvironmentName, Note>> {
        let mut notes = BTreeMap::new();
        let entries = match fs::read_dir(self.notes()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(notes),
            entries => entries.map_err(|source| failed("cannot look for notes", source))?,
        };
        for entry in entries {
            let name = entry
                .map_err(|source| failed("cannot look for notes", source))?
                .file_name();
            // What has another name is none of ours.
            let Ok(environment) = EnvironmentName::new(name.to_string_lossy()) else {
                continue;
            };
            let note = self.read_note(&environment, key)?;
            notes.extend(note.map(|note| (environment, note)));
        }
        Ok(notes)
    }
}

#[async_trait]
impl KeepNotes for Local {
    async fn create_note(&self, environment: &EnvironmentName, key: NoteKey, note: &Note) -> Result<()> {
        let _lock = self.lock_notes().await?;
        match self.read_note(environment, key)? {
            None => self.write_note(environment, key, note),
            Some(_) => Err(Error::new(
                ErrorKind::AlreadyExists,
                format!("`{environment}` has a note `{}` already", key.as_str()),
            )),
        }
    }

    async fn replace_note(&self, environment: &EnvironmentName, key: NoteKey, old: &Note, new: &Note) -> Result<()> {
        let _lock = self.lock_notes().await?;
        self.expect_note(environment, key, old)?;
        self.write_note(environment, key, new)
    }

    async fn take_over_note(&self, environment: &EnvironmentName, key: NoteKey, old: &Note, new: &Note) -> Result<()> {
        self.replace_note(environment, key, old, new).await
    }

    async fn delete_note(&self, environment: &EnvironmentName, key: NoteKey, old: &Note) -> Result<()> {
        let _lock = self.lock_notes().await?;
        self.expect_note(environment, key, old)?;
        fs::remove_file(self.note_file(environment, key))
            .map_err(|source| failed(format!("cannot delete a note of `{environment}`"), source))
    }

    async fn delete_notes(&self, environment: &EnvironmentName) -> Result<()> {
        if !self.notes().is_dir() {
            return Ok(());
        }
        let _lock = self.lock_notes().await?;
        match fs::remove_dir_all(self.notes().join(environment.as_str())) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed(format!("cannot delete the notes of `{environment}`"), error))
            }
            _ => Ok(()),
        }
    }
}

impl Local {
    fn notes(&self) -> PathBuf {
        self.store.root().join("notes")
    }

    fn note_file(&self, environment: &EnvironmentName, key: NoteKey) -> PathBuf {
        self.notes().join(environment.as_str()).join(key.as_str())
    }

    async fn lock_notes(&self) -> Result<Lock> {
        self.store.make(self.ids)?;
        private()
            .recursive(true)
            .create(self.notes())
            .map_err(|source| failed("cannot make a folder for notes", source))?;
        Lock::take(&self.notes().join(".lock"), true, "the notes").await
    }

    fn read_note(&self, environment: &EnvironmentName, key: NoteKey) -> Result<Option<Note>> {
        let path = self.note_file(environment, key);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(format!("cannot read {}", path.display()), error)),
        };
        let note = serde_json::from_slice::<String>(&bytes).ok().and_then(Note::new);
        note.map(Some)
            .ok_or_else(|| Error::new(ErrorKind::Failed, format!("{} is no note of ours", path.display())))
    }

    fn write_note(&self, environment: &EnvironmentName, key: NoteKey, note: &Note) -> Result<()> {
        let path = self.note_file(environment, key);
        let folder = self.notes().join(environment.as_str());
        // Whoever writes has the lock, so one name is enough, and whoever is killed leaves one file in all.
        let pending = self.notes().join(".pending");
        let keep = || -> io::Result<()> {
            private().recursive(true).create(&folder)?;
            let file = fs::File::create(&pending)?;
            serde_json::to_writer(&file, note.as_str())?;
            file.sync_data()?;
            fs::rename(&pending, &path)?;
            sync(&folder)
        };
        keep().map_err(|source| failed(format!("cannot write {}", path.display()), source))
    }

    fn expect_note(&self, environment: &EnvironmentName, key: NoteKey, old: &Note) -> Result<()> {
        match self.read_note(environment, key)? {
            Some(note) if note == *old => Ok(()),
            Some(_) => Err(Error::new(
                ErrorKind::Conflict,
                format!("the note `{}` of `{environment}` has changed meanwhile", key.as_str()),
            )),
            None => Err(Error::not_found(format!(
                "`{environment}` has no note `{}`",
                key.as_str()
            ))),
        }
    }
}
