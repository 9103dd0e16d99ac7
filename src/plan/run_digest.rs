//! The digest of a set-up step: when it differs from the recorded one, the step runs.

use super::facts::of_file;
use crate::model::{Digest, Entry, Facts, FileState, GuestPath, Hasher, Run, Sandbox, Script};

/// The digest of each step, in their order. Each covers its text or script, its user, the contents that it
/// names with `on-change`, and the step before it: so whatever is added, changed, moved or removed makes
/// everything after it run again.
/// `facts` are what the spec says of its files.
pub(super) fn run_digests(sandbox: &Sandbox, facts: &Facts) -> Vec<Digest> {
    let mut digests: Vec<Digest> = Vec::with_capacity(sandbox.run.len());
    for run in &sandbox.run {
        let digest = digest(sandbox, facts, run, digests.last());
        digests.push(digest);
    }
    digests
}

fn digest(sandbox: &Sandbox, facts: &Facts, run: &Run, before: Option<&Digest>) -> Digest {
    let mut hasher = Hasher::new();
    hasher.part(before.map_or("", Digest::as_str));
    match &run.script {
        Script::Command(text) => {
            hasher.part("command");
            hasher.part(text);
        }
        Script::File { content, .. } => {
            hasher.part("script");
            hasher.part(content.digest.as_str());
        }
    }
    hasher.part(run.user.as_deref().unwrap_or("root"));
    if let Some(path) = &run.on_change {
        hasher.part(path.as_str());
        hash_declared(&mut hasher, sandbox, facts, path);
    }
    hasher.finish()
}

fn hash_declared(hasher: &mut Hasher, sandbox: &Sandbox, facts: &Facts, path: &GuestPath) {
    match sandbox.files.get(path).map(|file| &file.state) {
        Some(FileState::Content(content)) => hasher.part(content.digest.as_str()),
        // Its keyed hash; a seed, which is written once, has none.
        Some(FileState::Secret(variable)) => {
            hasher.part(facts.get(&of_file(path, "content")).unwrap_or(variable));
        }
        Some(FileState::Absent) => hasher.part("absent"),
        None => {}
    }
    let Some(tree) = sandbox.trees.get(path) else { return };
    for (path, entry) in &tree.entries {
        hasher.part(path);
        match entry {
            Entry::File { content, mode } => {
                hasher.part(content.digest.as_str());
                hasher.part(mode.to_string());
            }
            Entry::Directory => hasher.part("directory"),
            Entry::Symlink(target) => hasher.part(target),
        }
    }
}
