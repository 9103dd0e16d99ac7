//! Ctrl-C: once to finish what runs, twice to leave at once.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::watch;

use super::error::Error;
use crate::apply::Interrupt;

/// Listens to the signals that ask for an end, from when it is made.
#[derive(Debug, Clone)]
pub(super) struct Interrupts {
    sender: Arc<watch::Sender<Interrupt>>,
}

impl Interrupts {
    /// Starts listening.
    pub(super) fn listen() -> Self {
        let sender = Arc::new(watch::Sender::new(Interrupt::None));
        let interrupts = Self { sender: sender.clone() };
        tokio::spawn(async move {
            for level in [Interrupt::Drain, Interrupt::Abort] {
                if signal().await.is_err() {
                    return;
                }
                raise(&sender, level);
            }
        });
        interrupts
    }

    /// Says that the lock is lost.
    pub(super) fn lose(&self) {
        raise(&self.sender, Interrupt::Lost);
    }

    /// Carries something out that writes nothing, and drops it at the first signal.
    ///
    /// # Errors
    /// [`Error::Interrupted`].
    pub(super) async fn guard<T>(&self, work: impl Future<Output = T>) -> Result<T, Error> {
        let mut receiver = self.receiver();
        tokio::select! {
            done = work => Ok(done),
            Ok(_) = receiver.wait_for(|level| *level != Interrupt::None) => Err(Error::Interrupted),
        }
    }

    /// For what sees to interrupts itself.
    pub(super) fn receiver(&self) -> watch::Receiver<Interrupt> {
        self.sender.subscribe()
    }
}

/// An interrupt is never taken back.
fn raise(sender: &watch::Sender<Interrupt>, level: Interrupt) {
    sender.send_modify(|now| *now = level.max(*now));
}

/// Waits for Ctrl-C, or for being told to end.
async fn signal() -> std::io::Result<()> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        result = tokio::signal::ctrl_c() => result,
        _ = terminate.recv() => Ok(()),
    }
}
