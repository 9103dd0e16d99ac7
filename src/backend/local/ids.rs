//! Which ids of this machine a sandbox's users are.

use serde::{Deserialize, Serialize};

/// So many ids a sandbox has, where it has more than one.
pub(super) const COUNT: u32 = 65_536;

/// How the ids inside stand for those outside. Fixed for a state folder: layers keep the outer ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "kebab-case")]
pub(super) enum Ids {
    /// Started by root: inner ids are these outer ones, and root inside is nobody outside.
    Root {
        /// The outer id of the inner 0.
        base: u32,
    },
    /// Started by a user with ranges of its own in `/etc/subuid` and `/etc/subgid`: root inside is the user, the
    /// other ids are of the range.
    Range {
        /// The user.
        uid: u32,
        /// Its group.
        gid: u32,
        /// The outer id of the inner user 1.
        users: u32,
        /// The outer id of the inner group 1.
        groups: u32,
    },
    /// Started by a user without: there is root inside, who is the user, and nobody else.
    Single {
        /// The user.
        uid: u32,
        /// Its group.
        gid: u32,
    },
}

impl Ids {
    /// For root: above what distributions give to users and to other container programs, below 2^31, which some
    /// file systems and programs take for negative.
    pub(super) const ROOT: Self = Self::Root { base: 2_000_000_000 };

    /// Whether the tool runs as root.
    pub(super) fn is_root(&self) -> bool {
        matches!(self, Self::Root { .. })
    }

    /// Whether there is nobody inside but root.
    pub(super) fn is_single(&self) -> bool {
        matches!(self, Self::Single { .. })
    }

    /// Outer ids of an inner user and group.
    pub(super) fn outside(&self, uid: u32, gid: u32) -> (u32, u32) {
        match *self {
            Self::Root { base } => (base.saturating_add(uid), base.saturating_add(gid)),
            Self::Range {
                uid: own,
                gid: group,
                users,
                groups,
            } => (
                if uid == 0 { own } else { users + uid - 1 },
                if gid == 0 { group } else { groups + gid - 1 },
            ),
            Self::Single { uid, gid } => (uid, gid),
        }
    }

    /// The lines of `uid_map` and `gid_map` (user_namespaces(7)): inner, outer, count.
    pub(super) fn maps(&self) -> [Vec<[u32; 3]>; 2] {
        match *self {
            Self::Root { base } => [vec![[0, base, COUNT]], vec![[0, base, COUNT]]],
            Self::Range {
                uid,
                gid,
                users,
                groups,
            } => [
                vec![[0, uid, 1], [1, users, COUNT - 1]],
                vec![[0, gid, 1], [1, groups, COUNT - 1]],
            ],
            Self::Single { uid, gid } => [vec![[0, uid, 1]], vec![[0, gid, 1]]],
        }
    }
}

/// The first outer id of a user's range, where `/etc/subuid` (or `subgid`) gives it one that is large enough.
/// Lines are `NAME-OR-ID:FIRST:COUNT` (subuid(5)).
pub(super) fn range(file: &str, name: Option<&str>, id: u32) -> Option<u32> {
    let id = id.to_string();
    file.lines().find_map(|line| {
        let mut parts = line.trim().split(':');
        let owner = parts.next()?;
        if owner != id && Some(owner) != name {
            return None;
        }
        let first: u32 = parts.next()?.parse().ok()?;
        let count: u32 = parts.next()?.parse().ok()?;
        (count >= COUNT - 1).then_some(first)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_found_by_name_or_id_and_must_be_large_enough() {
        let file = "other:100000:65536\nme:165536:65536\n1001:231072:65536\nsmall:300000:100\n";
        assert_eq!(range(file, Some("me"), 1000), Some(165_536));
        assert_eq!(range(file, None, 1001), Some(231_072));
        assert_eq!(range(file, Some("small"), 7), None);
        assert_eq!(range(file, None, 1000), None);
    }

    #[test]
    fn inner_ids_have_outer_ones() {
        let ids = Ids::Range {
            uid: 1000,
            gid: 1000,
            users: 100_000,
            groups: 200_000,
        };
        assert_eq!(ids.outside(0, 0), (1000, 1000));
        assert_eq!(ids.outside(1, 1000), (100_000, 200_999));
        assert_eq!(Ids::ROOT.outside(1, 0), (2_000_000_001, 2_000_000_000));
    }
}
