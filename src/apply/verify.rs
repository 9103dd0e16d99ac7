//! After an apply: is everything as it should be now?

use super::observe::observe;
use crate::backend::{Reader, Result};
use crate::model::{Desired, Live};
use crate::plan::{Options, Plan, plan};

/// What a fresh observation says.
#[derive(Debug)]
pub struct Verified {
    /// The plan that it gives: in sync, unless somebody or something works against the spec.
    pub plan: Plan,
    /// What was seen.
    pub live: Live,
}

/// Observes again and plans again, for what was selected.
///
/// # Errors
/// Whatever the backend says.
pub async fn verify(
    reader: &dyn Reader,
    desired: &Desired,
    (applied, before): (&Plan, &Live),
    options: &Options,
) -> Result<Verified> {
    let mut live = observe(reader, desired, &applied.selected).await?;
    // Answers that rotate are not the apply's doing.
    live.names.clone_from(&before.names);
    // The targets were checked when the plan was made; a failure here could only be an unknown one.
    let plan = plan(desired, &live, reader.capabilities(), options)
        .map_err(|error| crate::backend::Error::new(crate::backend::ErrorKind::Invalid, error.to_string()))?;
    Ok(Verified { plan, live })
}
