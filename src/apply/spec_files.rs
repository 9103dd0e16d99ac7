//! What is recorded of the spec's own files.

use std::collections::BTreeMap;

use crate::backend::{Error, ErrorKind, Reader, Result, Sandboxes};
use crate::model::{Desired, EnvironmentName, NoteKey, SpecRecord};

/// The records of all environments: whoever writes the spec can write another environment's name into it. One request
/// where there may be some, or where there is something to record.
pub(super) async fn records(reader: &dyn Reader, desired: &Desired) -> Result<BTreeMap<EnvironmentName, SpecRecord>> {
    let mounts = desired.sandboxes.values().any(|sandbox| !sandbox.mounts.is_empty());
    if desired.files.is_empty() && !mounts {
        return Ok(BTreeMap::new());
    }
    let notes = reader.notes(NoteKey::SpecFiles).await?;
    let records = notes.into_iter().map(|(environment, note)| {
        let record = SpecRecord::of_note(&note).ok_or_else(|| {
            let message = format!("what is kept of the spec's own files in `{environment}` cannot be read");
            Error::new(ErrorKind::Invalid, message)
                .with_hint("a newer version may have written it; else somebody has changed it")
        })?;
        Ok((environment, record))
    });
    records.collect()
}

/// Keeps a record in the place of the one that is known. For whoever holds the environment's lock.
///
/// # Errors
/// Whatever the backend says.
pub async fn keep_spec_record(
    backend: &dyn Sandboxes,
    environment: &EnvironmentName,
    known: Option<&SpecRecord>,
    record: Option<&SpecRecord>,
) -> Result<()> {
    if known == record {
        return Ok(());
    }
    let key = NoteKey::SpecFiles;
    let note = |record: &SpecRecord| {
        let large = || {
            Error::new(
                ErrorKind::Invalid,
                "too many of the spec's files lie in what sandboxes can write to",
            )
        };
        record.to_note().ok_or_else(large)
    };
    let kept = match (known, record) {
        (None, Some(new)) => backend.create_note(environment, key, &note(new)?).await,
        (Some(old), Some(new)) => backend.replace_note(environment, key, &note(old)?, &note(new)?).await,
        (Some(old), None) => backend.delete_note(environment, key, &note(old)?).await,
        (None, None) => Ok(()),
    };
    kept.map_err(|error| error.within("cannot record what was applied of the spec's own files"))
}
