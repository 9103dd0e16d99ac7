//! Secrets: values of the caller's environment, and the keyed hashes that stand for them wherever they are compared.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::{Digest, GuestPath, InstanceName, Mask, Note};

/// What an environment's secrets are hashed with: 32 random bytes that are kept on the backend as a note, so that
/// whoever reads a record cannot try values against it.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretKey([u8; Self::BYTES]);

impl SecretKey {
    /// How long a key is.
    pub const BYTES: usize = 32;

    /// A key of these bytes, which must be random.
    #[must_use]
    pub fn new(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    /// The key that a note holds; none where it holds anything else.
    #[must_use]
    pub fn of_note(note: &Note) -> Option<Self> {
        let text = note.as_str();
        if text.len() != 2 * Self::BYTES || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let mut bytes = [0; Self::BYTES];
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
        }
        Some(Self(bytes))
    }

    /// The note that holds it: hexadecimal digits.
    #[must_use]
    pub fn to_note(&self) -> Option<Note> {
        Note::new(self.0.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
    }

    /// The keyed hash of contents, by their digest: HMAC-SHA256 (RFC 2104), of which 128 bits are kept as
    /// hexadecimal digits.
    #[must_use]
    pub fn hash(&self, content: &Digest) -> String {
        // A key of any length is taken.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else {
            return String::new();
        };
        mac.update(content.as_str().as_bytes());
        let hash = mac.finalize().into_bytes();
        hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey")
    }
}

/// The values of a spec's secrets, as far as the caller's environment holds them, and what is needed to keep them
/// secret.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secrets {
    values: BTreeMap<String, Arc<[u8]>>,
    fresh_key: Option<SecretKey>,
}

/// Shorter lines are not masked: they stand in too many texts that have nothing to do with them.
const MASKED: usize = 4;

impl Secrets {
    /// Values by variable, and the key for an environment that has none yet.
    #[must_use]
    pub fn new(values: BTreeMap<String, Arc<[u8]>>, fresh_key: SecretKey) -> Self {
        Self {
            values,
            fresh_key: Some(fresh_key),
        }
    }

    /// The value of a variable; none where the caller's environment has no such.
    #[must_use]
    pub fn value(&self, variable: &str) -> Option<&Arc<[u8]>> {
        self.values.get(variable)
    }

    /// The key that the environment gets with its first secret.
    #[must_use]
    pub fn fresh_key(&self) -> Option<&SecretKey> {
        self.fresh_key.as_ref()
    }

    /// The keyed hash of each value, by variable.
    #[must_use]
    pub fn hashes(&self, key: &SecretKey) -> BTreeMap<String, String> {
        let hashed = |(variable, value): (&String, &Arc<[u8]>)| (variable.clone(), key.hash(&Digest::of(value)));
        self.values.iter().map(hashed).collect()
    }

    /// What must not be seen in any output: each line of each value, and the digests of files that hold nothing else, from
    /// which a short one can be guessed.
    #[must_use]
    pub fn mask(&self) -> Mask {
        self.mask_with(&SecretTexts::default())
    }

    /// The same, and of values that the caller does not have.
    #[must_use]
    pub fn mask_with(&self, others: &SecretTexts) -> Mask {
        let values = || self.values.values().chain(&others.0);
        let lines = values().flat_map(|value| value.split(|byte| matches!(byte, b'\n' | b'\r')));
        let mut texts: Vec<Vec<u8>> = lines.filter(|line| line.len() >= MASKED).map(<[u8]>::to_vec).collect();
        for value in values().filter(|value| !value.is_empty()) {
            for content in [value.to_vec(), [value, &b"\n"[..]].concat()] {
                let digest = Digest::of(&content);
                // Records of trees keep 24 digits.
                texts.extend([64, 24].map(|digits| digest.as_str().as_bytes()[..digits].to_vec()));
            }
        }
        Mask::new(texts)
    }
}

/// Names only.
impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

/// Values of secrets that were met in a sandbox.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SecretTexts(pub Vec<Arc<[u8]>>);

/// Not the values.
impl fmt::Debug for SecretTexts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretTexts({})", self.0.len())
    }
}

/// The keyed hashes that a plan compares.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SecretHashes {
    /// Whether the environment has a key already. Where it has none, nothing live has a hash.
    pub key_is_kept: bool,
    /// Of the caller's values, by variable.
    pub sources: BTreeMap<String, String>,
    /// Of secret files, by instance.
    pub files: BTreeMap<InstanceName, BTreeMap<GuestPath, String>>,
    /// What is in those secret files that are as an apply has left them: the caller may have another value, or none, and
    /// must not be shown this one either.
    pub applied: SecretTexts,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_comes_back_from_its_note_and_other_notes_are_none() {
        let key = SecretKey::new(std::array::from_fn(|index| index as u8 * 7));
        let note = key.to_note().expect("a note");
        assert_eq!(SecretKey::of_note(&note), Some(key));
        for other in ["x", &"g".repeat(64), &"+1".repeat(32), &"0".repeat(62)] {
            let read = SecretKey::of_note(&Note::new(other).expect("a note"));
            assert!(read.is_none(), "{other}");
        }
    }

    #[test]
    fn a_hash_needs_its_key_and_nothing_prints_a_value() {
        let [one, other] = [1, 2].map(|byte| SecretKey::new([byte; 32]));
        let digest = Digest::of(b"hunter2");
        assert_ne!(one.hash(&digest), other.hash(&digest));
        assert_eq!(one.hash(&digest).len(), 32);
        let secrets = Secrets::new(
            BTreeMap::from([("TOKEN".to_owned(), Arc::from(&b"hunter2\nabc\nhunter22"[..]))]),
            one.clone(),
        );
        assert_eq!(format!("{secrets:?} {one:?}"), "{\"TOKEN\"} SecretKey");
        let mask = secrets.mask();
        assert_eq!(mask.over_text("abc hunter2 hunter22"), "abc *** ***");
        let file = Digest::of(b"hunter2\nabc\nhunter22\n");
        let shown = format!("sha256:{file} file 0644 0:0 {}", &file.as_str()[..24]);
        assert_eq!(mask.over_text(&shown), "sha256:*** file 0644 0:0 ***");
    }
}
