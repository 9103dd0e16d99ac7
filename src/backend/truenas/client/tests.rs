//! The client against small servers of the tests' own, each of which does one odd thing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, accept_async};

use super::connection::Rhythm;
use super::{Address, Client};
use crate::backend::truenas::auth::{ApiKey, Login};
use crate::backend::{Error, ErrorKind};

const KEY: &str = "1-thesecretkey";
const PATIENCE: Duration = Duration::from_secs(20);

/// The server's end of a connection.
struct Peer {
    socket: WebSocketStream<TcpStream>,
    pings: usize,
}

struct Call {
    id: Value,
    method: String,
    params: Value,
}

impl Peer {
    /// The next call; none when the client has gone.
    async fn call(&mut self) -> Option<Call> {
        loop {
            match self.socket.next().await?.ok()? {
                Message::Text(text) => {
                    let mut call: Value = serde_json::from_str(&text).expect("JSON");
                    assert_eq!(call["jsonrpc"], "2.0");
                    assert!(call["params"].is_array(), "{call}");
                    return Some(Call {
                        id: call["id"].take(),
                        method: call["method"].as_str().expect("a method").to_owned(),
                        params: call["params"].take(),
                    });
                }
                Message::Ping(_) => self.pings += 1,
                Message::Close(_) => return None,
                other => panic!("text only: {other:?}"),
            }
        }
    }

    /// The next call, once the client has logged in.
    async fn call_after_login(&mut self) -> Option<Call> {
        loop {
            let call = self.call().await?;
            if !call.method.starts_with("auth.login") {
                return Some(call);
            }
            self.answer(&call, json!({ "response_type": "SUCCESS" })).await;
        }
    }

    async fn say(&mut self, message: Value) {
        // The client may have gone.
        let _ = self.socket.send(Message::text(message.to_string())).await;
    }

    async fn answer(&mut self, call: &Call, result: Value) {
        self.say(json!({ "jsonrpc": "2.0", "id": call.id, "result": result }))
            .await;
    }

    async fn event(&mut self, kind: &str, job: Value) {
        let params = json!({ "msg": kind, "collection": "core.get_jobs", "id": job["id"], "fields": job });
        self.say(json!({ "jsonrpc": "2.0", "method": "collection_update", "params": params }))
            .await;
    }
}

/// A server that treats each connection so; told which it is, from 0.
async fn serve<F>(treat: impl Fn(usize, Peer) -> F + Send + Sync + 'static) -> (u16, JoinHandle<()>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let server = tokio::spawn(async move {
        let treat = Arc::new(treat);
        for index in 0.. {
            let Ok((stream, _)) = listener.accept().await else {
                return;
            };
            let treat = treat.clone();
            tokio::spawn(async move {
                if let Ok(socket) = accept_async(stream).await {
                    treat(index, Peer { socket, pings: 0 }).await;
                }
            });
        }
    });
    (port, server)
}

fn login() -> Login {
    Login {
        user: Some("admin".to_owned()),
        key: ApiKey::new(KEY).expect("a key"),
    }
}

fn client(port: u16) -> Client {
    Client::new(Address::new("127.0.0.1", port, None), login())
}

fn job(state: &str) -> Value {
    json!({ "id": 7, "method": "virt.instance.start", "arguments": ["one"], "state": state, "result": null })
}

/// Answers what a client asks before it begins a job.
async fn begin(peer: &mut Peer) -> Option<Call> {
    loop {
        let call = peer.call_after_login().await?;
        match call.method.as_str() {
            "core.subscribe" => peer.answer(&call, json!("a-subscription")).await,
            "core.get_jobs" if call.params[1]["limit"] == 1 => peer.answer(&call, json!([])).await,
            _ => return Some(call),
        }
    }
}

#[tokio::test]
async fn answers_find_their_calls_in_any_order_and_ten_are_in_flight() {
    let most = Arc::new(AtomicUsize::new(0));
    let seen = most.clone();
    let (port, server) = serve(move |_, mut peer| {
        let most = seen.clone();
        async move {
            let mut held = Vec::new();
            let mut left = 25;
            while left > 0 {
                let more = tokio::time::timeout(Duration::from_millis(100), peer.call_after_login());
                match more.await {
                    Ok(Some(call)) => held.push(call),
                    Ok(None) => return,
                    Err(_) => {
                        most.fetch_max(held.len(), Ordering::Relaxed);
                        for call in held.drain(..).rev() {
                            left -= 1;
                            let echo = call.params[0].clone();
                            peer.answer(&call, echo).await;
                        }
                    }
                }
            }
        }
    })
    .await;
    let client = client(port);
    let answers = join_all((0..25).map(|index| client.read::<u32>("echo", json!([index])))).await;
    let answers: Vec<u32> = answers.into_iter().map(|answer| answer.expect("answers")).collect();
    assert_eq!(answers, (0..25).collect::<Vec<_>>());
    assert_eq!(most.load(Ordering::Relaxed), 10);
    assert_eq!(client.requests(), 25);
    server.abort();
}

#[tokio::test]
async fn a_job_whose_event_comes_first_and_whose_end_comes_twice_ends_once() {
    let (port, server) = serve(|_, mut peer| async move {
        while let Some(call) = begin(&mut peer).await {
            peer.event("added", job("RUNNING")).await;
            peer.event("changed", job("SUCCESS")).await;
            peer.answer(&call, json!(7)).await;
            peer.event("changed", job("SUCCESS")).await;
        }
    })
    .await;
    let client = client(port);
    let ended = client.job("virt.instance.start", json!(["one"]), PATIENCE).await;
    ended.expect("ends");
    server.abort();
}

#[tokio::test]
async fn a_job_goes_on_over_a_lost_connection() {
    for lost_before_answer in [false, true] {
        let (port, server) = serve(move |index, mut peer| async move {
            if index == 0 {
                if let Some(call) = begin(&mut peer).await
                    && !lost_before_answer
                {
                    peer.answer(&call, json!(7)).await;
                }
                // The connection drops here, and the job runs on.
                return;
            }
            let mut looks = 0;
            while let Some(call) = begin(&mut peer).await {
                assert_eq!(call.method, "core.get_jobs", "nothing is begun twice");
                looks += 1;
                peer.answer(&call, json!([job("RUNNING")])).await;
                if looks == 1 + usize::from(lost_before_answer) {
                    peer.event("changed", job("SUCCESS")).await;
                }
            }
        })
        .await;
        let client = client(port);
        let ended = client.job("virt.instance.start", json!(["one"]), PATIENCE).await;
        ended.expect("ends");
        server.abort();
    }
}

#[tokio::test]
async fn a_job_that_another_system_start_has_forgotten_is_no_success() {
    let (port, server) = serve(|index, mut peer| async move {
        while let Some(call) = begin(&mut peer).await {
            match index {
                0 => {
                    peer.answer(&call, json!(7)).await;
                    return;
                }
                // A number that means something else by now.
                _ => {
                    let other = json!({ "id": 7, "method": "pool.scrub", "arguments": [], "state": "SUCCESS" });
                    peer.answer(&call, json!([other])).await;
                }
            }
        }
    })
    .await;
    let ended = client(port).job("virt.instance.start", json!(["one"]), PATIENCE).await;
    assert!(ended.expect_err("unknown").kind().is_transient());
    server.abort();
}

#[tokio::test]
async fn a_job_that_stands_for_another_call_is_busy() {
    let (port, server) = serve(|_, mut peer| async move {
        while let Some(call) = begin(&mut peer).await {
            let other = json!({ "id": 7, "method": "virt.instance.start", "arguments": ["two"], "state": "SUCCESS" });
            peer.event("added", other).await;
            peer.answer(&call, json!(7)).await;
        }
    })
    .await;
    let ended = client(port).job("virt.instance.start", json!(["one"]), PATIENCE).await;
    assert_eq!(ended.expect_err("not begun").kind(), ErrorKind::Busy);
    server.abort();
}

#[tokio::test]
async fn a_job_that_hangs_is_a_timeout_and_a_failed_one_says_why() {
    let (port, server) = serve(|_, mut peer| async move {
        while let Some(call) = begin(&mut peer).await {
            match call.method.as_str() {
                "core.get_jobs" => peer.answer(&call, json!([job("RUNNING")])).await,
                "virt.instance.create" => {
                    let exception = json!({ "type": "VALIDATION", "errno": null,
                        "extra": [["virt_instance_create.cpu", "Input should be a valid string", 22]] });
                    let failed = json!({ "id": 8, "method": call.method, "arguments": call.params, "state": "FAILED",
                        "error": "[EINVAL] virt_instance_create.cpu: Input should be a valid string\n", "exc_info": exception });
                    peer.answer(&call, json!(8)).await;
                    peer.event("changed", failed).await;
                }
                _ => peer.answer(&call, json!(7)).await,
            }
        }
    })
    .await;
    let client = client(port);
    let hangs = client
        .job("virt.instance.start", json!(["one"]), Duration::from_millis(300))
        .await;
    assert_eq!(hangs.expect_err("hangs").kind(), ErrorKind::Timeout);
    let failed = client
        .job("virt.instance.create", json!([{ "name": "one" }]), PATIENCE)
        .await;
    let failed = failed.expect_err("fails");
    assert_eq!(failed.kind(), ErrorKind::Invalid);
    assert_eq!(failed.to_string(), "cpu: Input should be a valid string");
    server.abort();
}

#[tokio::test]
async fn reads_are_tried_again_and_changes_are_not() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let (port, server) = serve(move |index, mut peer| {
        let calls = counted.clone();
        async move {
            while let Some(call) = peer.call_after_login().await {
                calls.fetch_add(1, Ordering::Relaxed);
                if index == 1 {
                    peer.answer(&call, json!("fine")).await;
                } else {
                    return;
                }
            }
        }
    })
    .await;
    let client = client(port);
    let read: String = client.read("system.version", json!([])).await.expect("is tried again");
    assert_eq!(read, "fine");
    client.close().await;
    let before = calls.load(Ordering::Relaxed);
    let changed = client.change("pool.dataset.create", json!([])).await;
    assert_eq!(changed.expect_err("lost").kind(), ErrorKind::Unreachable);
    assert_eq!(calls.load(Ordering::Relaxed), before + 1);
    server.abort();
}

#[tokio::test]
async fn a_silent_connection_is_pinged_and_given_up() {
    let (port, server) = serve(|index, mut peer| async move {
        let Some(call) = peer.call_after_login().await else {
            return;
        };
        if index == 0 {
            // Nothing is read any more, so no ping is answered.
            tokio::time::sleep(Duration::from_secs(60)).await;
        } else {
            peer.answer(&call, json!("fine")).await;
            // Pings are answered while it is read.
            let _ = tokio::time::timeout(Duration::from_millis(500), peer.call()).await;
            assert!(peer.pings > 2);
            peer.call().await;
        }
    })
    .await;
    let rhythm = Rhythm {
        ping: Duration::from_millis(50),
        silence: Duration::from_millis(300),
    };
    let client = Client::paced(Address::new("127.0.0.1", port, None), login(), rhythm);
    let read: String = client
        .read("system.version", json!([]))
        .await
        .expect("another connection");
    assert_eq!(read, "fine");
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(
        client
            .connection
            .lock()
            .await
            .as_ref()
            .is_some_and(|connection| connection.is_open())
    );
    server.abort();
}

#[tokio::test]
async fn what_logging_in_answers_is_told_and_the_key_is_not() {
    for (answer, words) in [
        ("AUTH_ERR", "do not go together"),
        ("EXPIRED", "expired"),
        ("OTP_REQUIRED", "one-time password"),
        ("REDIRECT", "another one"),
        ("NEW_WORD", "NEW_WORD"),
    ] {
        let (port, server) = serve(move |_, mut peer| async move {
            while let Some(call) = peer.call().await {
                assert_eq!(call.method, "auth.login_ex");
                assert_eq!(call.params[0]["api_key"], KEY);
                peer.answer(&call, json!({ "response_type": answer, "user_info": null }))
                    .await;
            }
        })
        .await;
        let client = client(port);
        let error = client
            .read::<Value>("system.version", json!([]))
            .await
            .expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Unauthorised, "{answer}");
        assert!(error.to_string().contains(words), "{error}");
        assert!(!everything(&error).contains("thesecretkey"));
        assert!(!format!("{client:?}").contains("thesecretkey"));
        server.abort();
    }
}

fn everything(error: &Error) -> String {
    format!("{error} {error:?} {:?}", error.hint())
}

#[tokio::test]
async fn a_message_that_is_too_long_is_not_sent() {
    let (port, server) = serve(|_, mut peer| async move {
        while let Some(call) = peer.call_after_login().await {
            assert_ne!(call.method, "virt.instance.update");
            peer.answer(&call, json!("fine")).await;
        }
    })
    .await;
    let client = client(port);
    let long = json!(["one", { "environment": { "A": "x".repeat(70_000) } }]);
    let error = client.change("virt.instance.update", long).await.expect_err("too long");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    // The connection is as good as before.
    let read: String = client.read("system.version", json!([])).await.expect("answers");
    assert_eq!(read, "fine");
    server.abort();
}

#[tokio::test]
async fn the_key_is_not_sent_in_the_clear_to_another_machine() {
    // An address of this machine that is not its loopback.
    let outward = std::net::UdpSocket::bind("0.0.0.0:0").expect("a socket");
    outward.connect("192.0.2.1:9").ok();
    let Ok(address) = outward.local_addr().map(|address| address.ip()) else {
        return;
    };
    if address.is_loopback() || address.is_unspecified() {
        return;
    }
    let listener = TcpListener::bind((address, 0)).await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let client = Client::new(Address::new(&address.to_string(), port, None), login());
    let heard = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("connects");
        let mut heard = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut heard).await.ok();
        heard
    });
    let error = client
        .read::<Value>("system.version", json!([]))
        .await
        .expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Unauthorised);
    assert_eq!(heard.await.expect("hears"), Vec::<u8>::new());
}
