//! Which of a batch of changes can happen side by side.

use std::collections::{BTreeMap, HashMap};

/// Puts changes into rounds: those of one round touch nothing that another of them touches, and every change
/// comes in a later round than those before it at the same path, above or below it.
pub(super) fn rounds<'a>(paths: impl IntoIterator<Item = &'a str>) -> Vec<Vec<usize>> {
    let mut rounds: Vec<Vec<usize>> = Vec::new();
    // The last round so far at each path, and at or below each ancestor of one.
    let mut at: HashMap<&str, usize> = HashMap::new();
    let mut below: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, path) in paths.into_iter().enumerate() {
        let above = ancestors(path).filter_map(|ancestor| at.get(ancestor));
        let earlier = above.chain(at.get(path)).chain(below.get(path)).max();
        let round = earlier.map_or(0, |round| round + 1);
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
        let tree = ["/a", "/a/b", "/a/b/c", "/a/d", "/a/d/e", "/x"];
        assert_eq!(rounds(tree), [vec![0, 5], vec![1, 3], vec![2, 4]]);
        assert_eq!(rounds(["/a/b", "/a", "/a/b", "/ab"]), [vec![0, 3], vec![1], vec![2]]);
        assert_eq!(rounds(["/a", "/a"]), [vec![0], vec![1]]);
        assert_eq!(rounds([]), Vec::<Vec<usize>>::new());
    }
}
