//! What is on the disk of a machine with local sandboxes, as a person would look.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

/// The names in a folder, ordered; none where there is no folder.
pub(super) fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn json(file: &Path) -> Option<Value> {
    serde_json::from_slice(&fs::read(file).ok()?).ok()
}

/// The sandboxes whose names begin so: whether their first process is there, and the labels of their snapshots.
pub(super) fn instances(state: &Path, prefix: &str) -> BTreeMap<String, (String, Vec<String>)> {
    let sandboxes = state.join("sandboxes");
    let ours = names(&sandboxes).into_iter().filter_map(|name| {
        let folder = sandboxes.join(&name);
        let record = json(&folder.join("record.json"))?;
        let snapshots = record["snapshots"].as_array().into_iter().flatten();
        let labels = snapshots.filter_map(|kept| Some(kept["label"].as_str()?.to_owned()));
        let runs =
            json(&folder.join("run.json")).is_some_and(|run| Path::new(&format!("/proc/{}", run["pid"])).exists());
        let status = if runs { "Running" } else { "Stopped" };
        Some((
            name.strip_prefix(prefix)?.to_owned(),
            (status.to_owned(), labels.collect()),
        ))
    });
    ours.collect()
}

/// Asserts that nothing is left in a state folder: neither of sandboxes, nor of what was half made.
pub(super) fn is_empty(state: &Path) {
    for folder in ["sandboxes", "layers", "trash", "locks"] {
        assert_eq!(names(&state.join(folder)), Vec::<String>::new(), "{folder}");
    }
    let images: Vec<_> = names(&state.join("images"));
    let half: Vec<_> = images.iter().filter(|name| name.starts_with('.')).collect();
    assert!(half.is_empty(), "{half:?}");
    let beside: Vec<_> = names(state)
        .into_iter()
        .filter(|name| name.starts_with(".new"))
        .collect();
    assert!(beside.is_empty(), "{beside:?}");
}
