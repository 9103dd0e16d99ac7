//! One WebSocket: calls in flight side by side, and what is said without being asked.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::Address;
use super::frame::{self, Said};
use super::job::Jobs;
use crate::backend::{Error, ErrorKind, Result};

/// Something that bytes go through, both ways.
pub(in crate::backend::truenas) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

type Socket = WebSocketStream<Box<dyn Io>>;

/// Where calls are.
const PATH: &str = "/api/current";
/// How long the WebSocket's handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(15);
/// How much a system may say at once: listings of thousands of snapshots have megabytes.
const LONGEST: usize = 256 << 20;
/// Messages that wait to be sent.
const QUEUE: usize = 32;

/// When to ask whether the other side is still there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rhythm {
    /// Between two pings. The proxy before the system cuts what is silent for 60 s.
    pub(super) ping: Duration,
    /// A connection on which nothing was heard for so long is lost.
    pub(super) silence: Duration,
}

impl Default for Rhythm {
    fn default() -> Self {
        Self {
            ping: Duration::from_secs(20),
            silence: Duration::from_secs(70),
        }
    }
}

/// Who waits for which answer; none once no answer can come any more.
type Waiting = Arc<Mutex<Option<HashMap<u64, oneshot::Sender<Result<Value>>>>>>;

/// An open connection. Dropping it ends it.
pub(in crate::backend::truenas) struct Connection {
    outbox: mpsc::Sender<Message>,
    shared: Arc<Shared>,
    number: AtomicU64,
    tasks: [JoinHandle<()>; 2],
}

/// What both directions know.
struct Shared {
    waiting: Waiting,
    jobs: Jobs,
    open: watch::Sender<bool>,
    /// The last job before changes of jobs were told; negative while they are not.
    followed: AtomicI64,
    deaf: AtomicBool,
    heard: Mutex<Instant>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("open", &self.is_open())
            .finish_non_exhaustive()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Connection {
    /// Connects, and shakes hands.
    pub(super) async fn open(address: &Address, rhythm: Rhythm) -> Result<Self> {
        let stream = address.connect().await?;
        let socket = shake_hands(stream, &address.websocket(PATH)).await?;
        let (to, from) = socket.split();
        let (outbox, queue) = mpsc::channel(QUEUE);
        let shared = Arc::new(Shared {
            waiting: Arc::new(Mutex::new(Some(HashMap::new()))),
            jobs: Jobs::new(),
            open: watch::Sender::new(true),
            followed: AtomicI64::new(-1),
            deaf: AtomicBool::new(false),
            heard: Mutex::new(Instant::now()),
        });
        Ok(Self {
            outbox,
            number: AtomicU64::new(1),
            tasks: [
                tokio::spawn(send(to, queue, shared.clone(), rhythm)),
                tokio::spawn(hear(from, shared.clone())),
            ],
            shared,
        })
    }

    /// Calls a method, and waits for its answer, at most so long.
    pub(in crate::backend::truenas) async fn ask(
        &self,
        method: &str,
        params: &Value,
        patience: Duration,
    ) -> Result<Value> {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let text = frame::call(number, method, params)?;
        // The name alone: parameters may hold secrets.
        tracing::debug!(method, number, "call");
        let (sender, receiver) = oneshot::channel();
        match self.shared.waiting.lock().as_deref_mut() {
            Ok(Some(waiting)) => waiting.insert(number, sender),
            _ => return Err(lost()),
        };
        let exchange = async {
            self.outbox.send(Message::text(text)).await.map_err(|_| lost())?;
            receiver.await.map_err(|_| lost())?
        };
        let answer = timeout(patience, exchange).await;
        answer.unwrap_or_else(|_| {
            if let Ok(Some(waiting)) = self.shared.waiting.lock().as_deref_mut() {
                waiting.remove(&number);
            }
            Err(Error::new(
                ErrorKind::Timeout,
                format!("no answer to `{method}` within {} s", patience.as_secs()),
            ))
        })
    }

    /// Whether answers can come.
    pub(super) fn is_open(&self) -> bool {
        *self.shared.open.borrow()
    }

    /// Comes back when no answer can come any more.
    pub(super) async fn ended(&self) {
        let mut open = self.shared.open.subscribe();
        // The sender lives as long as this.
        let _ = open.wait_for(|open| !open).await;
    }

    pub(super) fn jobs(&self) -> &Jobs {
        &self.shared.jobs
    }

    /// The last job before changes of jobs were told here; none while they are not.
    pub(super) fn followed(&self) -> Option<i64> {
        match self.is_deaf() {
            true => None,
            false => Some(self.shared.followed.load(Ordering::Acquire)).filter(|last| *last >= 0),
        }
    }

    /// Changes of jobs are told from now on.
    pub(super) fn follow(&self, last: i64) -> i64 {
        self.shared.deaf.store(false, Ordering::Release);
        self.shared.followed.store(last, Ordering::Release);
        last
    }

    /// Whether the system has stopped telling of jobs.
    pub(super) fn is_deaf(&self) -> bool {
        self.shared.deaf.load(Ordering::Acquire)
    }

    /// Says goodbye, and waits for it a moment.
    pub(super) async fn close(&self) {
        if self.outbox.send(Message::Close(None)).await.is_ok() {
            let _ = timeout(Duration::from_secs(1), self.ended()).await;
        }
    }
}

/// The opening handshake of RFC 6455, section 4.
pub(in crate::backend::truenas) async fn shake_hands(stream: Box<dyn Io>, url: &str) -> Result<Socket> {
    let config = WebSocketConfig::default()
        .max_message_size(Some(LONGEST))
        .max_frame_size(Some(LONGEST));
    let failed = |message: String| {
        Error::new(ErrorKind::Unreachable, message).with_hint("is this TrueNAS 25.04 or later, and its HTTPS port?")
    };
    match timeout(HANDSHAKE, client_async_with_config(url, stream, Some(config))).await {
        Err(_) => Err(failed(format!(
            "no WebSocket at {url} within {} s",
            HANDSHAKE.as_secs()
        ))),
        Ok(Ok((socket, _))) => Ok(socket),
        Ok(Err(tungstenite::Error::Http(answer))) => Err(match answer.status().as_u16() {
            404 => Error::unsupported(format!("what answers at {url} has no such interface"))
                .with_hint("TrueNAS has it since 25.04"),
            status @ (301 | 302 | 307 | 308) => {
                Error::new(ErrorKind::Invalid, format!("{url} leads elsewhere (HTTP {status})"))
                    .with_hint("use the HTTPS port")
            }
            status => failed(format!("no WebSocket at {url}: HTTP {status}")),
        }),
        Ok(Err(error)) => Err(failed(format!("no WebSocket at {url}")).with_source(error)),
    }
}

/// Sends what is queued, and pings in between.
async fn send(
    mut to: SplitSink<Socket, Message>,
    mut queue: mpsc::Receiver<Message>,
    shared: Arc<Shared>,
    rhythm: Rhythm,
) {
    let mut tick = interval(rhythm.ping);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tick.tick().await;
    let mut open = shared.open.subscribe();
    loop {
        let message = tokio::select! {
            message = queue.recv() => message,
            _ = tick.tick() => {
                let silent = shared.heard.lock().map_or(Duration::MAX, |heard| heard.elapsed());
                if silent > rhythm.silence {
                    tracing::debug!(?silent, "nothing is heard any more");
                    break;
                }
                Some(Message::Ping(Vec::new().into()))
            }
            _ = open.wait_for(|open| !open) => break,
        };
        let Some(message) = message else { break };
        if to.send(message).await.is_err() {
            break;
        }
    }
    shared.end();
    let _ = timeout(Duration::from_secs(1), to.close()).await;
}

/// Hears what the system says, to the end.
async fn hear(mut from: SplitStream<Socket>, shared: Arc<Shared>) {
    while let Some(Ok(message)) = from.next().await {
        if let Ok(mut heard) = shared.heard.lock() {
            *heard = Instant::now();
        }
        let Message::Text(text) = message else {
            if let Message::Close(Some(why)) = message {
                tracing::debug!(code = %why.code, reason = %why.reason, "the system closes the connection");
            }
            continue;
        };
        match frame::read(&text) {
            Said::Answer(number, answer) => {
                let waiter = shared
                    .waiting
                    .lock()
                    .ok()
                    .and_then(|mut waiting| waiting.as_mut()?.remove(&number));
                if let Some(waiter) = waiter {
                    // Nobody waits any more: no matter.
                    let _ = waiter.send(answer);
                }
            }
            Said::Job(job) => shared.jobs.learn(*job),
            Said::Unsubscribed => shared.deaf.store(true, Ordering::Release),
            Said::Refused(error) => tracing::debug!(%error, "the system could not read a call"),
            Said::Other => {}
        }
    }
    shared.end();
}

impl Shared {
    /// Whoever still waits hears of the end at once.
    fn end(&self) {
        // First of all, so that nobody who hears of it tries this connection again.
        self.open.send_replace(false);
        if let Ok(mut waiting) = self.waiting.lock() {
            *waiting = None;
        }
    }
}

fn lost() -> Error {
    Error::new(ErrorKind::Unreachable, "the connection to TrueNAS was lost")
        .with_source(io::Error::from(io::ErrorKind::ConnectionAborted))
}
