//! Trying again, in one place for every backend.

use std::future::Future;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable as _};

use super::{Error, ErrorKind, Result};

/// Calls `attempt` until it succeeds, fails with an error that `again` does not take, or has been tried
/// eight times. The pauses double from 20 ms to 2 s and are spread by chance, so that callers who collided
/// once do not collide again.
///
/// Only for what may be done twice.
pub(super) async fn retry_when<T, F>(
    attempt: impl FnMut() -> F + Send,
    again: impl FnMut(&Error) -> bool + Send,
) -> Result<T>
where
    F: Future<Output = Result<T>> + Send,
{
    let pauses = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(20))
        .with_max_delay(Duration::from_secs(2))
        .with_max_times(7)
        .with_jitter();
    attempt
        .retry(pauses)
        .when(again)
        .notify(|error, pause| tracing::debug!(%error, ?pause, "trying again"))
        .await
}

/// [`retry_when`] for every transient error. A lost connection is tried again twice only: where nobody
/// listens, people should hear of it soon.
pub(super) async fn retry<T, F>(attempt: impl FnMut() -> F + Send) -> Result<T>
where
    F: Future<Output = Result<T>> + Send,
{
    let mut lost = 0;
    retry_when(attempt, move |error| {
        lost += u32::from(error.kind() == ErrorKind::Unreachable);
        error.kind().is_transient() && lost <= 2
    })
    .await
}

/// [`retry_when`] for lost connections, twice: around something longer that already deals with the rest.
pub(super) async fn retry_lost<T, F>(attempt: impl FnMut() -> F + Send) -> Result<T>
where
    F: Future<Output = Result<T>> + Send,
{
    let mut lost = 0;
    retry_when(attempt, move |error| {
        lost += 1;
        error.kind() == ErrorKind::Unreachable && lost <= 2
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn transient_errors_are_tried_again_and_others_are_not() {
        for (kind, tries) in [(ErrorKind::Busy, 3), (ErrorKind::NotFound, 1)] {
            let count = AtomicU32::new(0);
            let answer = retry(|| async {
                match count.fetch_add(1, Ordering::Relaxed) {
                    2 => Ok(()),
                    _ => Err(Error::new(kind, "no")),
                }
            })
            .await;
            assert_eq!(answer.is_ok(), kind == ErrorKind::Busy, "{kind:?}");
            assert_eq!(count.into_inner(), tries, "{kind:?}");
        }
    }
}
