//! What a mount shows to a sandbox that may write there.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;

use crate::model::{Diagnostic, GuestPath, Mount, Place, Sandbox, SandboxName, SpecFile};
use crate::spec::problems::Problems;

/// Below a source: what makes programs of this machine run something, or holds what this tool and the backends' clients
/// are set up by.
const EXPOSED: [&str; 12] = [
    ".git",
    ".config/sbx-apply",
    ".local/share/sbx-apply",
    ".config/incus",
    ".ssh",
    ".bashrc",
    ".bash_profile",
    ".profile",
    ".zshrc",
    ".zshenv",
    ".zprofile",
    ".config/fish",
];

/// How many of a source's folders are looked into for repositories, and how many of those are named.
const LOOKED_INTO: usize = 1000;
const NAMED: usize = 3;

/// A mount of a real path. `spec` are the spec's own files.
pub(super) fn mount(source: PathBuf, readonly: bool, spec: &[SpecFile], at: &Place) -> Mount {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let guarded = |file: &SpecFile| file.real().strip_prefix(&source).ok().map(text);
    let guarded: BTreeSet<String> = match readonly {
        true => BTreeSet::new(),
        false => spec.iter().filter_map(guarded).collect(),
    };
    let exposed = match readonly {
        true => BTreeSet::new(),
        false => exposed(&source),
    };
    Mount {
        is_file: source.is_file(),
        readonly,
        guarded,
        exposed,
        owner: source.symlink_metadata().map_or(0, |found| found.uid()),
        at: at.clone(),
        source,
    }
}

/// What a guest that writes below a source could have this machine run.
fn exposed(source: &Path) -> BTreeSet<String> {
    let names = EXPOSED.iter();
    let names = names.filter(|name| source.join(name).symlink_metadata().is_ok());
    let mut exposed: BTreeSet<String> = names.map(|name| (*name).to_owned()).collect();
    let itself = format!("{}/", source.to_string_lossy());
    if EXPOSED.iter().any(|name| itself.contains(&format!("/{name}/"))) {
        exposed.insert(source.to_string_lossy().into_owned());
    }
    // A folder of repositories.
    let folders = std::fs::read_dir(source)
        .into_iter()
        .flatten()
        .flatten()
        .take(LOOKED_INTO);
    let repositories = folders.filter(|entry| entry.path().join(".git").symlink_metadata().is_ok());
    let mut repositories: Vec<String> = repositories
        .map(|entry| format!("{}/.git", entry.file_name().to_string_lossy()))
        .collect();
    repositories.sort_unstable();
    exposed.extend(repositories.into_iter().take(NAMED));
    exposed
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

/// Refuses what could not be put where it belongs, for it lies in a mount whose source has nothing of its kind there, and
/// nothing may be made: found now, nothing is stopped for it.
pub(super) fn targets(sandboxes: &IndexMap<SandboxName, Sandbox>, problems: &mut Problems) {
    let mut said: BTreeSet<&Place> = BTreeSet::new();
    for sandbox in sandboxes.values() {
        let mounts = sandbox.mounts.iter();
        let mounts = mounts.map(|(path, mount)| (path, mount.source.is_dir(), &mount.at));
        let volumes = sandbox.volumes.values().map(|volume| (&volume.path, true, &volume.at));
        for (path, is_folder, at) in mounts.chain(volumes) {
            let Some((outer, below)) = around(sandbox, path) else {
                continue;
            };
            let Some((what, help)) = in_the_way(outer, below, is_folder).filter(|_| said.insert(at)) else {
                continue;
            };
            problems.push(
                Diagnostic::new(
                    "spec::no-place",
                    format!("nothing can be mounted at \"{path}\": {what}"),
                    at,
                    "lies in a mount",
                )
                .with_mark(&outer.at, "this one")
                .with_help(help),
            );
        }
    }
}

/// The mount that a path lies in, and where in it. None where a volume is nearer: nobody knows what is in that.
fn around<'a>(sandbox: &'a Sandbox, path: &'a GuestPath) -> Option<(&'a Mount, &'a str)> {
    let mut folder = path.parent();
    while let Some(at) = folder {
        if sandbox.volumes.values().any(|volume| volume.path == at) {
            return None;
        }
        if let Some((outer, mount)) = sandbox.mounts.get_key_value(&at) {
            return path.below(outer).map(|below| (mount, below));
        }
        folder = at.parent();
    }
    None
}

/// What keeps something from being mounted at a path below a mount's source, and what to do about it.
fn in_the_way(outer: &Mount, below: &str, is_folder: bool) -> Option<(String, &'static str)> {
    let mut at = outer.source.clone();
    for part in Path::new(below).components() {
        if !at.is_dir() {
            return Some((
                "a file stands there in what is mounted".to_owned(),
                "put it elsewhere: a file holds nothing",
            ));
        }
        at.push(part);
        match at.symlink_metadata() {
            Ok(found) if found.is_symlink() => {
                return Some((
                    "a link stands there in what is mounted".to_owned(),
                    "put it where the link leads",
                ));
            }
            Ok(_) => {}
            Err(_) if outer.readonly => {
                return Some((
                    format!("there is no {below} in what is mounted, and it is only to be read"),
                    "make that in the source, so that there is something to mount it on",
                ));
            }
            Err(_) if !is_folder => {
                return Some((
                    format!("there is no {below} in what is mounted"),
                    "make an empty file there, so that there is something to mount it on",
                ));
            }
            // It is made.
            Err(_) => return None,
        }
    }
    (at.is_dir() != is_folder).then(|| {
        let (is, stands) = if is_folder {
            ("a folder", "a file")
        } else {
            ("a file", "a folder")
        };
        (
            format!("it is {is}, and {stands} stands there in what is mounted"),
            "put it elsewhere",
        )
    })
}
