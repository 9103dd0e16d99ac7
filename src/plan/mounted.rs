//! What somebody has attached to a sandbox: a folder of the host, a volume. It lies in the sandbox's tree of files and
//! belongs to somebody else.

use super::diff::{Fate, Subject};
use super::{Op, Refusal, Step};
use crate::model::{FileChange, GuestPath, Place, Sandbox};

/// Refuses steps that would remove something with what is mounted in it.
pub(super) fn guard(subject: &Subject<'_>, fate: Fate, steps: &[Step]) -> Vec<Refusal> {
    // What is new has nothing attached by hand.
    let Some(instance) = subject.instance.filter(|_| fate == Fate::Keep) else {
        return Vec::new();
    };
    let in_its_place = |change: &FileChange| match change {
        FileChange::Write { path, .. } | FileChange::Symlink { path, .. } | FileChange::Remove { path } => {
            Some(path.clone())
        }
        FileChange::Directory { .. } | FileChange::Attributes { .. } => None,
    };
    let paths = steps.iter().flat_map(|step| match &step.op {
        Op::Files { changes, secrets, .. } => {
            let secrets = secrets.iter().map(|secret| secret.path.clone());
            changes.iter().filter_map(in_its_place).chain(secrets).collect()
        }
        _ => Vec::new(),
    });
    let refusals = paths.filter_map(|path| {
        let mount = instance.mounted.iter().find(|mount| mount.lies_in(&path))?;
        Some(Refusal::refused(
            "plan::mounted",
            format!(
                "`{path}` in `{}` would go, and something that is not ours is mounted at `{mount}`",
                subject.sandbox.name
            ),
            place(subject.sandbox, &path),
            "declared here",
            "detach that first, or declare this elsewhere".to_owned(),
        ))
    });
    refusals.collect()
}

/// The declaration that a path belongs to.
fn place<'a>(sandbox: &'a Sandbox, path: &GuestPath) -> &'a Place {
    let file = sandbox.files.get(path).map(|file| &file.at);
    let tree = || sandbox.trees.iter().find(|(root, _)| path.lies_in(root));
    file.or_else(|| tree().map(|(_, tree)| &tree.at)).unwrap_or(&sandbox.at)
}

/// Of trees that are kept clean, what is left alone for this.
pub(super) fn notices(subject: &Subject<'_>, fate: Fate) -> Vec<String> {
    let Some(instance) = subject.instance.filter(|_| fate == Fate::Keep) else {
        return Vec::new();
    };
    let sandbox = subject.sandbox;
    let is_declared = |path: &GuestPath| {
        sandbox.mounts.contains_key(path) || sandbox.volumes.values().any(|volume| volume.path == *path)
    };
    let mut notices = Vec::new();
    for (root, _) in sandbox.trees.iter().filter(|(_, tree)| tree.delete) {
        for mount in instance.mounted.iter().filter(|mount| !is_declared(mount)) {
            if root.lies_in(mount) {
                notices.push(format!(
                    "{root}: nothing is deleted there, for somebody has attached something at {mount}"
                ));
            } else if mount.lies_in(root) {
                notices.push(format!("{root}: what somebody has attached at {mount} is left alone"));
            }
        }
    }
    notices
}
