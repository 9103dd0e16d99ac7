//! What lies in a tree's folder and is not the tree's.

use std::collections::BTreeSet;

use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::model::{FileChange, GuestPath, Inspection, Mode, Sandbox, Shape, Tree};

/// What has to be done about a tree's folder before its entries are written, now that it has been looked at:
/// something else in its place goes, it is made when there is none, and, with `delete=true`, what lies in it goes
/// (topmost only) that is neither the tree's own, nor excluded, nor another declaration's, nor of something that is
/// `mounted` there.
#[must_use]
pub fn settle_tree(
    sandbox: &Sandbox,
    path: &GuestPath,
    found: &Inspection,
    mounted: &BTreeSet<GuestPath>,
) -> Vec<FileChange> {
    let Some(extra) = Extra::of(sandbox, path, mounted) else {
        return Vec::new();
    };
    let owner = extra.tree.owner;
    let make = FileChange::Directory {
        path: path.clone(),
        mode: Mode::DIRECTORY,
        owner,
    };
    match found.get(path).map(|found| &found.shape) {
        None => return vec![make],
        Some(Shape::Directory) => {}
        Some(_) => return vec![FileChange::Remove { path: path.clone() }, make],
    }
    if !extra.tree.delete {
        return Vec::new();
    }
    let all = extra.among(found.0.keys().filter_map(|at| at.below(path)));
    let topmost = |entry: &&&str| !all.iter().any(|outer| outer != *entry && lies_in(entry, outer));
    all.iter()
        .filter(topmost)
        .map(|entry| FileChange::Remove { path: path.join(entry) })
        .collect()
}

/// Whether a relative path is another one or lies below it.
fn lies_in(inner: &str, outer: &str) -> bool {
    inner
        .strip_prefix(outer)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Tells what of a tree's folder has to go.
pub(super) struct Extra<'a> {
    tree: &'a Tree,
    patterns: Option<Gitignore>,
    others: Vec<&'a str>,
    /// Whether the tree itself lies in something that is mounted: then nothing in its folder is the sandbox's.
    is_mounted: bool,
}

impl<'a> Extra<'a> {
    pub(super) fn of(sandbox: &'a Sandbox, path: &GuestPath, mounted: &'a BTreeSet<GuestPath>) -> Option<Self> {
        let tree = sandbox.trees.get(path)?;
        let declared = sandbox
            .files
            .keys()
            .chain(sandbox.trees.keys())
            .chain(sandbox.mounts.keys())
            .chain(mounted);
        let volumes = sandbox.volumes.values().map(|volume| &volume.path);
        let others = declared.chain(volumes).filter_map(|other| other.below(path)).collect();
        Some(Self {
            tree,
            patterns: Self::patterns(tree),
            others,
            is_mounted: mounted.iter().any(|mount| path.lies_in(mount)),
        })
    }

    fn patterns(tree: &Tree) -> Option<Gitignore> {
        let mut builder = GitignoreBuilder::new("/");
        for pattern in &tree.exclude {
            // The spec's floor has checked each pattern.
            let _ = builder.add_line(None, pattern);
        }
        builder.build().ok()
    }

    /// Which of the paths that are there, relative to the tree, have to go. A folder that holds something
    /// which stays, stays.
    pub(super) fn among<'e>(&self, entries: impl Iterator<Item = &'e str>) -> BTreeSet<&'e str> {
        let (mut extra, mut staying) = (BTreeSet::new(), Vec::new());
        for entry in entries {
            if self.is(entry) {
                extra.insert(entry);
            } else {
                staying.push(entry);
            }
        }
        for entry in staying {
            let mut folder = entry;
            while let Some((parent, _)) = folder.rsplit_once('/') {
                extra.remove(parent);
                folder = parent;
            }
        }
        extra
    }

    fn is(&self, entry: &str) -> bool {
        let declared = |other: &&str| lies_in(entry, other) || lies_in(other, entry);
        let excluded = |is_dir| {
            let path = format!("/{entry}");
            self.patterns
                .as_ref()
                .is_some_and(|all| all.matched_path_or_any_parents(path, is_dir).is_ignore())
        };
        !self.is_mounted
            && !self.tree.entries.contains_key(entry)
            && !self.others.iter().any(declared)
            && !excluded(false)
            && !excluded(true)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::{Entry, Owner, Place};

    #[test]
    fn what_is_excluded_stays_and_so_do_the_folders_that_hold_it() {
        let tree = Tree {
            entries: BTreeMap::from([
                ("own".to_owned(), Entry::Directory),
                ("own/a".to_owned(), Entry::Directory),
            ]),
            owner: Owner::ROOT,
            delete: true,
            exclude: vec!["*.log".to_owned(), "target/".to_owned()],
            at: Place::nowhere(),
        };
        let extra = Extra {
            patterns: Extra::patterns(&tree),
            tree: &tree,
            others: vec!["kept/by/file"],
            is_mounted: false,
        };
        let found = [
            "own",
            "own/a",
            "own/b",
            "x",
            "x/y.log",
            "x/z",
            "target",
            "target/deep",
            "kept",
            "kept/by",
            "kept/other",
            "gone",
            "gone/deep",
        ];
        let going = extra.among(found.into_iter());
        assert_eq!(
            going.into_iter().collect::<Vec<_>>(),
            ["gone", "gone/deep", "kept/other", "own/b", "x/z"]
        );
    }
}
