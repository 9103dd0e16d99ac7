//! Getting hold of a lock.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::held::{Clock, Lock, NOTICED, unnoted};
use super::holder::{Holder, Process, Standing};
use crate::backend::{self, ErrorKind, Sandboxes, Scope};
use crate::model::{EnvironmentName, Note, NoteKey};

/// How long a lock that has expired is watched before it is taken over: longer than its holder, were it alive after
/// all and its clock a wrong one, would wait with renewing it.
const WATCH: Duration = Duration::from_secs(20);
/// The pauses between looks at a lock that somebody holds. They double from the first to the last.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(2));

/// Who wants a lock, and how much.
pub struct Claim<'a> {
    /// The process that wants it.
    pub process: &'a Process,
    /// Whether a process of its own realm lives.
    pub is_alive: &'a (dyn Fn(&Process) -> bool + Send + Sync),
    /// Tells the moment.
    pub clock: Clock,
    /// What for: `apply`.
    pub doing: &'a str,
    /// How long to wait for whoever holds it.
    pub patience: Duration,
    /// Whether to take it from whoever holds it.
    pub by_force: bool,
    /// Told once, when there is something to wait for.
    pub on_wait: &'a (dyn Fn(Option<&Holder>, Standing) + Send + Sync),
}

impl std::fmt::Debug for Claim<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Claim")
            .field("process", &self.process)
            .field("patience", &self.patience)
            .field("by_force", &self.by_force)
            .finish_non_exhaustive()
    }
}

/// Why there is no lock.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody else holds it; nobody knows who, where the note makes no sense to this version.
    #[error("the environment is locked")]
    Held(Option<Box<Holder>>),
    /// The backend could not do it.
    #[error(transparent)]
    Backend(#[from] backend::Error),
}

/// What is to be done about a lock that is there.
enum Next {
    Keep,
    Take(Standing),
    Wait(Standing, Duration),
    Refuse,
}

/// What is known of a lock after looking at it again and again.
struct Watch {
    begun: Instant,
    pause: Duration,
    /// The note that was last seen, and since when.
    seen: Option<(Note, Instant)>,
    /// The holder that force is used on; others, who come after it, are spared.
    victim: Option<String>,
}

impl Claim<'_> {
    /// How long whoever had a lock that was taken by force needs to find out.
    pub const NOTICED: Duration = NOTICED;

    /// Gets hold of an environment's lock. When it was taken over, all that its holder began on the instances of the
    /// scope has ended before this returns; where it may live, it is given time to find out.
    ///
    /// # Errors
    /// [`LockError::Held`] when somebody else holds it for longer than we wait.
    pub async fn lock(
        &self,
        keeper: &Arc<dyn Sandboxes>,
        environment: &EnvironmentName,
        scope: &Scope,
    ) -> Result<Lock, LockError> {
        let hold = |holder, note, taken| {
            let (keeper, environment) = (keeper.clone(), environment.clone());
            Lock::new(keeper, environment, self.clock.clone(), holder, note, taken)
        };
        let mut watch = Watch::new();
        let mut told = false;
        let mut taken = None;
        let mut may_be_free = true;
        let lock = loop {
            let mine = Holder::new(self.process, self.doing, self.clock.now());
            let note = mine.note().ok_or_else(unnoted)?;
            let mut unheard = None;
            if may_be_free {
                match keeper.create_note(environment, NoteKey::Lock, &note).await {
                    Ok(()) => break hold(mine, note, taken),
                    Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                    // It may be made all the same.
                    Err(error) if is_unheard(&error) => unheard = Some(error),
                    Err(error) => return Err(error.into()),
                }
            }
            let Some(found) = keeper.note(environment, NoteKey::Lock).await? else {
                if let Some(error) = unheard {
                    return Err(error.into());
                }
                may_be_free = true;
                continue;
            };
            may_be_free = false;
            let holder = Holder::read(&found);
            match (self.next(&mut watch, &found, holder.as_ref()), holder) {
                (Next::Keep, Some(holder)) => break hold(holder, found, taken),
                (Next::Keep, None) => return Err(unnoted().into()),
                (Next::Take(why), holder) => {
                    taken = Some((holder, why));
                    match keeper.take_over_note(environment, NoteKey::Lock, &found, &note).await {
                        Ok(()) => break hold(mine, note, taken),
                        // Somebody was faster, or it was released, or the answer was lost: look again.
                        Err(error) if is_unheard(&error) || is_beaten(&error) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                (Next::Wait(why, pause), holder) => {
                    if !std::mem::replace(&mut told, true) {
                        (self.on_wait)(holder.as_ref(), why);
                    }
                    sleep(pause).await;
                }
                (Next::Refuse, holder) => return Err(LockError::Held(holder.map(Box::new))),
            }
        };
        if let Some((_, why)) = lock.taken_over() {
            let settle = async {
                if why == Standing::Held {
                    // Whoever lives has to hear of it first, or begins something after this.
                    sleep(NOTICED).await;
                }
                keeper.settle(scope).await
            };
            lock.during(|| (), settle).await?;
        }
        Ok(lock)
    }

    fn next(&self, watch: &mut Watch, note: &Note, holder: Option<&Holder>) -> Next {
        let (now, since) = (Instant::now(), watch.unchanged_since(note));
        let standing = holder.map_or(Standing::Held, |holder| {
            holder.standing(self.process, self.clock.now(), self.is_alive)
        });
        match standing {
            Standing::Own => return Next::Keep,
            Standing::Left | Standing::Dead => return Next::Take(standing),
            Standing::Held | Standing::Expired if self.by_force && watch.is_victim(note, holder) => {
                return Next::Take(standing);
            }
            Standing::Expired => {
                return match WATCH.saturating_sub(now - since) {
                    Duration::ZERO => Next::Take(standing),
                    left => Next::Wait(standing, left.min(PAUSES.1)),
                };
            }
            Standing::Held => {}
        }
        match self.patience.saturating_sub(now - watch.begun) {
            Duration::ZERO => Next::Refuse,
            left => Next::Wait(standing, watch.next_pause().min(left)),
        }
    }
}

impl Watch {
    fn new() -> Self {
        Self {
            begun: Instant::now(),
            pause: PAUSES.0,
            seen: None,
            victim: None,
        }
    }

    fn unchanged_since(&mut self, note: &Note) -> Instant {
        match &self.seen {
            Some((seen, since)) if seen == note => *since,
            _ => {
                let now = Instant::now();
                self.seen = Some((note.clone(), now));
                now
            }
        }
    }

    fn is_victim(&mut self, note: &Note, holder: Option<&Holder>) -> bool {
        let who = holder.map_or(note.as_str(), |holder| &holder.process.id);
        self.victim.get_or_insert_with(|| who.to_owned()) == who
    }

    fn next_pause(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).min(PAUSES.1);
        pause
    }
}

/// Whether a change of a note came too late.
fn is_beaten(error: &backend::Error) -> bool {
    matches!(error.kind(), ErrorKind::Conflict | ErrorKind::NotFound)
}

/// Whether a change may have happened although it failed.
fn is_unheard(error: &backend::Error) -> bool {
    matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Unreachable)
}
