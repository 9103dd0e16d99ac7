//! What a real daemon would refuse.

use std::collections::BTreeMap;

use crate::backend::{Changes, CreateOpts, Error, ErrorKind, Result};

/// Refuses a name that no host could have (RFC 1123, section 2.1), or that starts with no letter.
pub(in crate::backend) fn instance_name(name: &str) -> Result<()> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let good = name.len() <= 63
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(allowed)
        && !name.ends_with('-');
    refuse_unless(good, || format!("`{name}` is no name for an instance"))
}

/// Refuses a snapshot's name that could not be part of a path.
pub(in crate::backend) fn snapshot_name(label: &str) -> Result<()> {
    let bad = |c: char| c == '/' || c.is_whitespace() || c.is_control();
    let good = !label.is_empty() && !label.contains(bad) && !label.starts_with('.');
    refuse_unless(good, || format!("`{label}` is no name for a snapshot"))
}

/// Refuses settings of a new instance.
pub(in crate::backend) fn options(opts: &CreateOpts) -> Result<()> {
    instance_name(&opts.name)?;
    cpu(opts.cpu)?;
    opts.env
        .iter()
        .try_for_each(|(key, value)| variable(key, Some(value)))?;
    opts.config
        .iter()
        .try_for_each(|(key, value)| setting(key, Some(value)))?;
    labels(&opts.labels.0)
}

/// Refuses changes of settings.
pub(in crate::backend) fn changes(changes: &Changes) -> Result<()> {
    cpu(changes.cpu.flatten())?;
    for (key, value) in &changes.env {
        variable(key, value.as_deref())?;
    }
    for (key, value) in &changes.config {
        setting(key, value.as_deref())?;
    }
    let mut labels = changes.labels.iter();
    labels.try_for_each(|(key, value)| label(key, value.as_deref()))
}

/// Refuses a number of CPUs that is none.
fn cpu(cpu: Option<u32>) -> Result<()> {
    refuse_unless(cpu != Some(0), || "an instance has one CPU at least".to_owned())
}

/// Refuses an environment variable that no process could have, and control characters: a daemon may write it
/// into a configuration file of lines as it is.
fn variable(key: &str, value: Option<&str>) -> Result<()> {
    let good = !key.is_empty() && !key.contains('=') && !controlled(key, value);
    refuse_unless(good, || format!("{key:?} is no environment variable"))
}

fn controlled(key: &str, value: Option<&str>) -> bool {
    key.contains(char::is_control) || value.is_some_and(|value| value.contains(char::is_control))
}

/// Refuses a setting that the daemon does not know, keeps for itself, or that has a word of its own; and empty
/// values, which it takes for none.
fn setting(key: &str, value: Option<&str>) -> Result<()> {
    const KNOWN: [&str; 9] = [
        "boot.",
        "cluster.",
        "limits.",
        "linux.",
        "migration.",
        "nvidia.",
        "raw.",
        "security.",
        "user.",
    ];
    let known = KNOWN
        .iter()
        .any(|prefix| key.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty()));
    let own = ["limits.cpu", "limits.memory"].contains(&key) || key.starts_with("user.sbx-apply");
    let good = known && !own && value != Some("") && !controlled(key, value);
    refuse_unless(good, || format!("{key:?} is no setting of an instance"))
}

/// Refuses labels that no backend could keep.
pub(super) fn labels(labels: &BTreeMap<String, String>) -> Result<()> {
    labels.iter().try_for_each(|(key, value)| label(key, Some(value)))
}

/// Refuses a label without a name, and one of several lines.
fn label(key: &str, value: Option<&str>) -> Result<()> {
    let good = !key.is_empty()
        && !key.contains(|c: char| c.is_whitespace() || c.is_control())
        && !value.is_some_and(|value| value.contains(|c: char| c < ' '));
    refuse_unless(good, || format!("{key:?} is no label"))
}

fn refuse_unless(good: bool, message: impl FnOnce() -> String) -> Result<()> {
    match good {
        true => Ok(()),
        false => Err(Error::new(ErrorKind::Invalid, message())),
    }
}
