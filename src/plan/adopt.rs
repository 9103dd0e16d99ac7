//! Taking over an instance that somebody else has made.

use super::Refusal;
use super::facts;
use super::match_up::Matched;
use crate::model::{Desired, Facts, InstanceName, Kind, Labels, Live, LiveInstance, Ownership, Place, Sandbox};

/// What an adoption comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Adoption {
    /// The instance is that sandbox's already.
    Done,
    /// It becomes it with these labels, in the place of all of ours that it has.
    Labels(Labels),
}

/// What it takes for an instance to become a sandbox: labels, and in them a record that says that it was made from what
/// the spec says, and that set-up steps and seeds are done. All else stays unrecorded, so that it shows as pending
/// where it differs. `live` must hold every instance of the environment and of the names that the spec wants, and the
/// hashes of its secrets.
///
/// # Errors
/// Where the instance is somebody's, or another one is in the sandbox's place or loses its own to it.
pub fn adopt(
    desired: &Desired,
    sandbox: &Sandbox,
    instance: &LiveInstance,
    live: &Live,
) -> Result<Adoption, Box<Refusal>> {
    let (environment, name) = (&desired.environment, &sandbox.name);
    let refused = |message: String, place: &Place, mark: &str, help: String| {
        let refusal = Refusal::refused("plan::adopt", message, place, mark, help);
        Err(Box::new(refusal))
    };
    if let Ownership::Owned {
        environment: of,
        sandbox: as_sandbox,
    } = instance.labels.ownership(&instance.name)
    {
        if of == *environment && as_sandbox == *name {
            return Ok(Adoption::Done);
        }
        return refused(
            format!(
                "`{}` is owned already: it is the sandbox `{as_sandbox}` of the environment `{of}`",
                instance.name
            ),
            &sandbox.at,
            "for this sandbox",
            "adopt another instance; one that nobody wants any more loses its owner with its \
             `user.sbx-apply.instance` label"
                .to_owned(),
        );
    }
    let matched = Matched::owned_by(environment, live);
    if let Some(refusal) = matched.refusals.into_iter().next() {
        return Err(Box::new(refusal));
    }
    if let Some(other) = matched.owned.get(name) {
        return refused(
            format!("the sandbox `{name}` has an instance already: `{}`", other.name),
            &sandbox.at,
            "this sandbox",
            "adopt as another sandbox, or delete that instance first".to_owned(),
        );
    }
    let needs = |other: &&Sandbox| {
        other.name != *name
            && !matched.owned.contains_key(&other.name)
            && InstanceName::of(environment, &other.name).is_ok_and(|name| name == instance.name)
    };
    if let Some(other) = desired.sandboxes.values().find(needs) {
        return refused(
            format!(
                "`{}` is the name that the sandbox `{}` will need",
                instance.name, other.name
            ),
            &other.at,
            "this one",
            format!("adopt it as `{}`, or rename the instance first", other.name),
        );
    }
    let mut labels = Labels::owned(environment, name, &instance.name);
    labels.set_applied(&record(sandbox, live));
    // It holds somebody's data, so it is never made anew as one whose first apply did not finish would be.
    labels.0.insert(Labels::COMPLETE.to_owned(), "true".to_owned());
    Ok(Adoption::Labels(labels))
}

/// What cannot be read back from an instance, as if it had been applied.
fn record(sandbox: &Sandbox, live: &Live) -> Facts {
    let all = facts::desired(sandbox, &live.secrets.sources, &Facts::new());
    let mut record = Facts::new();
    let kept = all.iter().filter(|(field, _)| match field.kind {
        Kind::Sandbox => matches!(field.field.as_str(), "image" | "clone-from"),
        Kind::File => field.field == "seed",
        kind => kind == Kind::Run,
    });
    record.extend(kept.map(|(field, value)| (field.clone(), value.to_owned())));
    record
}
