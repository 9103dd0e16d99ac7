//! The web shell: a terminal inside a container.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::Dialect;
use super::containers;
use super::server::{self, Server};

/// Tokens that were given out, and shells that are open.
#[derive(Debug, Default)]
pub(super) struct Shells {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Each token, and whether it is good for one use only.
    tokens: BTreeMap<String, bool>,
    /// The sizes of open shells, by id.
    sizes: BTreeMap<String, watch::Sender<(u16, u16)>>,
}

impl Shells {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic")
    }

    /// Makes a token.
    pub(super) fn token(&self, single_use: bool) -> String {
        let token = server::secret(64);
        self.state().tokens.insert(token.clone(), single_use);
        token
    }

    /// Whether a token is good.
    fn redeem(&self, token: &str) -> bool {
        let mut state = self.state();
        match state.tokens.get(token).copied() {
            Some(true) => state.tokens.remove(token).is_some(),
            Some(false) => true,
            None => false,
        }
    }

    /// Changes the size of a shell, if there is such a one.
    pub(super) fn resize(&self, id: &str, columns: u16, rows: u16) -> bool {
        let state = self.state();
        let Some(size) = state.sizes.get(id) else { return false };
        size.send_replace((columns, rows));
        true
    }

    /// Forgets all of them.
    pub(super) fn clear(&self) {
        let mut state = self.state();
        state.tokens.clear();
        state.sizes.clear();
    }
}

/// Serves one shell to its end.
pub(super) async fn serve<S>(server: Arc<Server>, mut socket: WebSocketStream<S>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let options = loop {
        let Some(Ok(message)) = socket.next().await else { return };
        let Message::Text(text) = message else { continue };
        // What is not understood is waited past.
        let Ok(first) = serde_json::from_str::<Value>(&text) else {
            continue;
        };
        let Some(token) = first["token"].as_str() else { continue };
        if server.shells.redeem(token) {
            break first["options"].clone();
        }
        let refused = json!({ "msg": "failed", "error": { "error": 207, "reason": "Invalid token" } });
        if socket.send(Message::text(refused.to_string())).await.is_err() {
            return;
        }
    };
    // Whatever goes wrong from here on only ends the connection.
    if let Some((name, command)) = wanted(&server, &options).await {
        let id = server.unique();
        let (size, sizes) = watch::channel((80, 24));
        server.shells.state().sizes.insert(id.clone(), size);
        let _ = talk(&server, &mut socket, &id, (&name, &command), sizes).await;
        server.shells.state().sizes.remove(&id);
    }
    let _ = socket.close(None).await;
}

/// The container that a shell is wanted in, and the command.
async fn wanted(server: &Server, options: &Value) -> Option<(String, Vec<String>)> {
    let command = options["command"].as_str().filter(|command| !command.is_empty());
    let (name, command) = match server.dialect {
        Dialect::V26 => {
            let name = containers::name_of(server, options["container_id"].as_i64()?)?;
            let script = command.unwrap_or("if command -v bash >/dev/null 2>&1; then exec bash -l; else exec sh; fi");
            (name, vec!["/bin/sh".to_owned(), "-c".to_owned(), script.to_owned()])
        }
        // One word, and nothing splits it.
        _ => {
            let name = options["virt_instance_id"].as_str()?.to_owned();
            (name, vec![command.unwrap_or("/bin/sh").to_owned()])
        }
    };
    containers::runs(server, &name).await.ok()?.then_some((name, command))
}

async fn open(socket: &Path, operation: &str, secret: &Value) -> Option<WebSocketStream<UnixStream>> {
    let stream = UnixStream::connect(socket).await.ok()?;
    let secret = secret.as_str()?;
    let url = format!("ws://incus{operation}/websocket?secret={secret}");
    Some(tokio_tungstenite::client_async(url, stream).await.ok()?.0)
}

/// Passes bytes between a caller and a terminal.
async fn talk<S>(
    server: &Server,
    caller: &mut WebSocketStream<S>,
    id: &str,
    (name, command): (&str, &[String]),
    mut sizes: watch::Receiver<(u16, u16)>,
) -> Option<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let (path, operation) = server.daemon.exec(name, command).await?;
    let at = format!("/1.0/operations/{}", operation["id"].as_str()?);
    let fds = &operation["metadata"]["fds"];
    let mut terminal = open(&path, &at, &fds["0"]).await?;
    let mut control = open(&path, &at, &fds["control"]).await?;
    let connected = json!({ "msg": "connected", "id": id });
    caller.send(Message::text(connected.to_string())).await.ok()?;
    loop {
        tokio::select! {
            output = terminal.next() => match output {
                Some(Ok(Message::Binary(bytes))) => caller.send(Message::Binary(bytes)).await.ok()?,
                // The daemon ends what a terminal says with a text.
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                _ => return Some(()),
            },
            input = caller.next() => match input {
                Some(Ok(Message::Binary(bytes))) => terminal.send(Message::Binary(bytes)).await.ok()?,
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                // A text cannot be written to a terminal, which ends it.
                _ => return Some(()),
            },
            changed = sizes.changed() => {
                changed.ok()?;
                let (columns, rows) = *sizes.borrow_and_update();
                let arguments = json!({ "width": columns.to_string(), "height": rows.to_string() });
                let message = json!({ "command": "window-resize", "args": arguments });
                control.send(Message::text(message.to_string())).await.ok()?;
            }
        }
    }
}
