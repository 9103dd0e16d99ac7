//! Which of a batch of changes can happen side by side.

use std::collections::{HashMap, HashSet};

/// What a change does besides changing what stands at its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// Nothing.
    Path,
    /// It makes a link: what lies below may be anywhere.
    Link,
    /// Its path is one at which another change prepares what it puts in place.
    Aside,
}

/// Puts changes into rounds: those of one round touch nothing that another of them touches, and every change
/// comes in a later round than those before it at the same path, above or below it. What lies below a link that
/// is made comes after all that is before it and before all that is after it; so does what lies aside.
pub(super) fn rounds<'a>(changes: impl IntoIterator<Item = (&'a str, Reach)>) -> Vec<Vec<usize>> {
    let mut rounds: Vec<Vec<usize>> = Vec::new();
    // The last round so far at each path, and at or below each ancestor of one.
    let mut at: HashMap<&str, usize> = HashMap::new();
    let mut below: HashMap<&str, usize> = HashMap::new();
    let mut links: HashSet<&str> = HashSet::new();
    let mut first = 0;
    for (index, (path, reach)) in changes.into_iter().enumerate() {
        let above = ancestors(path).filter_map(|ancestor| at.get(ancestor));
        let earlier = above.chain(at.get(path)).chain(below.get(path)).max();
        let mut round = earlier.map_or(first, |round| first.max(round + 1));
        if reach == Reach::Aside || ancestors(path).any(|ancestor| links.contains(ancestor)) {
            round = rounds.len();
            first = round + 1;
        }
        if reach == Reach::Link {
            links.insert(path);
        }
        if rounds.len() <= round {
            rounds.resize_with(round + 1, Vec::new);
        }
        rounds[round].push(index);
        at.insert(path, round);
        for ancestor in ancestors(path) {
            let last = below.entry(ancestor).or_insert(round);
            *last = round.max(*last);
        }
    }
    rounds
}

fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    path.rmatch_indices('/')
        .map(|(at, _)| &path[..at])
        .filter(|ancestor| !ancestor.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_touches_waits_and_the_rest_does_not() {
        fn rounds<const N: usize>(paths: [&str; N]) -> Vec<Vec<usize>> {
            super::rounds(paths.map(|path| (path, Reach::Path)))
        }
        let tree = ["/a", "/a/b", "/a/b/c", "/a/d", "/a/d/e", "/x"];
        assert_eq!(rounds(tree), [vec![0, 5], vec![1, 3], vec![2, 4]]);
        assert_eq!(rounds(["/a/b", "/a", "/a/b", "/ab"]), [vec![0, 3], vec![1], vec![2]]);
        assert_eq!(rounds(["/a", "/a"]), [vec![0], vec![1]]);
        assert_eq!(rounds([]), Vec::<Vec<usize>>::new());
    }

    #[test]
    fn what_lies_below_a_new_link_comes_in_order() {
        let changes = [
            ("/x", Reach::Path),
            ("/z", Reach::Link),
            ("/z/w", Reach::Path),
            ("/x/w", Reach::Path),
            ("/y", Reach::Path),
        ];
        assert_eq!(rounds(changes), [vec![0, 1], vec![2], vec![3, 4]]);
    }

    #[test]
    fn what_lies_aside_comes_in_order() {
        let changes = [
            ("/x", Reach::Path),
            ("/.aside", Reach::Aside),
            ("/y", Reach::Path),
            ("/z", Reach::Path),
        ];
        assert_eq!(rounds(changes), [vec![0], vec![1], vec![2, 3]]);
    }
}
