//! What a mount shows to a sandbox that may write there.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;

use crate::model::{Diagnostic, Mount, Place, Sandbox, SandboxName};
use crate::spec::problems::Problems;

/// Below a source: what makes programs of this machine run something, or holds what this tool and the backends' clients
/// are set up by.
const EXPOSED: [&str; 6] = [
    ".git",
    ".config/sbx-apply",
    ".local/share/sbx-apply",
    ".config/incus",
    ".ssh",
    ".bashrc",
];

/// A mount of a real path. `spec` are the real paths of the spec's own files.
pub(super) fn mount(source: PathBuf, readonly: bool, spec: &[PathBuf], at: &Place) -> Mount {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let guarded = |file: &PathBuf| file.strip_prefix(&source).ok().map(text);
    let guarded: BTreeSet<String> = match readonly {
        true => BTreeSet::new(),
        false => spec.iter().filter_map(guarded).collect(),
    };
    let exposed = EXPOSED.iter().filter(|_| !readonly);
    let mut exposed: BTreeSet<String> = exposed
        .filter(|name| source.join(name).symlink_metadata().is_ok())
        .map(|name| (*name).to_owned())
        .collect();
    if !readonly && source.components().any(|part| part.as_os_str() == ".git") {
        exposed.insert(text(&source));
    }
    Mount {
        readonly,
        guarded,
        exposed,
        owner: source.symlink_metadata().map_or(0, |found| found.uid()),
        at: at.clone(),
        source,
    }
}

/// Refuses a mount of what lies in a folder that a sandbox may write to: its processes could put a link in its place,
/// which the next start would follow to anywhere on this machine. Refuses a spec's own file as something to write to.
pub(super) fn nested(sandboxes: &IndexMap<SandboxName, Sandbox>, problems: &mut Problems) {
    let mut said: BTreeSet<&Place> = BTreeSet::new();
    let all = || sandboxes.values().flat_map(|sandbox| sandbox.mounts.values());
    let writable: Vec<&Mount> = all().filter(|mount| !mount.readonly).collect();
    for inner in all() {
        let odd = inner.source.to_str().is_none_or(|path| path.contains(char::is_control));
        if odd && said.insert(&inner.at) {
            problems.push(
                Diagnostic::new(
                    "spec::odd-path",
                    "the real path of what is mounted is no text, or has a control character in it",
                    &inner.at,
                    "leads there",
                )
                .with_help("give the folder another name"),
            );
        }
        if inner.guarded.contains("") && said.insert(&inner.at) {
            problems.push(
                Diagnostic::new(
                    "spec::mounted-spec",
                    "a file of the spec can only be mounted to be read",
                    &inner.at,
                    "a sandbox could write to the spec",
                )
                .with_help("say `readonly=true`"),
            );
        }
        let outer = writable
            .iter()
            .find(|outer| inner.source != outer.source && inner.source.starts_with(&outer.source));
        let Some(outer) = outer.filter(|_| said.insert(&inner.at)) else {
            continue;
        };
        problems.push(
            Diagnostic::new(
                "spec::nested-mount",
                "what is mounted here lies in a folder that a sandbox may write to",
                &inner.at,
                "a link could be put in its place",
            )
            .with_mark(&outer.at, "the folder is mounted here")
            .with_help("mount one of the two, or the outer one with `readonly=true`"),
        );
    }
}
