//! Files, trees, mounts and volumes that get in each other's way.

use std::collections::BTreeMap;

use crate::model::{Diagnostic, GuestPath, Place};
use crate::spec::decode::Block;
use crate::spec::problems::Problems;

/// Where the kernel shows itself.
const KERNEL: [&str; 3] = ["/dev", "/proc", "/sys"];

/// Checks the paths of a sandbox whose layers are merged.
pub(crate) fn paths(sandbox: &Block, problems: &mut Problems) {
    let mut taken: BTreeMap<GuestPath, (&str, Place)> = BTreeMap::new();
    let labelled = |name: &'static str| sandbox.blocks(name).map(move |block| (name, block.label.as_ref()));
    let volumes = sandbox.blocks("volume").map(|block| ("volume", block.value("path")));
    let all = labelled("file")
        .chain(labelled("tree"))
        .chain(labelled("mount"))
        .chain(volumes);
    for (what, value) in all {
        let Some(value) = value else { continue };
        let Ok(path) = GuestPath::new(value.text.as_str()) else {
            continue;
        };
        if let Some(kernel) = KERNEL
            .iter()
            .find(|kernel| path.lies_in(&GuestPath::trusted((**kernel).to_owned())))
        {
            problems.push(
                Diagnostic::new(
                    "spec::kernel-path",
                    format!("\"{path}\" lies in {kernel}, which is the kernel's and not on the sandbox's disk"),
                    &value.at,
                    format!("a {what} there"),
                )
                .with_help("nothing that is put there stays: do it with a `run` step, or choose another path"),
            );
            continue;
        }
        if let Some((other, place)) = taken.get(&path) {
            problems.push(
                Diagnostic::new(
                    "spec::path-clash",
                    format!("both a {other} and a {what} are declared at \"{path}\""),
                    &value.at,
                    format!("a {what}"),
                )
                .with_mark(place, format!("a {other}"))
                .with_help("there can be one thing at a path: remove one, or move it"),
            );
            continue;
        }
        taken.insert(path, (what, value.at.clone()));
    }
    for (path, (what, place)) in &taken {
        let mut above = path.parent();
        while let Some(folder) = above {
            // It would be written into a folder of this machine, or below what hides it.
            if let Some((outer @ ("mount" | "volume"), mount)) = taken.get(&folder)
                && matches!(*what, "file" | "tree")
            {
                problems.push(
                    Diagnostic::new(
                        "spec::path-clash",
                        format!("\"{path}\" lies in the {outer} at \"{folder}\", whose contents are not the sandbox's"),
                        place,
                        format!("a {what} in it"),
                    )
                    .with_mark(mount, format!("a {outer}"))
                    .with_help("put it elsewhere, or make it with a `run` step"),
                );
            }
            if let Some(("file", file)) = taken.get(&folder) {
                problems.push(
                    Diagnostic::new(
                        "spec::path-clash",
                        format!("\"{path}\" cannot lie below \"{folder}\", which is a file"),
                        place,
                        format!("a {what} below it"),
                    )
                    .with_mark(file, "a file")
                    .with_help("a file holds no other files: move one of the two"),
                );
            }
            above = folder.parent();
        }
    }
}
