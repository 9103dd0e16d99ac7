//! The web shell: a terminal inside a container.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;

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
    sizes: BTreeMap<String, tokio::sync::watch::Sender<(u16, u16)>>,
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
pub(super) async fn serve<S>(_server: Arc<Server>, _socket: WebSocketStream<S>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
}
