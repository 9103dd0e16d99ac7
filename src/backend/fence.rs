//! Until when changes may be begun.
//!
//! Whoever works under a lock works behind a fence. A process that was stopped, or whose machine was asleep, wakes up in
//! the middle of whatever it was doing, and its lock may be somebody else's by then; so the clock is asked right before
//! each change goes out. The fence is found by the task that works (tokio's task-locals): it concerns every change, down
//! to a block of a file, and none of what lies between has to pass it on. Without one, everything may be changed.

use std::fmt;
use std::sync::Arc;

use tokio::sync::watch;

use super::{Error, ErrorKind, Result};

tokio::task_local! {
    static FENCE: Fence;
}

/// Lets changes begin as long as a lock is known to hold. Clones are the same one.
#[derive(Clone)]
pub struct Fence {
    now: Arc<dyn Fn() -> u64 + Send + Sync>,
    state: watch::Sender<State>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In seconds since 1970-01-01T00:00:00Z.
    Until(u64),
    Lost,
}

impl fmt::Debug for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Fence").field(&*self.state.borrow()).finish()
    }
}

impl Fence {
    /// One that stands open until a moment. `now` tells the moment, in seconds since 1970-01-01T00:00:00Z, by a clock
    /// that goes on while the machine sleeps.
    pub fn new(now: impl Fn() -> u64 + Send + Sync + 'static, until: u64) -> Self {
        Self {
            now: Arc::new(now),
            state: watch::Sender::new(State::Until(until)),
        }
    }

    /// The lock was renewed.
    pub fn open_until(&self, until: u64) {
        self.state.send_if_modified(|state| {
            let open = *state != State::Lost;
            if open {
                *state = State::Until(until);
            }
            open
        });
    }

    /// The lock is lost: nothing may be changed any more.
    pub fn close(&self) {
        self.state.send_replace(State::Lost);
    }

    /// Does work behind it.
    pub async fn around<T>(&self, work: impl Future<Output = T>) -> T {
        FENCE.scope(self.clone(), work).await
    }

    /// The fence that this task works behind, for work that it hands to another task.
    pub(super) fn current() -> Option<Self> {
        FENCE.try_with(Clone::clone).ok()
    }

    /// Comes back when a change may be begun: at once, but where the lock has run out. Then whoever renews it finds out
    /// whether it still holds.
    ///
    /// # Errors
    /// When the lock is lost.
    pub(super) async fn pass(&self) -> Result<()> {
        let mut states = self.state.subscribe();
        loop {
            match *states.borrow_and_update() {
                State::Until(until) if (self.now)() < until => return Ok(()),
                State::Until(_) => {}
                State::Lost => return Err(lost()),
            }
            // The other end is in our own hands, so it cannot be gone.
            states.changed().await.map_err(|_| lost())?;
        }
    }
}

/// [`Fence::pass`] of the fence that this task works behind.
///
/// # Errors
/// When the lock is lost.
pub async fn may_change() -> Result<()> {
    match Fence::current() {
        Some(fence) => fence.pass().await,
        None => Ok(()),
    }
}

fn lost() -> Error {
    Error::new(
        ErrorKind::Conflict,
        "the environment's lock is lost, so nothing more is changed",
    )
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use tokio::time::{Duration, timeout};

    use super::*;

    #[tokio::test]
    async fn a_change_waits_for_a_lock_that_has_run_out() {
        may_change().await.expect("no fence");
        let clock = Arc::new(AtomicU64::new(10));
        let now = clock.clone();
        let fence = Fence::new(move || now.load(Ordering::Relaxed), 20);
        let passes = || timeout(Duration::from_millis(10), fence.around(may_change()));
        passes().await.expect("at once").expect("open");
        clock.store(20, Ordering::Relaxed);
        passes().await.expect_err("waits");
        let (passed, ()) = tokio::join!(fence.around(may_change()), async { fence.open_until(30) });
        passed.expect("renewed");
        clock.store(30, Ordering::Relaxed);
        let (passed, ()) = tokio::join!(fence.around(may_change()), async { fence.close() });
        assert_eq!(passed.expect_err("lost").kind(), ErrorKind::Conflict);
        fence.open_until(90);
        passes().await.expect("at once").expect_err("for good");
    }
}
