//! A plain client of the API: it sends what it is told, and gives what comes back.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::sim::Sim;

/// One connection.
#[derive(Debug)]
pub(crate) struct Plain {
    socket: WebSocketStream<TcpStream>,
    number: u64,
    /// Notifications that came while an answer was waited for.
    pub(crate) events: Vec<Value>,
}

impl Plain {
    /// Connects to a path.
    pub(crate) async fn open(sim: &Sim, path: &str) -> Self {
        let stream = TcpStream::connect((sim.host(), sim.port())).await.expect("connects");
        let url = format!("ws://{}:{}{path}", sim.host(), sim.port());
        let (socket, _) = tokio_tungstenite::client_async(url, stream)
            .await
            .expect("shakes hands");
        Self {
            socket,
            number: 0,
            events: Vec::new(),
        }
    }

    /// Connects to the API, and does not log in.
    pub(crate) async fn anonymous(sim: &Sim) -> Self {
        Self::open(sim, "/api/current").await
    }

    /// Connects to the API and logs in.
    pub(crate) async fn connect(sim: &Sim) -> Self {
        let mut plain = Self::anonymous(sim).await;
        let answer = plain.log_in(sim).await;
        assert_eq!(answer["result"]["response_type"], "SUCCESS", "{answer}");
        plain
    }

    /// Logs in.
    pub(crate) async fn log_in(&mut self, sim: &Sim) -> Value {
        let login = json!({ "mechanism": "API_KEY_PLAIN", "username": sim.username(), "api_key": sim.key() });
        self.ask("auth.login_ex", json!([login])).await
    }

    /// Sends a text as it is.
    pub(crate) async fn send(&mut self, text: impl Into<String>) {
        self.socket.send(Message::text(text.into())).await.expect("sends");
    }

    /// Sends a message of another kind.
    pub(crate) async fn send_message(&mut self, message: Message) {
        self.socket.send(message).await.expect("sends");
    }

    /// The next message, whatever it is; none when the connection has ended without a word.
    pub(crate) async fn next(&mut self) -> Option<Message> {
        let next = tokio::time::timeout(Duration::from_secs(30), self.socket.next()).await;
        next.expect("something comes")?.ok()
    }

    /// The next text, as JSON.
    pub(crate) async fn next_json(&mut self) -> Value {
        loop {
            match self.next().await {
                Some(Message::Text(text)) => return serde_json::from_str(&text).expect("JSON"),
                Some(Message::Ping(_) | Message::Pong(_)) => {}
                other => panic!("no answer: {other:?}"),
            }
        }
    }

    /// The code and reason that the server closes with.
    pub(crate) async fn closed(&mut self) -> (u16, String) {
        loop {
            match self.next().await {
                Some(Message::Close(Some(frame))) => return (frame.code.into(), frame.reason.to_string()),
                Some(_) => {}
                None => return (1006, String::new()),
            }
        }
    }

    /// Sends a call without waiting for its answer, and gives its id.
    pub(crate) async fn begin(&mut self, method: &str, params: Value) -> u64 {
        self.number += 1;
        let id = self.number;
        let message = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        self.send(message.to_string()).await;
        id
    }

    /// Calls, and waits for the answer. Notifications are kept.
    pub(crate) async fn ask(&mut self, method: &str, params: Value) -> Value {
        let id = self.begin(method, params).await;
        self.answer(id).await
    }

    /// Waits for an answer.
    pub(crate) async fn answer(&mut self, id: u64) -> Value {
        loop {
            let message = self.next_json().await;
            if message.get("method").is_some() {
                self.events.push(message);
            } else if message["id"] == id {
                return message;
            }
        }
    }

    /// Calls what must succeed, and gives the result.
    ///
    /// # Panics
    /// When it fails.
    pub(crate) async fn call(&mut self, method: &str, params: Value) -> Value {
        let mut answer = self.ask(method, params).await;
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer["result"].take()
    }

    /// Calls what must fail, and gives the error.
    ///
    /// # Panics
    /// When it succeeds.
    pub(crate) async fn fail(&mut self, method: &str, params: Value) -> Value {
        let mut answer = self.ask(method, params).await;
        assert!(answer.get("error").is_some(), "{method}: {answer}");
        answer["error"].take()
    }

    /// Starts a job and waits for its end by asking. Gives the job.
    pub(crate) async fn job(&mut self, method: &str, params: Value) -> Value {
        let id = self.call(method, params).await;
        assert!(id.is_u64(), "{method} is no job: {id}");
        loop {
            let jobs = self.call("core.get_jobs", json!([[["id", "=", id]]])).await;
            let state = jobs[0]["state"].as_str().unwrap_or_default();
            if ["SUCCESS", "FAILED", "ABORTED"].contains(&state) {
                return jobs[0].clone();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Starts a job that must succeed, and gives its result.
    ///
    /// # Panics
    /// When it fails.
    pub(crate) async fn done(&mut self, method: &str, params: Value) -> Value {
        let job = self.job(method, params).await;
        assert_eq!(job["state"], "SUCCESS", "{job}");
        job["result"].clone()
    }
}
