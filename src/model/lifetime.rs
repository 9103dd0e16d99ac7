//! How long a sandbox may live, and how much of that is left.

use super::{Labels, LiveInstance, Seconds};

/// How an instance stands to its ttl at some moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// It may live for ever.
    Unbounded,
    /// So many seconds are left.
    Left(u64),
    /// It is over since so many seconds.
    Over(u64),
    /// It has a ttl that says nothing, or nobody knows when it was made. It is never over.
    Unknown,
}

impl LiveInstance {
    /// What its ttl says, by the label that the last apply left, counted from its creation. `now` is in seconds since
    /// 1970-01-01T00:00:00Z. Whoever writes the label writes a duration above 0; all else is somebody else's doing,
    /// and no reason to delete anything.
    #[must_use]
    pub fn lifetime(&self, now: u64) -> Lifetime {
        let Some(label) = self.labels.get(Labels::TTL) else {
            return Lifetime::Unbounded;
        };
        let ttl = label.parse::<Seconds>().ok().filter(|ttl| ttl.0 > 0);
        let end = ttl.and_then(|ttl| self.created_at?.checked_add(ttl.0));
        match end {
            None => Lifetime::Unknown,
            Some(end) if end > now => Lifetime::Left(end - now),
            Some(end) => Lifetime::Over(now - end),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::{InstanceName, Status};

    fn instance(ttl: Option<&str>, created_at: Option<u64>) -> LiveInstance {
        let ttl = ttl.map(|ttl| (Labels::TTL.to_owned(), ttl.to_owned()));
        LiveInstance {
            name: InstanceName::observed("demo-one"),
            status: Status::Running,
            labels: Labels(ttl.into_iter().collect()),
            cpu: None,
            memory: None,
            disk: None,
            disk_effective: None,
            env: BTreeMap::new(),
            config: BTreeMap::new(),
            egress: None,
            snapshots: BTreeMap::new(),
            created_at,
            location: None,
            image: None,
            workspace: Default::default(),
            mounted: std::collections::BTreeSet::new(),
        }
    }

    #[test]
    fn it_counts_from_the_creation() {
        for (now, expected) in [
            (0, Lifetime::Left(4_600)),
            (1_000, Lifetime::Left(3_600)),
            (4_599, Lifetime::Left(1)),
            (4_600, Lifetime::Over(0)),
            (5_000, Lifetime::Over(400)),
        ] {
            assert_eq!(instance(Some("1h"), Some(1_000)).lifetime(now), expected, "{now}");
        }
        assert_eq!(instance(None, Some(1_000)).lifetime(u64::MAX), Lifetime::Unbounded);
    }

    #[test]
    fn what_says_nothing_is_never_over() {
        for garbage in ["", "0s", "-1h", "1", "soon", "99999999999999999999d", "1h\n", "１h"] {
            let lifetime = instance(Some(garbage), Some(0)).lifetime(u64::MAX);
            assert_eq!(lifetime, Lifetime::Unknown, "{garbage:?}");
        }
        assert_eq!(instance(Some("1h"), None).lifetime(u64::MAX), Lifetime::Unknown);
        let late = instance(Some("1h"), Some(u64::MAX)).lifetime(u64::MAX);
        assert_eq!(late, Lifetime::Unknown, "the end lies behind all moments");
    }
}
