//! Sources of mounts that lie where somebody else in a sandbox can write: who can could put a link there, which a backend that
//! looks for sources by their paths follows to anywhere on this machine.

use std::path::Path;

use super::spec_files::paths;
use super::{Graph, Op, Refusal, Step, StepId};
use crate::model::{Desired, GuestPath, HostMount, InstanceName, Live, Mount, Ownership};

/// Has a sandbox that can write to a folder lose it before something in it is mounted in another one, and refuses what
/// somebody keeps who could write there, or could come to.
pub(super) fn out_of_reach(steps: &mut [Step], desired: &Desired, live: &Live) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    for index in 0..steps.len() {
        let Op::Attach(attach) = &steps[index].op else { continue };
        let Some(sandbox) = desired.sandboxes.get(&steps[index].sandbox) else {
            continue;
        };
        let mounts = attach.mounts.keys().filter_map(|path| sandbox.mounts.get(path));
        for mount in mounts.cloned().collect::<Vec<_>>() {
            for (other, theirs) in in_reach(&mount, live) {
                let release = loses(steps, live, &other, &theirs.source);
                // What it loses itself it loses at once, and is stopped for that: see `workspace::restarts`.
                if other == steps[index].instance && release.is_some() {
                    continue;
                }
                let waits = release.is_some_and(|release| wait_for(steps, index, release));
                if !waits {
                    refusals.push(refused(&mount, &theirs, &other, live));
                }
            }
        }
    }
    refusals
}

/// What others have mounted that does not go with a mount: what is written to and holds its source, and, of one that is
/// written to, what lies in it.
fn in_reach(mount: &Mount, live: &Live) -> Vec<(InstanceName, HostMount)> {
    let all = live
        .host_mounts
        .iter()
        .flat_map(|(name, mounts)| mounts.iter().map(move |theirs| (name, theirs)));
    let near = all.filter(|(_, theirs)| {
        theirs.source != mount.source
            && ((!theirs.readonly && mount.source.starts_with(&theirs.source))
                || (!mount.readonly && theirs.source.starts_with(&mount.source)))
    });
    near.map(|(name, theirs)| (name.clone(), theirs.clone())).collect()
}

/// Has a step wait for another one, unless that would go round in a circle.
fn wait_for(steps: &mut [Step], index: usize, release: StepId) -> bool {
    steps[index].needs.push(release);
    let waits = Graph::of(steps).order().is_ok();
    if !waits {
        steps[index].needs.pop();
    }
    waits
}

/// The step with which an instance loses a folder.
fn loses(steps: &[Step], live: &Live, writer: &InstanceName, folder: &Path) -> Option<StepId> {
    let found = &live.instances.get(writer)?.workspace.mounts;
    let is_it = |source: &str| paths(source).any(|source| Path::new(source) == folder);
    let at: Vec<&GuestPath> = found
        .iter()
        .filter(|(_, mount)| is_it(&mount.source))
        .map(|(path, _)| path)
        .collect();
    let goes = |step: &&Step| match &step.op {
        Op::Delete => true,
        // What hands have attached stays where it is.
        Op::Attach(attach) => {
            !at.is_empty()
                && at.iter().all(|path| match attach.mounts.get(*path) {
                    Some(None) => true,
                    Some(Some(after)) => after.readonly || Path::new(&after.source) != folder,
                    None => false,
                })
        }
        _ => false,
    };
    let mut steps = steps.iter().filter(|step| step.instance == *writer);
    steps.find(goes).map(|step| step.id.clone())
}

fn refused(mount: &Mount, theirs: &HostMount, other: &InstanceName, live: &Live) -> Refusal {
    let (who, folder) = (called(other, live), theirs.source.display());
    let (message, help) = match mount.source.starts_with(&theirs.source) {
        true => (
            format!("{who} can write to {folder}, and what is mounted here lies in it"),
            "have that one lose it first: apply without this mount, with `--prune` where it left the spec",
        ),
        false => (
            format!("{who} has {folder} mounted, which lies in what is mounted here"),
            "mount it with `readonly=true`, or a folder beside that",
        ),
    };
    Refusal::invalid(
        "plan::nested-mount",
        message,
        &mount.at,
        "a link could be put in its place",
        help.to_owned(),
    )
}

/// An instance, as people know it.
fn called(name: &InstanceName, live: &Live) -> String {
    let ownership = live.instances.get(name).map(|instance| instance.labels.ownership(name));
    match ownership {
        Some(Ownership::Owned { sandbox, .. }) => format!("`{sandbox}`"),
        _ => format!("the instance `{name}`"),
    }
}
