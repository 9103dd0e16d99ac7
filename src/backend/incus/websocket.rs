//! Websockets of operations.

use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Upgraded, Url};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::client::Client;
use crate::backend::{Error, ErrorKind, Result};

/// An open websocket.
pub(super) type Socket = WebSocketStream<Upgraded>;

impl Client {
    /// Opens the websocket of an operation that the secret stands for.
    pub(super) async fn websocket(&self, operation: &str, secret: &str) -> Result<Socket> {
        let mut url: Url = self.url(["operations", operation, "websocket"]);
        url.query_pairs_mut().append_pair("secret", secret);
        // The opening handshake of RFC 6455, section 4.
        let key = generate_key();
        let failed = || {
            Error::new(
                ErrorKind::Failed,
                format!("no websocket from Incus at {}", self.place()),
            )
        };
        let mut headers = HeaderMap::new();
        headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        let value = HeaderValue::from_str(&key).map_err(|error| failed().with_source(error))?;
        headers.insert(header::SEC_WEBSOCKET_KEY, value);
        let (stream, answer) = self.upgrade(&url, headers, "websocket").await?;
        let name: HeaderName = header::SEC_WEBSOCKET_ACCEPT;
        if answer.get(name).map(HeaderValue::as_bytes) != Some(derive_accept_key(key.as_bytes()).as_bytes()) {
            return Err(failed());
        }
        Ok(WebSocketStream::from_raw_socket(stream, Role::Client, None).await)
    }
}
