//! Where a system is, and whom to believe that it is there.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::connection::Io;
use crate::backend::{Error, ErrorKind, Result};

/// How long a connection may take to be there.
const CONNECT: Duration = Duration::from_secs(15);

/// Where a system is.
#[derive(Clone)]
pub(in crate::backend::truenas) struct Address {
    host: String,
    port: u16,
    /// The rules of a secure connection; none where it is in the clear, which only loopback may be.
    tls: Option<Arc<ClientConfig>>,
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Address").field(&self.to_string()).finish()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.authority())
    }
}

impl Address {
    /// A host's name or address, and its port.
    pub(in crate::backend::truenas) fn new(host: &str, port: u16, tls: Option<Arc<ClientConfig>>) -> Self {
        Self {
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port,
            tls,
        }
    }

    /// Host and port as a URL has them.
    fn authority(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }

    /// The URL of a WebSocket there.
    pub(in crate::backend::truenas) fn websocket(&self, path: &str) -> String {
        let scheme = if self.tls.is_some() { "wss" } else { "ws" };
        format!("{scheme}://{}{path}", self.authority())
    }

    /// Connects. In the clear, only to this machine: the system revokes a key that it is sent in the clear from anywhere
    /// else, and whoever listens on the way has it.
    pub(in crate::backend::truenas) async fn connect(&self) -> Result<Box<dyn Io>> {
        let unreachable = |hint: &'static str| {
            Error::new(ErrorKind::Unreachable, format!("cannot reach TrueNAS at {self}")).with_hint(hint)
        };
        const WHERE: &str = "is the system running, and is this its host and its HTTPS port?";
        let connecting = timeout(CONNECT, TcpStream::connect((self.host.as_str(), self.port)));
        let stream = connecting.await.map_err(|_| unreachable(WHERE))?;
        let stream = stream.map_err(|error| unreachable(WHERE).with_source(error))?;
        let peer = stream
            .peer_addr()
            .map_err(|error| unreachable(WHERE).with_source(error))?;
        // Calls are small, and each is waited for.
        stream.set_nodelay(true).ok();
        let Some(rules) = &self.tls else {
            if !is_this_machine(peer.ip()) {
                return Err(Error::new(
                    ErrorKind::Unauthorised,
                    format!("the API key is not sent to {self} in the clear"),
                )
                .with_hint("use the HTTPS port; TrueNAS revokes a key that arrives in the clear"));
            }
            return Ok(Box::new(stream));
        };
        let name = ServerName::try_from(self.host.clone()).map_err(|error| {
            Error::new(ErrorKind::Invalid, format!("`{}` is no host name", self.host)).with_source(error)
        })?;
        let secure = TlsConnector::from(rules.clone()).connect(name, stream);
        match timeout(CONNECT, secure).await {
            Err(_) => Err(unreachable(WHERE)),
            Ok(Ok(stream)) => Ok(Box::new(stream)),
            Ok(Err(error)) => {
                let certificate = error
                    .get_ref()
                    .and_then(|inner| inner.downcast_ref::<rustls::Error>())
                    .is_some_and(|error| matches!(error, rustls::Error::InvalidCertificate(_)));
                Err(match certificate {
                    true => Error::new(
                        ErrorKind::Unauthorised,
                        format!("the certificate of TrueNAS at {self} is not trusted"),
                    )
                    .with_hint(
                        "a system's first certificate is its own making: save it, compare its fingerprint with the one \
                         that the system shows, and name the file with `--server-certificate`",
                    )
                    .with_source(error),
                    false => unreachable("does it speak TLS on this port?").with_source(error),
                })
            }
        }
    }
}

fn is_this_machine(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}
