//! Secrets on their way: hashed for the plan, kept apart until they are written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::StepError;
use crate::backend::{Error, ErrorKind, FileChange, Reader, Result, Sandboxes};
use crate::model::{
    Content, Desired, EnvironmentName, GuestPath, Inspection, InstanceName, Live, NoteKey, SecretHashes, SecretKey,
    SecretTexts, Shape,
};
use crate::plan::{self, Op, Plan, SecretFile};

/// The key of an environment's secrets; none where it has none.
async fn kept_key(reader: &dyn Reader, environment: &EnvironmentName) -> Result<Option<SecretKey>> {
    let Some(note) = reader.note(environment, NoteKey::SecretKey).await? else {
        return Ok(None);
    };
    let key = SecretKey::of_note(&note).ok_or_else(|| {
        Error::new(
            ErrorKind::Invalid,
            format!("what is kept as the key to the secrets of `{environment}` is no key"),
        )
        .with_hint("somebody has changed it; delete it, and the next apply writes every secret anew")
    })?;
    Ok(Some(key))
}

/// Hashes the caller's values and the secret files that were looked at. One request where there are secrets, none
/// where there are none.
pub(super) async fn hashes(
    reader: &dyn Reader,
    desired: &Desired,
    files: &BTreeMap<InstanceName, Inspection>,
    secret: &BTreeMap<InstanceName, BTreeSet<GuestPath>>,
) -> Result<SecretHashes> {
    if secret.values().all(BTreeSet::is_empty) && desired.secret_variables().is_empty() {
        return Ok(SecretHashes::default());
    }
    let kept = kept_key(reader, &desired.environment).await?;
    let sources = kept.as_ref().or(desired.secrets.fresh_key());
    let mut hashes = SecretHashes {
        key_is_kept: kept.is_some(),
        sources: sources.map(|key| desired.secrets.hashes(key)).unwrap_or_default(),
        files: BTreeMap::new(),
        applied: SecretTexts::default(),
    };
    let Some(key) = kept else { return Ok(hashes) };
    for (name, paths) in secret {
        let Some(inspection) = files.get(name) else { continue };
        let hashed = paths.iter().filter_map(|path| match &inspection.get(path)?.shape {
            Shape::File {
                digest: Some(digest), ..
            } => Some((path.clone(), key.hash(digest))),
            _ => None,
        });
        hashes.files.insert(name.clone(), hashed.collect());
    }
    Ok(hashes)
}

/// Takes the contents of secret files out of what was seen: no plan is made from them.
pub(super) fn take(inspection: &mut Inspection, secret: &BTreeSet<GuestPath>) -> BTreeMap<GuestPath, Arc<[u8]>> {
    let taken = secret
        .iter()
        .filter_map(|path| match &mut inspection.0.get_mut(path)?.shape {
            Shape::File { content, .. } => Some((path.clone(), content.take()?)),
            _ => None,
        });
    taken.collect()
}

/// Those of the contents of secret files that an apply has written. All else in their place anybody may have chosen, to
/// have it masked wherever it stands.
pub(super) fn applied(live: &Live, values: &BTreeMap<InstanceName, BTreeMap<GuestPath, Arc<[u8]>>>) -> SecretTexts {
    let known = plan::applied_hashes(live);
    let hashes = &live.secrets.files;
    let is_known = |name: &InstanceName, path: &GuestPath| {
        let hash = hashes.get(name).and_then(|hashes| hashes.get(path));
        hash.is_some_and(|hash| known.contains(hash))
    };
    let texts = values.iter().flat_map(|(name, values)| {
        let of_it = values.iter().filter(|(path, _)| is_known(name, path));
        of_it.map(|(_, value)| value.clone())
    });
    SecretTexts(texts.collect())
}

/// Keeps the key that the plan's hashes were made with, before the first of them is written down: for an environment
/// that has none, when the plan writes a secret. For whoever holds the environment's lock.
///
/// # Errors
/// Already-exists where somebody else has kept one meanwhile, and whatever else the backend says.
pub async fn keep_key(backend: &dyn Sandboxes, desired: &Desired, live: &Live, plan: &Plan) -> Result<()> {
    let writes = plan
        .steps
        .iter()
        .any(|step| matches!(&step.op, Op::Files { secrets, .. } if !secrets.is_empty()));
    if live.secrets.key_is_kept || !writes {
        return Ok(());
    }
    let note = desired.secrets.fresh_key().and_then(SecretKey::to_note);
    let note = note.ok_or_else(|| Error::new(ErrorKind::Invalid, "there is no key to hash secrets with"))?;
    backend
        .create_note(&desired.environment, NoteKey::SecretKey, &note)
        .await
}

/// The changes that write secret files.
pub(super) fn writes(
    desired: Option<&Desired>,
    files: &[SecretFile],
) -> std::result::Result<Vec<FileChange>, StepError> {
    let write = |file: &SecretFile| {
        let value = desired.and_then(|desired| desired.secrets.value(&file.variable));
        let value = value.ok_or_else(|| StepError::NoSecret(file.variable.clone()))?;
        Ok(FileChange::Write {
            path: file.path.clone(),
            content: Content::inline(value.clone()),
            mode: file.mode,
            owner: Some(file.owner),
        })
    };
    files.iter().map(write).collect()
}
