//! One WebSocket connection to the API.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::rpc;
use super::server::Server;

/// A connection's side of the conversation.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: u64,
    /// Whether a key may be sent here.
    pub(super) secure: bool,
    out: mpsc::UnboundedSender<Value>,
    state: Mutex<State>,
    /// Calls that run or wait to.
    pub(super) calls: AtomicUsize,
    /// Calls that run.
    pub(super) running: Semaphore,
    cut: Notify,
}

/// What a session has been told.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) authenticated: bool,
    /// Calls since the login.
    pub(super) calls: usize,
    /// A one-time password is wanted next.
    pub(super) otp: bool,
    pub(super) subscriptions: BTreeMap<String, String>,
    /// Whether calls that start jobs answer with the job's id. Only 25.10 and later can be told not to.
    pub(super) modern_jobs: bool,
}

/// Why the server ends a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Closing {
    pub(super) code: u16,
    pub(super) reason: String,
}

impl Session {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic")
    }

    /// Sends something, in order. What is sent to a connection that is gone is lost.
    pub(super) fn send(&self, message: Value) {
        let _ = self.out.send(message);
    }

    /// Sends a notification.
    pub(super) fn notify(&self, method: &str, params: &Value) {
        self.send(json!({ "jsonrpc": "2.0", "method": method, "params": params }));
    }

    /// Ends the connection without a word.
    pub(super) fn cut(&self) {
        self.cut.notify_one();
    }
}

/// Serves a connection to its end.
pub(super) async fn serve<S>(server: Arc<Server>, socket: WebSocketStream<S>, secure: bool)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let (out, mut outgoing) = mpsc::unbounded_channel();
    let session = Arc::new(Session {
        id: server.next_number(),
        secure,
        out,
        state: Mutex::default(),
        calls: AtomicUsize::new(0),
        running: Semaphore::new(10),
        cut: Notify::new(),
    });
    server.enter(&session);
    let (mut sink, mut stream) = socket.split();
    loop {
        let idle = server.knobs().idle_cut.unwrap_or(Duration::from_secs(24 * 60 * 60));
        let closing = tokio::select! {
            biased;
            () = session.cut.notified() => break,
            message = outgoing.recv() => {
                let Some(message) = message else { break };
                if sink.send(Message::text(message.to_string())).await.is_err() {
                    break;
                }
                None
            }
            message = stream.next() => match message {
                Some(Ok(Message::Text(text))) => rpc::receive(&server, &session, text.as_str()),
                Some(Ok(Message::Binary(_))) => Some(Closing {
                    code: 1003,
                    reason: "Invalid websocket message type: <WSMsgType.BINARY: 2>".to_owned(),
                }),
                Some(Ok(Message::Close(_)) | Err(_)) | None => break,
                Some(Ok(_)) => None,
            },
            () = tokio::time::sleep_until(Instant::now() + idle) => break,
        };
        if let Some(Closing { code, reason }) = closing {
            let frame = CloseFrame {
                code: CloseCode::from(code),
                reason: reason.into(),
            };
            let _ = sink.send(Message::Close(Some(frame))).await;
            // The other side closes too, or has a moment to.
            let rest = async { while let Some(Ok(_)) = stream.next().await {} };
            let _ = tokio::time::timeout(Duration::from_secs(1), rest).await;
            break;
        }
    }
    session.cut();
    server.leave(&session);
}
