//! What goes wrong on purpose.

use std::time::Duration;

/// Faults and limits of a [`super::Sim`]. The default has no faults.
#[derive(Debug, Clone)]
pub(crate) struct Knobs {
    /// A connection on which nothing came or went for so long is cut (nginx in front of 25.x: 60 s).
    pub(crate) idle_cut: Option<Duration>,
    /// So many jobs lose the connection that started them once they run; they go on without it.
    pub(crate) cut_jobs: usize,
    /// When such a connection is lost.
    pub(crate) cut: Cut,
    /// Every event is sent twice.
    pub(crate) double_events: bool,
    /// No event is sent.
    pub(crate) no_events: bool,
    /// The answer to a call that starts a job comes after the job's last event.
    pub(crate) late_answers: bool,
    /// So many of the next changing calls fail with EBUSY before they have any effect.
    pub(crate) busy: usize,
    /// So many of the next jobs fail with EBUSY before they have any effect.
    pub(crate) busy_jobs: usize,
    /// How many jobs may wait for one lock; the call after that gets the id of the last that waits. None is that a
    /// call is refused with EBUSY while a job has the lock.
    pub(crate) lock_queue: usize,
    /// Every job takes at least so long.
    pub(crate) slow_jobs: Duration,
    /// Every answer is held back for so long.
    pub(crate) delay: Duration,
    /// How the next logins go.
    pub(crate) login: Login,
    /// Who the callers are taken for.
    pub(crate) peer: Peer,
    /// Whether addresses of guests are told.
    pub(crate) addresses: bool,
    /// Whether Incus calls the first pool `default`, as on systems that began as a 25.04 before its release.
    pub(crate) legacy_pool: bool,
    /// Methods that fail before they have any effect.
    pub(crate) failing: Vec<&'static str>,
    /// Methods that refuse what they are told, each with the paths of parameters and what is said of them.
    pub(crate) refusing: Vec<(&'static str, Vec<(&'static str, &'static str)>)>,
    /// Datasets that ZFS does not delete the next time, each by a part of its name. 26 says nothing of that.
    pub(crate) staying: Vec<&'static str>,
    /// New containers start no SSH server; what they have for a package manager can change that.
    pub(crate) no_server: bool,
    /// How many API methods a session may ask before it must log in again; none is no limit.
    pub(crate) session_calls: Option<usize>,
}

impl Default for Knobs {
    fn default() -> Self {
        Self {
            idle_cut: None,
            cut_jobs: 0,
            cut: Cut::AfterAnswer,
            double_events: false,
            no_events: false,
            late_answers: false,
            busy: 0,
            busy_jobs: 0,
            lock_queue: 5,
            slow_jobs: Duration::ZERO,
            delay: Duration::ZERO,
            login: Login::Normal,
            peer: Peer::Loopback,
            addresses: true,
            legacy_pool: false,
            failing: Vec::new(),
            refusing: Vec::new(),
            staying: Vec::new(),
            no_server: false,
            session_calls: None,
        }
    }
}

/// When a connection is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// The caller never learns the job's id.
    BeforeAnswer,
    /// The caller knows the job's id.
    AfterAnswer,
}

/// How a login with the right key goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Login {
    /// It succeeds.
    Normal,
    /// The key has expired.
    Expired,
    /// A one-time password is wanted on top.
    Otp,
    /// The key is not accepted at the machine's assurance level (STIG).
    Unsupported,
    /// Too many calls before a login came from this address.
    RateLimited,
    /// The other controller of a pair is the one to ask.
    Redirect,
}

/// Who callers are taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// What they are: programs of this machine.
    Loopback,
    /// Programs of another machine: a key that comes in the clear is revoked.
    Remote,
}
