//! Requests to one daemon, over its unix socket or HTTPS.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{Method, StatusCode, Upgraded, Url};
use rustls::ClientConfig;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::OnceCell;

use super::failure::{answered, unheard};
use super::wire::{Envelope, Server};
use crate::backend::retry::retry;
use crate::backend::tls;
use crate::backend::{Error, ErrorKind, Result, may_change};

/// How long an ordinary answer may take. Rendering a thousand instances takes seconds; minutes mean that the
/// daemon hangs.
const ANSWER: Duration = Duration::from_secs(120);

/// What this backend asks of the daemon, by the name of the API extension that brought it.
const EXTENSIONS: [(&str, &str); 6] = [
    ("instances", "instances"),
    ("instance_get_full", "reading an instance at once"),
    ("container_exec_user_group_cwd", "commands as another user"),
    ("instance_create_start", "starting with creation"),
    ("snapshot_disk_usage", "sizes of snapshots"),
    ("snapshot_expiry_creation", "telling our snapshots from others"),
];

/// Where a daemon listens.
#[derive(Debug, Clone)]
pub(super) enum Endpoint {
    /// A socket of this machine.
    Socket(PathBuf),
    /// A URL, and whom to trust there and how to show who we are.
    Https(Url, Arc<ClientConfig>),
}

/// The version of an object that was read, for writing it back only if nobody else has.
pub(super) type Etag = Option<HeaderValue>;

/// A connection to one daemon and project. It connects with the first request, never before.
pub(super) struct Client {
    http: reqwest::Client,
    base: Url,
    place: String,
    local: bool,
    project: Option<String>,
    requests: AtomicU64,
    server: OnceCell<Server>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("place", &self.place)
            .field("project", &self.project)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Prepares a connection; nothing is sent.
    pub(super) fn new(endpoint: &Endpoint, project: Option<String>) -> Result<Self> {
        // The environment's proxies are the caller's business, and an API with upgrades speaks HTTP/1.1.
        let builder = reqwest::Client::builder()
            .no_proxy()
            .http1_only()
            .connect_timeout(Duration::from_secs(10))
            .tcp_keepalive(Duration::from_secs(15))
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("sbx-apply/", env!("CARGO_PKG_VERSION")));
        let (builder, base, place) = match endpoint {
            Endpoint::Socket(path) => (
                // No pool. The daemon's accept loop waits for the first bytes of every new connection before it
                // serves the next, and a pool connects ahead of need: such an idle connection would freeze the
                // socket for everybody. A new connection costs no measurable time here.
                builder
                    .unix_socket(path.as_path())
                    .pool_max_idle_per_host(0)
                    .tls_backend_preconfigured(tls::nobody()?),
                Url::parse("http://incus/"),
                path.display().to_string(),
            ),
            Endpoint::Https(url, rules) => (
                builder.tls_backend_preconfigured(ClientConfig::clone(rules)),
                Ok(url.clone()),
                url.as_str().trim_end_matches('/').to_owned(),
            ),
        };
        let base = base.map_err(|error| Error::new(ErrorKind::Invalid, "not a URL").with_source(error))?;
        let http = builder.build().map_err(|error| {
            Error::new(ErrorKind::Failed, "cannot prepare the connection to Incus").with_source(error)
        })?;
        Ok(Self {
            http,
            base,
            place,
            local: matches!(endpoint, Endpoint::Socket(_)),
            project,
            requests: AtomicU64::new(0),
            server: OnceCell::new(),
        })
    }

    /// Whether the daemon is behind a socket of this machine.
    pub(super) fn is_local(&self) -> bool {
        self.local
    }

    /// Where it leads, for people.
    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// The project it works in.
    pub(super) fn project(&self) -> &str {
        self.project.as_deref().unwrap_or("default")
    }

    /// Requests so far.
    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// An address below `/1.0`, each part encoded.
    pub(super) fn url<'a>(&self, parts: impl IntoIterator<Item = &'a str>) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.clear().push("1.0").extend(parts);
        }
        if let Some(project) = &self.project {
            url.query_pairs_mut().append_pair("project", project);
        }
        url
    }

    /// What the daemon says of itself; asked once, and checked for what we need.
    pub(super) async fn server(&self) -> Result<&Server> {
        self.server
            .get_or_try_init(|| async {
                let (server, _): (Server, _) = self.read(&self.url([])).await?;
                if server.auth != "trusted" {
                    return Err(Error::new(
                        ErrorKind::Unauthorised,
                        format!("Incus at {} does not trust us", self.place),
                    )
                    .with_hint("add this client's certificate there: `incus config trust add-certificate`"));
                }
                let lacks: Vec<_> = EXTENSIONS
                    .iter()
                    .filter(|(extension, _)| server.api_extensions.iter().all(|known| known != extension))
                    .map(|(extension, what)| format!("{what} (`{extension}`)"))
                    .collect();
                if !lacks.is_empty() {
                    return Err(Error::unsupported(format!(
                        "Incus {} at {} is too old: it lacks {}",
                        server.environment.server_version,
                        self.place,
                        lacks.join(", ")
                    ))
                    .with_hint("6.0 is the first version that is known to do"));
                }
                Ok(server)
            })
            .await
    }

    /// Reads an object. Safe to repeat, so it is when the connection breaks.
    pub(super) async fn get<T: DeserializeOwned>(&self, url: &Url) -> Result<(T, Etag)> {
        self.server().await?;
        self.read(url).await
    }

    async fn read<T: DeserializeOwned>(&self, url: &Url) -> Result<(T, Etag)> {
        retry(|| async {
            let response = self
                .send(Method::GET, url, HeaderMap::new(), None::<&()>, Some(ANSWER))
                .await?;
            let etag = response.headers().get(header::ETAG).cloned();
            let envelope: Envelope<T> = self.open(response).await?;
            envelope.metadata.map(|value| (value, etag)).ok_or_else(|| {
                Error::new(
                    ErrorKind::Failed,
                    format!("an empty answer from Incus at {}", self.place),
                )
            })
        })
        .await
    }

    /// Sends a change and gives the answer. Not repeated: what it does may have happened.
    pub(super) async fn change<B, T>(
        &self,
        method: Method,
        url: &Url,
        body: Option<&B>,
        etag: Etag,
    ) -> Result<Envelope<T>>
    where
        B: Serialize + Sync,
        T: DeserializeOwned,
    {
        self.server().await?;
        let mut headers = HeaderMap::new();
        if let Some(etag) = etag {
            headers.insert(header::IF_MATCH, etag);
        }
        let response = self.send(method, url, headers, body, Some(ANSWER)).await?;
        self.open(response).await
    }

    /// Waits for an answer for as long as it takes.
    pub(super) async fn await_answer<T: DeserializeOwned>(&self, url: &Url) -> Result<Envelope<T>> {
        let response = self.send(Method::GET, url, HeaderMap::new(), None::<&()>, None).await?;
        self.open(response).await
    }

    /// Asks for another protocol on a connection of its own, and gives the raw stream.
    pub(super) async fn upgrade(
        &self,
        url: &Url,
        mut headers: HeaderMap,
        protocol: &'static str,
    ) -> Result<(Upgraded, HeaderMap)> {
        self.server().await?;
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static(protocol));
        let response = self.send(Method::GET, url, headers, None::<&()>, Some(ANSWER)).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let code = response.status().as_u16();
            let _: Envelope<serde_json::Value> = self.open(response).await?;
            return Err(answered(code, &format!("no {protocol} there")));
        }
        let answer = response.headers().clone();
        let stream = response.upgrade().await.map_err(|error| unheard(error, &self.place))?;
        Ok((stream, answer))
    }

    async fn send<B: Serialize + Sync>(
        &self,
        method: Method,
        url: &Url,
        headers: HeaderMap,
        body: Option<&B>,
        patience: Option<Duration>,
    ) -> Result<reqwest::Response> {
        let mut left = 3;
        loop {
            if method != Method::GET {
                may_change().await?;
            }
            self.requests.fetch_add(1, Ordering::Relaxed);
            let started = Instant::now();
            let mut request = self.http.request(method.clone(), url.clone()).headers(headers.clone());
            if let Some(body) = body {
                request = request.json(body);
            }
            if let Some(patience) = patience {
                request = request.timeout(patience);
            }
            let answer = request.send().await;
            // Neither the query (an operation's secret stands there) nor any body.
            tracing::debug!(
                target: "sbx_apply::incus",
                %method,
                path = url.path(),
                status = answer.as_ref().map_or(0, |response| response.status().as_u16()),
                ms = started.elapsed().as_secs_f64() * 1e3,
                "incus.request"
            );
            let error = match answer {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            // What failed to connect has not been sent, so even a change may be sent again.
            let unsent = error.is_connect();
            let error = unheard(error, &self.place);
            left -= 1;
            if left == 0 || !unsent || error.kind() != ErrorKind::Unreachable {
                return Err(error);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn open<T: DeserializeOwned>(&self, response: reqwest::Response) -> Result<Envelope<T>> {
        let status = response.status().as_u16();
        let bytes = response.bytes().await.map_err(|error| unheard(error, &self.place))?;
        // An error's metadata may have any shape, so errors are read before what was asked for.
        let failed: Option<Envelope<serde::de::IgnoredAny>> = serde_json::from_slice(&bytes).ok();
        if let Some(envelope) = failed.filter(|envelope| envelope.kind == "error") {
            let code = if envelope.error_code == 0 {
                status
            } else {
                envelope.error_code
            };
            return Err(answered(code, &envelope.error));
        }
        serde_json::from_slice(&bytes).map_err(|error| {
            if status >= 400 {
                return answered(status, "");
            }
            Error::new(
                ErrorKind::Failed,
                format!("no sense in the answer from Incus at {}", self.place),
            )
            .with_source(error)
        })
    }
}
