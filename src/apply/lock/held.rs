//! A lock that is held.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::holder::{HOLDS, Holder, Standing};
use crate::backend::{self, ErrorKind, Fence, Sandboxes};
use crate::model::{EnvironmentName, Note, NoteKey};

/// How often the clock is looked at: timers stand still while a machine sleeps, and the lock runs out meanwhile.
const LOOK: Duration = Duration::from_secs(1);
/// How old a lock gets before it is renewed, in seconds.
const RENEW: u64 = 15;
/// How much has to be left of a lock that cannot be renewed, in seconds: what runs is to end in it.
const RESERVE: u64 = 15;
/// How often it is read whether the lock is still ours, in looks at the clock: somebody may have broken it.
const READ: u32 = 2;
/// The pause before a lock that is nowhere is looked for again.
const AGAIN: Duration = Duration::from_millis(300);
/// How long reading that may take; renewing matters more.
const READING: Duration = Duration::from_secs(5);
/// Within which time whoever lives, and can reach the backend, finds out that its lock was broken: a look at the clock, and
/// the time to read it.
pub(super) const NOTICED: Duration = Duration::from_secs(4);
/// How long letting go may take.
const LET_GO: Duration = Duration::from_secs(10);

/// Tells the moment.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> u64 + Send + Sync>);

impl Clock {
    /// One that tells what a function says, in seconds since 1970-01-01T00:00:00Z.
    pub fn new(now: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The moment, in seconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub fn now(&self) -> u64 {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// Why a lock is no longer held.
#[derive(Debug, Clone)]
pub enum Loss {
    /// Somebody else has taken it.
    Taken(Option<Box<Holder>>),
    /// It could not be renewed in time: what the backend said last.
    Unrenewed(String),
}

/// A lock that is held. It lasts as long as it is renewed, which happens within [`Self::during`]; dropped, it stays
/// until somebody takes it over.
pub struct Lock {
    pub(super) keeper: Arc<dyn Sandboxes>,
    pub(super) environment: EnvironmentName,
    pub(super) clock: Clock,
    state: Mutex<State>,
    /// What work under it stands behind.
    fence: Fence,
    /// From whom it was taken over, and why that was right; `None` for the holder where its note made no sense.
    pub(super) taken: Option<(Option<Holder>, Standing)>,
}

#[derive(Debug, Clone)]
struct State {
    holder: Holder,
    note: Note,
    loss: Option<Loss>,
    /// Whether it went with the environment, or is about to.
    ended: bool,
}

impl fmt::Debug for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lock")
            .field("environment", &self.environment)
            .finish_non_exhaustive()
    }
}

impl Lock {
    pub(super) fn new(
        keeper: Arc<dyn Sandboxes>,
        environment: EnvironmentName,
        clock: Clock,
        holder: Holder,
        note: Note,
        taken: Option<(Option<Holder>, Standing)>,
    ) -> Self {
        let now = clock.clone();
        let fence = Fence::new(move || now.now(), holder.until);
        let state = Mutex::new(State {
            holder,
            note,
            loss: None,
            ended: false,
        });
        Self {
            keeper,
            environment,
            clock,
            state,
            fence,
            taken,
        }
    }

    /// From whom it was taken over and what they were to it, where it was. No holder where nobody knows.
    #[must_use]
    pub fn taken_over(&self) -> Option<(Option<&Holder>, Standing)> {
        self.taken.as_ref().map(|(holder, why)| (holder.as_ref(), *why))
    }

    /// Why it is no longer held, where it is not.
    #[must_use]
    pub fn loss(&self) -> Option<Loss> {
        self.state().loss.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // It is only ever replaced field by field, so a panic elsewhere leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does work and renews the lock meanwhile. When it is lost, calls `on_loss`, once; the work goes on, and should
    /// start nothing more. It stands behind a [`Fence`]: no change goes out after the lock has run out, until it is known
    /// whether it was lost.
    pub async fn during<T>(&self, on_loss: impl FnOnce(), work: impl Future<Output = T>) -> T {
        let renewing = async {
            let loss = self.renew_until_lost().await;
            self.state().loss = Some(loss);
            self.fence.close();
            on_loss();
            std::future::pending().await
        };
        tokio::select! {
            done = self.fence.around(work) => done,
            never = renewing => never,
        }
    }

    async fn renew_until_lost(&self) -> Loss {
        let mut looks: u32 = 0;
        loop {
            tokio::time::sleep(LOOK).await;
            looks = looks.wrapping_add(1);
            let until = self.state().holder.until;
            if self.state().ended {
                // It goes with the environment, and nobody is to miss it.
                continue;
            }
            if self.clock.now() < (until + RENEW).saturating_sub(HOLDS) {
                if looks.is_multiple_of(READ)
                    && let Some(loss) = self.is_taken().await
                {
                    return loss;
                }
                continue;
            }
            let Err(error) = self.renew().await else { continue };
            tracing::warn!(%error, "cannot renew the lock");
            match error.kind() {
                ErrorKind::Conflict | ErrorKind::NotFound => match self.find().await {
                    Ok(Some(holder)) if holder.process.id == self.state().holder.process.id => {}
                    Ok(_) if self.state().ended => continue,
                    Ok(holder) => return Loss::Taken(holder.map(Box::new)),
                    Err(error) => tracing::warn!(%error, "cannot read the lock"),
                },
                _ => {}
            }
            if self.clock.now() + RESERVE > until {
                return Loss::Unrenewed(error.to_string());
            }
        }
    }

    /// Whether somebody else has it. That nobody can tell for the moment is no news: renewing will show.
    async fn is_taken(&self) -> Option<Loss> {
        let look = async {
            let found = self.find().await?;
            if found.is_none() {
                // Somebody who wanted to take over an older note of ours may just be putting this one back.
                tokio::time::sleep(AGAIN).await;
                return self.find().await;
            }
            Ok::<_, backend::Error>(found)
        };
        match tokio::time::timeout(READING, look).await {
            Ok(Ok(Some(holder))) if holder.process.id == self.state().holder.process.id => None,
            Ok(Ok(_)) if self.state().ended => None,
            Ok(Ok(holder)) => Some(Loss::Taken(holder.map(Box::new))),
            Ok(Err(_)) | Err(_) => None,
        }
    }

    /// Renews it once.
    async fn renew(&self) -> backend::Result<()> {
        let next = self.state().holder.renewed(self.clock.now());
        self.write(next).await
    }

    async fn write(&self, next: Holder) -> backend::Result<()> {
        let old = self.state().note.clone();
        let note = next.note().ok_or_else(unnoted)?;
        let key = NoteKey::Lock;
        self.keeper.replace_note(&self.environment, key, &old, &note).await?;
        self.fence.open_until(next.until);
        let mut state = self.state();
        state.holder = next;
        state.note = note;
        Ok(())
    }

    /// Who holds it now, and, where that is us, takes in what its note says: an answer may have been lost.
    async fn find(&self) -> backend::Result<Option<Holder>> {
        let Some(note) = self.keeper.note(&self.environment, NoteKey::Lock).await? else {
            return Ok(None);
        };
        let holder = Holder::read(&note);
        let mut state = self.state();
        if let Some(holder) = holder
            .as_ref()
            .filter(|holder| holder.process.id == state.holder.process.id)
        {
            self.fence.open_until(holder.until);
            state.holder = holder.clone();
            state.note = note;
        }
        Ok(holder)
    }

    /// Lets go of it. Where something that was begun may still be under way, it is left for the next one to take
    /// over, who waits for that; otherwise it is gone.
    ///
    /// # Errors
    /// Whatever the backend says. The lock then stays until somebody takes it over.
    pub async fn release(&self, all_has_ended: bool) -> backend::Result<()> {
        if self.state().loss.is_some() || self.state().ended {
            return Ok(());
        }
        let release = async {
            match self.try_release(all_has_ended).await {
                // Perhaps an answer was lost, and the note is another one of ours.
                Err(error) if error.kind() == ErrorKind::Conflict => {
                    let own = self.state().holder.process.id.clone();
                    match self.find().await? {
                        Some(holder) if holder.process.id == own => self.try_release(all_has_ended).await,
                        _ => Ok(()),
                    }
                }
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
                result => result,
            }
        };
        let late = || backend::Error::new(ErrorKind::Timeout, "letting go of the lock takes too long");
        tokio::time::timeout(LET_GO, release).await.map_err(|_| late())?
    }

    async fn try_release(&self, all_has_ended: bool) -> backend::Result<()> {
        if !all_has_ended {
            let gone = self.state().holder.gone();
            return self.write(gone).await;
        }
        let note = self.state().note.clone();
        self.keeper.delete_note(&self.environment, NoteKey::Lock, &note).await
    }

    /// Ends all that is kept of the environment itself, the lock last.
    ///
    /// # Errors
    /// Whatever the backend says.
    pub async fn delete_notes(&self) -> backend::Result<()> {
        if self.loss().is_some() {
            return Ok(());
        }
        self.state().ended = true;
        let deleted = self.keeper.delete_notes(&self.environment).await;
        self.state().ended = deleted.is_ok();
        deleted
    }
}

pub(super) fn unnoted() -> backend::Error {
    backend::Error::new(ErrorKind::Invalid, "a lock cannot be written down")
}
