//! Awaiting what the daemon does in the background.
//!
//! By one long poll per operation (`/1.0/operations/ID/wait`): the daemon answers when it is done. A shared
//! events websocket would save that request, but tells of every operation of everybody, has to be open before
//! the first change, and loses what happens while it reconnects; the long poll costs about a millisecond.

use reqwest::{Method, Url};
use serde::Serialize;
use serde_json::Value;

use super::client::{Client, Etag};
use super::failure::answered;
use super::wire::{Envelope, Operation};
use crate::backend::retry::retry_when;
use crate::backend::{Error, ErrorKind, Result};

/// The code of an operation that succeeded.
const SUCCESS: u16 = 200;

impl Client {
    /// Sends a change and waits until it has happened. Gives what the operation left, if there was one.
    pub(super) async fn act<B: Serialize + Sync>(
        &self,
        method: Method,
        url: &Url,
        body: Option<&B>,
        etag: Etag,
    ) -> Result<Value> {
        let envelope: Envelope<Value> = self.change(method, url, body, etag).await?;
        if envelope.kind != "async" {
            return Ok(envelope.metadata.unwrap_or_default());
        }
        let operation = started(envelope)?;
        Ok(self.wait(&operation.id).await?.metadata.unwrap_or_default())
    }

    /// Waits for an operation's end. Its failure is the error.
    pub(super) async fn wait(&self, id: &str) -> Result<Operation> {
        let url = self.url(["operations", id, "wait"]);
        // Waiting changes nothing, so it may be repeated when the connection breaks; but an operation is
        // forgotten seconds after its end, and then its outcome is not known.
        let envelope: Envelope<Operation> = retry_when(
            || self.await_answer(&url),
            |error| error.kind() == ErrorKind::Unreachable,
        )
        .await
        .map_err(|error| {
            if error.to_string() == "Operation not found" {
                return Error::new(
                    ErrorKind::Failed,
                    "the daemon has forgotten the operation, its outcome is not known",
                )
                .with_source(error);
            }
            error
        })?;
        let operation = envelope
            .metadata
            .ok_or_else(|| Error::new(ErrorKind::Failed, "the daemon did not say how the operation ended"))?;
        // 6.0 answers a failed operation with an error; later versions with the operation, which tells.
        if operation.status_code == SUCCESS {
            Ok(operation)
        } else {
            Err(answered(500, &operation.err))
        }
    }
}

/// The operation that an asynchronous answer announces.
pub(super) fn started(envelope: Envelope<Value>) -> Result<Operation> {
    let operation = envelope.metadata.map(serde_json::from_value).transpose();
    operation
        .map_err(|error| Error::new(ErrorKind::Failed, "the daemon announced no operation").with_source(error))?
        .ok_or_else(|| Error::new(ErrorKind::Failed, "the daemon announced no operation"))
}
