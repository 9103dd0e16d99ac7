//! The lock of an environment, for commands that change it.

use std::sync::Arc;
use std::time::Duration;

use super::error::Error;
use super::interrupt::Interrupts;
use super::settings::Settings;
use crate::apply::{Claim, Holder, Lock, LockError, Report, Standing};
use crate::backend::{Sandboxes, Scope};
use crate::model::{EnvironmentName, Seconds};
use crate::view::clean;
use crate::view::human::age;

/// What is done about somebody else's lock.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(super) struct LockArgs {
    /// Wait so long for whoever else works on the environment, as in 5m
    #[arg(long, value_name = "T", value_parser = duration)]
    lock_timeout: Option<Seconds>,

    /// Take the lock from whoever holds it: only when you know that they are gone
    #[arg(long)]
    break_lock: bool,
}

fn duration(text: &str) -> Result<Seconds, String> {
    text.parse::<Seconds>().map_err(|error| error.to_string())
}

impl LockArgs {
    /// Gets hold of the lock, does work while it is renewed, and lets go of it.
    ///
    /// # Errors
    /// [`Error::Locked`], whatever the work says, and [`Error::LockLost`] in its place when the lock was lost
    /// meanwhile.
    pub(super) async fn under<T>(
        self,
        settings: &Settings,
        interrupts: &Interrupts,
        backend: &Arc<dyn Sandboxes>,
        place: Place<'_>,
        work: impl AsyncFnOnce(&Lock) -> Result<Worked<T>, Error>,
    ) -> Result<T, Error> {
        let lock = interrupts.guard(self.claim(settings, backend, &place)).await??;
        if let Some((from, why)) = lock.taken_over() {
            settings.output.note(&clean(&taken_over(place.environment, from, why)));
        }
        let worked = lock.during(|| interrupts.lose(), work(&lock)).await;
        if let Some(loss) = lock.loss() {
            return Err(Error::LockLost {
                environment: place.environment.to_string(),
                loss,
            });
        }
        let all_has_ended = worked.as_ref().is_ok_and(|worked| worked.all_has_ended) || worked.is_err();
        if let Err(error) = lock.release(all_has_ended).await {
            let why = format!("it could not be released: {error}");
            settings.output.message(&clean(&format!(
                "The lock of {} stays until somebody takes it over: {why}",
                place.environment
            )));
        }
        worked.map(|worked| worked.value)
    }

    async fn claim(self, settings: &Settings, backend: &Arc<dyn Sandboxes>, place: &Place<'_>) -> Result<Lock, Error> {
        let on_wait = |holder: Option<&Holder>, standing: Standing| {
            let who = holder.map_or_else(|| "somebody".to_owned(), ToString::to_string);
            let text = match standing {
                Standing::Expired => format!("The lock of {who} has expired; looking whether they are still there ..."),
                _ => format!("Waiting for {who}, who works on {} ...", place.environment),
            };
            settings.output.note(&clean(&text));
        };
        let claim = Claim {
            process: &settings.process,
            is_alive: &settings.is_alive,
            clock: settings.clock.clone(),
            doing: place.doing,
            patience: Duration::from_secs(self.lock_timeout.map_or(0, |seconds| seconds.0)),
            by_force: self.break_lock,
            on_wait: &on_wait,
        };
        match claim.lock(backend, place.environment, &place.scope).await {
            Ok(lock) => Ok(lock),
            Err(LockError::Backend(error)) => Err(error.into()),
            Err(LockError::Held(holder)) => Err(Error::Locked {
                environment: place.environment.to_string(),
                holder,
                now: settings.clock.now(),
            }),
        }
    }
}

/// What is locked, and what for.
pub(super) struct Place<'a> {
    /// The environment.
    pub(super) environment: &'a EnvironmentName,
    /// Where its sandboxes are.
    pub(super) scope: Scope,
    /// The command.
    pub(super) doing: &'static str,
}

/// What was done under a lock.
pub(super) struct Worked<T> {
    value: T,
    /// Whether nothing that was begun can still be under way.
    all_has_ended: bool,
}

impl<T> Worked<T> {
    /// Nothing was begun, or all of it has ended.
    pub(super) fn whole(value: T) -> Self {
        Self {
            value,
            all_has_ended: true,
        }
    }

    /// As the report says.
    pub(super) fn reported(value: T, report: Option<&Report>) -> Self {
        Self {
            value,
            all_has_ended: report.is_none_or(Report::all_has_ended),
        }
    }
}

fn taken_over(environment: &EnvironmentName, from: Option<&Holder>, why: Standing) -> String {
    let who = from.map_or_else(|| "somebody".to_owned(), ToString::to_string);
    let why = match why {
        Standing::Dead => "it is no longer running".to_owned(),
        Standing::Left => "it was left unfinished".to_owned(),
        Standing::Expired => "it has expired".to_owned(),
        Standing::Held | Standing::Own => format!(
            "by force, and waited {0} s for them to notice. Were they stopped, or cut off, they may go on for up to {0} s \
             once they wake up",
            Claim::NOTICED.as_secs()
        ),
    };
    format!("Took over the lock of {environment} from {who}: {why}.")
}

/// Who holds a lock since when, for an error.
pub(super) fn held_by(environment: &str, holder: Option<&Holder>, now: u64) -> (String, String) {
    let Some(holder) = holder else {
        return (
            format!("somebody else works on the environment `{environment}`; this version cannot read who"),
            "use a newer version; or, if you know that nobody does, --break-lock".to_owned(),
        );
    };
    let since = age(now.saturating_sub(holder.since));
    (
        format!(
            "the environment `{environment}` is locked by {holder}: {} for {since}",
            holder.doing
        ),
        "wait for it with --lock-timeout 5m; if you know that it is gone, --break-lock".to_owned(),
    )
}
