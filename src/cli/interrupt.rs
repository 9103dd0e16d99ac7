//! Ctrl-C: once to finish what runs, twice to leave at once.

use std::future::Future;

use tokio::sync::watch;

use super::error::Error;
use crate::apply::Interrupt;

/// Listens to the signals that ask for an end, from when it is made.
#[derive(Debug, Clone)]
pub(super) struct Interrupts(watch::Receiver<Interrupt>);

impl Interrupts {
    /// Starts listening.
    pub(super) fn listen() -> Self {
        let (sender, receiver) = watch::channel(Interrupt::None);
        tokio::spawn(async move {
            for level in [Interrupt::Drain, Interrupt::Abort] {
                if signal().await.is_err() || sender.send(level).is_err() {
                    return;
                }
            }
            // Later ones change nothing any more; the sender stays so that nobody takes its end for a signal.
            std::future::pending::<()>().await;
        });
        Self(receiver)
    }

    /// Carries something out that writes nothing, and drops it at the first signal.
    ///
    /// # Errors
    /// [`Error::Interrupted`].
    pub(super) async fn guard<T>(&self, work: impl Future<Output = T>) -> Result<T, Error> {
        let mut receiver = self.0.clone();
        tokio::select! {
            done = work => Ok(done),
            // A listener that could not be set up never interrupts.
            Ok(_) = receiver.wait_for(|level| *level != Interrupt::None) => Err(Error::Interrupted),
        }
    }

    /// For what sees to interrupts itself.
    pub(super) fn receiver(&self) -> watch::Receiver<Interrupt> {
        self.0.clone()
    }
}

/// Waits for Ctrl-C, or for being told to end.
async fn signal() -> std::io::Result<()> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        result = tokio::signal::ctrl_c() => result,
        _ = terminate.recv() => Ok(()),
    }
}
