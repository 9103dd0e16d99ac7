//! The ports, and which door a request goes to.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{ServerConfig, crypto};
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::StatusCode;

use super::knobs::Peer;
use super::server::Server;
use super::{session, shell};

/// Where a simulation listens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ports {
    pub(super) plain: u16,
    pub(super) tls: u16,
}

/// What listens, and does not answer yet.
pub(super) struct Doors {
    plain: TcpListener,
    tls: TcpListener,
    acceptor: TlsAcceptor,
}

/// Opens both ports, and gives the certificate of one of them, in PEM.
pub(super) async fn open() -> (Doors, String) {
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has them")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("the key is the certificate's");
    let doors = Doors {
        plain: TcpListener::bind("127.0.0.1:0").await.expect("listens"),
        tls: TcpListener::bind("127.0.0.1:0").await.expect("listens"),
        acceptor: TlsAcceptor::from(Arc::new(config)),
    };
    (doors, made.cert.pem())
}

impl Doors {
    pub(super) fn ports(&self) -> Ports {
        let port = |listener: &TcpListener| listener.local_addr().expect("is bound").port();
        Ports {
            plain: port(&self.plain),
            tls: port(&self.tls),
        }
    }

    /// Answers from now on.
    pub(super) fn serve(self, server: &Arc<Server>) {
        let Self { plain, tls, acceptor } = self;
        let shared = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = plain.accept().await {
                tokio::spawn(connection(shared.clone(), stream, false));
            }
        });
        let shared = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = tls.accept().await {
                let (acceptor, shared) = (acceptor.clone(), shared.clone());
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        connection(shared, stream, true).await;
                    }
                });
            }
        });
    }
}

/// What lies behind a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    Api,
    Shell,
}

async fn connection<S>(server: Arc<Server>, stream: S, encrypted: bool)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let chosen = Mutex::new(None);
    #[allow(clippy::result_large_err, reason = "the library's own type")]
    let choose = |request: &Request, response: Response| {
        let door = match request.uri().path() {
            "/api/current" => Some(Door::Api),
            "/websocket/shell" => Some(Door::Shell),
            _ => None,
        };
        *chosen.lock().expect("no panic") = door;
        if door.is_some() {
            return Ok(response);
        }
        let mut refusal = ErrorResponse::new(Some("404: Not Found".to_owned()));
        *refusal.status_mut() = StatusCode::NOT_FOUND;
        Err(refusal)
    };
    let Ok(socket) = tokio_tungstenite::accept_hdr_async(stream, choose).await else {
        return;
    };
    let secure = encrypted || server.knobs().peer == Peer::Loopback;
    let mut ending = server.ending();
    let door = *chosen.lock().expect("no panic");
    let serving = async {
        match door {
            Some(Door::Api) => session::serve(server.clone(), socket, secure).await,
            Some(Door::Shell) => shell::serve(server.clone(), socket).await,
            None => {}
        }
    };
    tokio::select! {
        () = serving => {}
        _ = ending.wait_for(|ended| *ended) => {}
    }
}
