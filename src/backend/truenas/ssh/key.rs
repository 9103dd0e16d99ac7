//! The key that opens the sandboxes of an environment. It is a note of the environment, made when it is first needed.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use russh::keys::PrivateKey;
use russh::keys::ssh_key::private::{Ed25519Keypair, KeypairData};
use rustls::crypto::ring;

use crate::backend::truenas::TrueNas;
use crate::backend::{Error, ErrorKind, Result};
use crate::model::{Note, NoteKey};

/// Before the seed in the note.
const KIND: &str = "ed25519:";

impl TrueNas {
    /// The key of an environment, or of what is of none. The first that is made counts.
    pub(super) async fn key_of(&self, environment: &str) -> Result<Arc<PrivateKey>> {
        let mut known = self.doors.keys.lock().await;
        if let Some(key) = known.get(environment) {
            return Ok(key.clone());
        }
        let note = match self.read_note(environment, NoteKey::SshKey).await? {
            Some(note) => note,
            None => {
                let new = fresh()?;
                match self.make_note(environment, NoteKey::SshKey, &new).await {
                    Ok(()) => new,
                    Err(error) if matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::Unreachable) => {
                        let found = self.read_note(environment, NoteKey::SshKey).await?;
                        found.ok_or(error)?
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        let key = Arc::new(read(&note)?);
        known.insert(environment.to_owned(), key.clone());
        Ok(key)
    }
}

fn fresh() -> Result<Note> {
    let mut seed = [0; 32];
    let filled = ring::default_provider().secure_random.fill(&mut seed);
    filled.map_err(|_| Error::new(ErrorKind::Failed, "no randomness to make a key of"))?;
    Note::new(format!("{KIND}{}", BASE64.encode(seed))).ok_or_else(unreadable)
}

fn read(note: &Note) -> Result<PrivateKey> {
    let seed = note
        .as_str()
        .strip_prefix(KIND)
        .and_then(|text| BASE64.decode(text).ok());
    let seed: [u8; 32] = seed.and_then(|seed| seed.try_into().ok()).ok_or_else(unreadable)?;
    let pair = KeypairData::from(Ed25519Keypair::from_seed(&seed));
    PrivateKey::new(pair, "sbx-apply").map_err(|_| unreadable())
}

/// Without a cause: that could hold a piece of it.
fn unreadable() -> Error {
    Error::new(ErrorKind::Failed, "the environment's SSH key cannot be read")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_comes_back_from_its_note_and_is_shown_nowhere() {
        let note = fresh().expect("a note");
        let public = |note: &Note| read(note).expect("a key").public_key().to_openssh().expect("text");
        assert_eq!(public(&note), public(&note));
        assert_ne!(public(&note), public(&fresh().expect("another")));
        assert!(public(&note).starts_with("ssh-ed25519 "));
        let broken = Note::new("ed25519:c2VjcmV0").expect("a note");
        assert!(!format!("{:?}", read(&broken)).contains("c2VjcmV0"));
    }
}
