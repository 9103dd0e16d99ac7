//! Calls to one TrueNAS system: JSON-RPC 2.0 over one WebSocket, which is opened with the first call, kept alive, and
//! opened anew when it was lost.
//!
//! `address` says where the system is and whom to believe that it is there, `connection` is one WebSocket, `frame` its
//! messages, `failure` turns the system's answers into our kinds, and `job` awaits what runs in the background.
//!
//! Facts come from the server's own sources (middleware 25.04 to 26.0): ten calls run at once on a connection, ten more
//! wait, and the next is refused; a message has at most 64 KiB; the event of a job may come before the answer that
//! names it; a connection on which nothing is said is cut after a minute.

mod address;
mod connection;
mod failure;
mod frame;
mod job;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::{Mutex, Semaphore};

use super::auth::Login;
use crate::backend::retry::retry;
use crate::backend::{Error, ErrorKind, Result, may_change};

pub(super) use address::Address;
pub(super) use connection::Io;
use connection::Rhythm;
pub(super) use connection::{Connection, shake_hands};

/// Calls at once: what the server runs at once on one connection.
const AT_ONCE: usize = 10;
/// How long an ordinary answer may take.
const ANSWER: Duration = Duration::from_secs(120);

/// A system, and how to log in to it.
pub(super) struct Client {
    address: Address,
    login: Login,
    rhythm: Rhythm,
    connection: Mutex<Option<Arc<Connection>>>,
    slots: Semaphore,
    requests: AtomicU64,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Prepares; nothing is sent before the first call.
    pub(super) fn new(address: Address, login: Login) -> Self {
        Self::paced(address, login, Rhythm::default())
    }

    fn paced(address: Address, login: Login, rhythm: Rhythm) -> Self {
        Self {
            address,
            login,
            rhythm,
            connection: Mutex::new(None),
            slots: Semaphore::new(AT_ONCE),
            requests: AtomicU64::new(0),
        }
    }

    /// Where it leads.
    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    /// Calls sent so far, logging in aside.
    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// The connection, logged in. A lost one is replaced.
    async fn connection(&self) -> Result<Arc<Connection>> {
        let mut held = self.connection.lock().await;
        if let Some(connection) = held.as_ref().filter(|connection| connection.is_open()) {
            return Ok(connection.clone());
        }
        *held = None;
        let connection = Connection::open(&self.address, self.rhythm).await?;
        self.login
            .log_in(&connection)
            .await
            .map_err(|error| error.within(format_args!("cannot log in at {}", self.address)))?;
        let connection = Arc::new(connection);
        *held = Some(connection.clone());
        Ok(connection)
    }

    async fn once(&self, method: &str, params: &Value) -> Result<Value> {
        let connection = self.connection().await?;
        self.ask(&connection, method, params).await
    }

    async fn ask(&self, connection: &Connection, method: &str, params: &Value) -> Result<Value> {
        // Nobody closes it.
        let _slot = self.slots.acquire().await.ok();
        self.requests.fetch_add(1, Ordering::Relaxed);
        match connection.ask(method, params, ANSWER).await {
            Err(error) if failure::is_logged_out(&error) => {
                self.login.log_in(connection).await?;
                connection.ask(method, params, ANSWER).await
            }
            answer => answer,
        }
    }

    /// Calls a method that changes nothing, again where that may help.
    pub(super) async fn read<T: DeserializeOwned>(&self, method: &str, params: Value) -> Result<T> {
        let answer = retry(|| self.once(method, &params)).await?;
        serde_json::from_value(answer).map_err(|error| {
            Error::new(
                ErrorKind::Failed,
                format!("`{method}` answered something else than its documentation says"),
            )
            .with_source(error)
        })
    }

    /// Calls a method that changes something, once. Where the connection is lost, it may have happened.
    pub(super) async fn change(&self, method: &str, params: Value) -> Result<Value> {
        let connection = retry(|| self.connection()).await?;
        may_change().await?;
        self.ask(&connection, method, &params).await
    }

    /// A token for another connection to the same system, such as that of a shell; good for so many seconds.
    pub(super) async fn token(&self, seconds: u32) -> Result<String> {
        self.read("auth.generate_token", json!([seconds, {}, true, true])).await
    }

    /// A stream to the system, for another WebSocket than that of calls.
    pub(super) async fn stream(&self) -> Result<Box<dyn Io>> {
        self.address.connect().await
    }

    /// Lets go of the connection.
    pub(super) async fn close(&self) {
        if let Some(connection) = self.connection.lock().await.take() {
            connection.close().await;
        }
    }
}
