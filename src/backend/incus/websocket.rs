//! Websockets of operations.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{Upgraded, Url};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::client::Client;
use crate::backend::{Error, ErrorKind, Result};

/// An open websocket, for both directions.
pub(super) type Socket = WebSocketStream<Upgraded>;
/// One that is only read.
pub(super) type Listener = WebSocketStream<Silent>;

impl Client {
    /// Opens the websocket of an operation that the secret stands for.
    pub(super) async fn websocket(&self, operation: &str, secret: &str) -> Result<Socket> {
        let stream = self.shake_hands(operation, secret).await?;
        Ok(WebSocketStream::from_raw_socket(stream, Role::Client, None).await)
    }

    /// The same to listen only.
    pub(super) async fn listen(&self, operation: &str, secret: &str) -> Result<Listener> {
        let stream = Silent(self.shake_hands(operation, secret).await?);
        Ok(WebSocketStream::from_raw_socket(stream, Role::Client, None).await)
    }

    /// The opening handshake of RFC 6455, section 4.
    async fn shake_hands(&self, operation: &str, secret: &str) -> Result<Upgraded> {
        let mut url: Url = self.url(["operations", operation, "websocket"]);
        url.query_pairs_mut().append_pair("secret", secret);
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
        let accepted = answer.get(header::SEC_WEBSOCKET_ACCEPT).map(HeaderValue::as_bytes);
        if accepted != Some(derive_accept_key(key.as_bytes()).as_bytes()) {
            return Err(failed());
        }
        Ok(stream)
    }
}

/// A stream on which nothing is said. The daemon opens every websocket with a ping and closes it when a short
/// command has ended; the answer to the ping would then fail, or make the connection be reset, and what was
/// not read yet would be lost with it. The daemon does not wait for answers.
#[derive(Debug)]
pub(super) struct Silent(Upgraded);

impl AsyncRead for Silent {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Silent {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
