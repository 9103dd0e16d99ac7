//! Names that nothing has, with those that were perhaps meant.

use super::error::Error;
use crate::backend::Reader;
use crate::model::InstanceName;
use crate::spec::nearest;

/// No instance has that name; others have.
pub(super) async fn unknown_instance(name: &InstanceName, reader: &dyn Reader) -> Result<Error, Error> {
    let all = reader.list().await?;
    let names: Vec<&str> = all.iter().map(|instance| instance.name.as_str()).collect();
    Ok(Error::usage(
        format!("no instance is named `{name}`{}", meant(name.as_str(), &names)),
        match names[..] {
            [] => "the backend has none at all; is it the right one, and the right project?".to_owned(),
            _ => format!("there are: {}", some(&names)),
        },
    ))
}

/// What a name may have been meant to be.
pub(super) fn meant(name: &str, names: &[&str]) -> String {
    nearest(name, names.iter().copied()).map_or_else(String::new, |near| format!(", did you mean `{near}`?"))
}

/// A list that fits on a line or two.
pub(super) fn some(names: &[&str]) -> String {
    const MANY: usize = 12;
    let more = names.len().saturating_sub(MANY);
    let shown = names[..names.len() - more].join(", ");
    match more {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
