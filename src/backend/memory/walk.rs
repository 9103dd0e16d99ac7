//! From a path to a place on a disk: links on the way are followed, inside the root and never out of it.

use std::collections::VecDeque;

use super::disk::{Disk, Kind};

/// As many links as Linux follows in one path (path_resolution(7)).
const MOST_LINKS: usize = 40;

/// Where a path leads: names from the root, no links among them but for the last.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Spot {
    /// To something.
    There(Vec<String>),
    /// To nothing: the first of `names` is not in `folder`.
    Missing { folder: Vec<String>, names: Vec<String> },
}

/// Why a path leads nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Obstacle {
    #[error("not a folder")]
    NotFolder,
    #[error("no such file")]
    Missing,
    #[error("a link on the way leads to nothing")]
    Dangling,
    #[error("too many links on the way")]
    Loop,
    #[error("not a regular file")]
    NotFile,
    #[error("a link needs a target")]
    NoTarget,
}

impl Disk {
    /// Walks a path. The last part is followed when it is a link only where `follow` says so.
    pub(super) fn walk(&self, path: &str, follow: bool) -> Result<Spot, Obstacle> {
        let mut left: VecDeque<String> = parts(path).collect();
        let mut place: Vec<String> = Vec::new();
        // How many of the parts ahead come from a link and not from the path itself.
        let mut from_link = 0_usize;
        let mut links = 0;
        while let Some(part) = left.pop_front() {
            let linked = from_link > 0;
            from_link = from_link.saturating_sub(1);
            if part == ".." {
                // Above the root is the root.
                place.pop();
                continue;
            }
            let folder = self
                .node(&place)
                .and_then(|node| node.folder())
                .ok_or(Obstacle::NotFolder)?;
            match folder.get(&part).map(|node| &node.kind) {
                None if linked => return Err(Obstacle::Dangling),
                None => {
                    let names = std::iter::once(part).chain(left).collect();
                    return Ok(Spot::Missing { folder: place, names });
                }
                Some(Kind::Symlink(target)) if follow || !left.is_empty() => {
                    links += 1;
                    if links > MOST_LINKS {
                        return Err(Obstacle::Loop);
                    }
                    if target.starts_with('/') {
                        place.clear();
                    }
                    for part in parts(target).rev() {
                        left.push_front(part);
                        from_link += 1;
                    }
                }
                Some(Kind::Directory(_)) => place.push(part),
                Some(_) if left.is_empty() => place.push(part),
                Some(_) => return Err(Obstacle::NotFolder),
            }
        }
        Ok(Spot::There(place))
    }
}

fn parts(path: &str) -> impl DoubleEndedIterator<Item = String> {
    path.split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::memory::machine::Machine;
    use crate::model::Owner;

    fn there(path: &[&str]) -> Result<Spot, Obstacle> {
        Ok(Spot::There(path.iter().map(|&part| part.to_owned()).collect()))
    }

    fn linked(links: &[(&str, &str)]) -> Disk {
        let mut machine = Machine::bare(Disk::empty());
        machine.write("/real/file", "x").expect("writes");
        for (path, target) in links {
            machine.symlink(path, target, Owner::ROOT).expect("links");
        }
        machine.root
    }

    #[test]
    fn links_in_parents_are_followed_and_the_last_only_when_asked() {
        let disk = linked(&[("/to-folder", "real"), ("/to-file", "/to-folder/file")]);
        assert_eq!(disk.walk("/to-folder/file", false), there(&["real", "file"]));
        assert_eq!(disk.walk("/to-file", false), there(&["to-file"]));
        assert_eq!(disk.walk("/to-file", true), there(&["real", "file"]));
    }

    #[test]
    fn no_link_leads_out_of_the_root() {
        let disk = linked(&[("/real/up", "../../../../real"), ("/slash", "/..")]);
        assert_eq!(disk.walk("/real/up/file", false), there(&["real", "file"]));
        assert_eq!(disk.walk("/slash/real", false), there(&["real"]));
    }

    #[test]
    fn what_leads_nowhere_says_why() {
        let disk = linked(&[("/round", "about"), ("/about", "round"), ("/lost", "gone/away")]);
        assert_eq!(disk.walk("/round/x", false), Err(Obstacle::Loop));
        assert_eq!(disk.walk("/lost/x", false), Err(Obstacle::Dangling));
        assert_eq!(disk.walk("/real/file/x", false), Err(Obstacle::NotFolder));
        assert_eq!(
            disk.walk("/real/a/b", false),
            Ok(Spot::Missing {
                folder: vec!["real".to_owned()],
                names: vec!["a".to_owned(), "b".to_owned()],
            })
        );
    }
}
