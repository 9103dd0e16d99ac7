//! Awaiting what the daemon does in the background.
//!
//! By one long poll per operation (`/1.0/operations/ID/wait`): the daemon answers when it is done. A shared
//! events websocket would save that request, but tells of every operation of everybody, has to be open before
//! the first change, and loses what happens while it reconnects; the long poll costs about a millisecond.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::{Method, Url};
use serde::Serialize;
use serde_json::Value;
use tokio::time::timeout;

use super::Incus;
use super::client::{Client, Etag};
use super::failure::answered;
use super::wire::{Envelope, Operation};
use crate::backend::retry::retry_when;
use crate::backend::{Error, ErrorKind, Result, Scope};

/// How long an operation may take that copies a disk or unpacks an image: on some pools, a snapshot copies too.
pub(super) const COPY: Duration = Duration::from_secs(30 * 60);
/// How long a start may take.
pub(super) const START: Duration = Duration::from_secs(2 * 60);
/// How long any other operation may take.
pub(super) const ORDINARY: Duration = Duration::from_secs(5 * 60);
/// The code of an operation that succeeded.
const SUCCESS: u16 = 200;

impl Client {
    /// Sends a change and waits until it has happened, for as long as is [`ORDINARY`]. Gives what the operation
    /// left, if there was one.
    pub(super) async fn act<B: Serialize + Sync>(
        &self,
        method: Method,
        url: &Url,
        body: Option<&B>,
        etag: Etag,
    ) -> Result<Value> {
        self.act_within(ORDINARY, method, url, body, etag).await
    }

    /// The same with a patience of its own. Past that, the operation goes on: most cannot be called off.
    pub(super) async fn act_within<B: Serialize + Sync>(
        &self,
        patience: Duration,
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
        let ended = timeout(patience, self.wait(&operation.id)).await;
        let ended = ended.map_err(|_| late(&operation, patience))?;
        Ok(ended?.metadata.unwrap_or_default())
    }

    /// Waits for an operation's end, however long that takes. Its failure is the error.
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

impl Incus {
    /// Waits for what is under way on the instances of a scope, whoever began it, and ends commands there that nobody
    /// listens to any more.
    pub(super) async fn await_others(&self, scope: &Scope) -> Result<()> {
        let names = self.names_in(scope).await?;
        let prefix = scope.environment.as_ref().map(|environment| format!("{environment}-"));
        // One that is being made may not be listed yet, but has a name.
        let concerns = |name: &str| {
            names.contains(name) || prefix.as_ref().is_some_and(|prefix| name.starts_with(prefix.as_str()))
        };
        loop {
            let mut operations = self.operations().await?;
            operations.retain(|operation| {
                let mut instances = operation.resources.values().flatten().filter_map(|at| instance_of(at));
                operation.class == "task" && instances.any(concerns)
            });
            if operations.is_empty() {
                break;
            }
            for operation in operations {
                tracing::info!(operation = operation.description, "awaiting what another run has begun");
                let ended = timeout(COPY, self.client.wait(&operation.id)).await;
                // How it ends is seen by looking at the instances.
                if let Err(error) = ended.map_err(|_| late(&operation, COPY))? {
                    tracing::debug!(%error, "it has failed");
                }
            }
        }
        for name in self.running_in(scope).await? {
            // A guest that takes no commands runs none of ours.
            if let Err(error) = self.end_orphans(&name).await {
                tracing::debug!(instance = %name, %error, "cannot look for commands that were left");
            }
        }
        Ok(())
    }

    /// What is under way in the project.
    pub(super) async fn operations(&self) -> Result<Vec<Operation>> {
        let mut url = self.client.url(["operations"]);
        url.query_pairs_mut().append_pair("recursion", "1");
        // By status, in words.
        let (operations, _): (BTreeMap<String, Vec<Operation>>, _) = self.client.get(&url).await?;
        let under_way = operations.into_values().flatten();
        Ok(under_way.filter(|operation| operation.status_code < SUCCESS).collect())
    }
}

/// The name in the address of an instance, or of something of it: `/1.0/instances/NAME/snapshots/…`.
fn instance_of(address: &str) -> Option<&str> {
    let path = address.split('?').next()?;
    path.strip_prefix("/1.0/instances/")?.split('/').next()
}

fn late(operation: &Operation, patience: Duration) -> Error {
    Error::new(
        ErrorKind::Timeout,
        format!(
            "`{}` has not ended within {} s",
            operation.description,
            patience.as_secs_f64()
        ),
    )
    .with_hint(format!(
        "it may still be under way: `incus operation show {}`",
        operation.id
    ))
}

/// The operation that an asynchronous answer announces.
pub(super) fn started(envelope: Envelope<Value>) -> Result<Operation> {
    let operation = envelope.metadata.map(serde_json::from_value).transpose();
    operation
        .map_err(|error| Error::new(ErrorKind::Failed, "the daemon announced no operation").with_source(error))?
        .ok_or_else(|| Error::new(ErrorKind::Failed, "the daemon announced no operation"))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixListener;

    use super::*;
    use crate::backend::incus::client::Endpoint;

    /// A daemon whose operations never end.
    async fn hanging(listener: UnixListener) {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = vec![0; 4096];
                let count = stream.read(&mut request).await.unwrap_or_default();
                let request = String::from_utf8_lossy(&request[..count]).into_owned();
                if request.contains("/wait") {
                    std::future::pending::<()>().await;
                }
                let body = if request.starts_with("GET /1.0 ") {
                    r#"{"type":"sync","metadata":{"api_extensions":["instances","instance_get_full",
                    "container_exec_user_group_cwd","instance_create_start","snapshot_disk_usage",
                    "snapshot_expiry_creation"],"auth":"trusted"}}"#
                } else {
                    r#"{"type":"async","metadata":{"id":"abc","description":"Starting instance"}}"#
                };
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                let _ = stream.write_all(answer.as_bytes()).await;
            });
        }
    }

    #[tokio::test]
    async fn an_operation_that_hangs_is_not_awaited_for_ever() {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("socket");
        let server = tokio::spawn(hanging(UnixListener::bind(&socket).expect("a socket")));
        let client = Client::new(&Endpoint::Socket(socket), None).expect("a client");
        let url = client.url(["instances", "one", "state"]);
        let patience = Duration::from_millis(200);
        let act = client.act_within(patience, Method::PUT, &url, None::<&()>, None);
        let error = act.await.expect_err("hangs");
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(error.to_string().contains("Starting instance"), "{error}");
        assert!(error.hint().is_some_and(|hint| hint.contains("abc")));
        server.abort();
    }
}
