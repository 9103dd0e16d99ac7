//! Messages: what is one, what it asks, and how it is answered.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::FutureExt as _;
use serde_json::{Value, json};

use super::check;
use super::failure::{Failure, errno};
use super::knobs::Cut;
use super::methods::{Call, Method};
use super::server::Server;
use super::session::{Closing, Session};
use crate::support::daemon;

/// The longest messages, in characters.
const ANONYMOUS: usize = 8192;
const NORMAL: usize = 65536;
const EXTENDED: usize = 2_097_152;

/// The methods whose messages may be long.
const LONG: [&str; 2] = ["filesystem.file_receive", "failover.datastore.sql"];

/// Calls that may run or wait on one connection.
const CALLS: usize = 20;

/// Takes one message. Says why the connection must be closed, if it must.
pub(super) fn receive(server: &Arc<Server>, session: &Arc<Session>, text: &str) -> Option<Closing> {
    let length = text.chars().count();
    let too_long = |code, reason: &str| {
        Some(Closing {
            code,
            reason: reason.to_owned(),
        })
    };
    if !session.state().authenticated && length > ANONYMOUS {
        return too_long(1007, "Anonymous connection max message length is 8 kB");
    }
    if length > EXTENDED {
        return too_long(1009, "Max message length is 64 kB");
    }
    let message: Value = match serde_json::from_str(text) {
        Ok(message) => message,
        Err(error) => {
            refuse(session, &Value::Null, -32700, &error.to_string());
            return None;
        }
    };
    let Value::Object(message) = message else {
        let text = match message {
            Value::Array(_) => "Batch messages are not supported at this time",
            _ => "Invalid Message Format",
        };
        refuse(session, &Value::Null, -32700, text);
        return None;
    };
    let long = message
        .get("method")
        .and_then(Value::as_str)
        .is_some_and(|method| LONG.contains(&method));
    if length > NORMAL && !long {
        return too_long(1009, "Max message length is 64 kB");
    }
    let id = message.get("id").cloned();
    if let Err(text) = validate(&message) {
        if let Some(id) = &id {
            refuse(session, id, -32600, text);
        }
        return None;
    }
    let name = message["method"].as_str().unwrap_or_default();
    let params = message
        .get("params")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    server.note(name, &params);
    let Some(method) = server.method(name) else {
        if let Some(id) = &id {
            refuse(session, id, -32601, "Method does not exist");
        }
        return None;
    };
    if session.calls.fetch_add(1, Ordering::SeqCst) >= CALLS {
        session.calls.fetch_sub(1, Ordering::SeqCst);
        if let Some(id) = &id {
            let text = format!("Maximum number of concurrent calls ({CALLS}) has exceeded");
            refuse(session, id, -32000, &text);
        }
        return None;
    }
    tokio::spawn(answer(server.clone(), session.clone(), method, id, params));
    None
}

fn refuse(session: &Session, id: &Value, code: i64, message: &str) {
    session.send(json!({ "jsonrpc": "2.0", "error": { "code": code, "message": message }, "id": id }));
}

fn validate(message: &serde_json::Map<String, Value>) -> Result<(), &'static str> {
    match message.get("jsonrpc") {
        None => return Err("Missing 'jsonrpc' member"),
        Some(version) if version != "2.0" => {
            return Err("'jsonrpc' member must be of type string and must be exactly '2.0'");
        }
        Some(_) => {}
    }
    let id = message.get("id");
    if id.is_some_and(|id| !(id.is_null() || id.is_string() || id.is_i64() || id.is_u64())) {
        return Err("'id' member must be of type null, string or number");
    }
    match message.get("method") {
        None => return Err("Missing 'method' member"),
        Some(method) if method.as_str().is_none_or(str::is_empty) => {
            return Err("'method' member must be of type string");
        }
        Some(_) => {}
    }
    match message.get("params") {
        Some(params) if !params.is_array() => Err("'params' member must be of type array"),
        _ => Ok(()),
    }
}

async fn answer(server: Arc<Server>, session: Arc<Session>, method: Method, id: Option<Value>, params: Vec<Value>) {
    let outcome = {
        let _running = session.running.acquire().await.expect("is never closed");
        let delay = server.knobs().delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let called = call(&server, &session, method, id.as_ref(), params);
        // Whoever asked must not wait for ever; what it said is with the test that started the simulation.
        AssertUnwindSafe(called).catch_unwind().await.unwrap_or_else(|_| {
            daemon::tell(&format!("the simulation has panicked in {}", method.name));
            Err(Failure::fault("the simulation has panicked"))
        })
    };
    session.calls.fetch_sub(1, Ordering::SeqCst);
    let Some(id) = id else { return };
    session.send(match outcome {
        Ok(result) => json!({ "jsonrpc": "2.0", "result": result, "id": id }),
        Err(failure) => json!({ "jsonrpc": "2.0", "error": failure.response(server.dialect), "id": id }),
    });
}

async fn call(
    server: &Arc<Server>,
    session: &Arc<Session>,
    method: Method,
    id: Option<&Value>,
    params: Vec<Value>,
) -> Result<Value, Failure> {
    authorize(server, session, method)?;
    if method.changes && server.take(|knobs| &mut knobs.busy) {
        return Err(Failure::busy());
    }
    if server.knobs().failing.contains(&method.name) {
        return Err(Failure::fault("fails as the test wants it"));
    }
    let Some(job) = method.job else {
        let params = check::accept(method.checker, method.params, params)?;
        let call = Call {
            server: server.clone(),
            session: session.clone(),
            params,
        };
        server.refuse(&method)?;
        return (method.run)(call).await;
    };
    let lock = job.lock.map(|lock| lock(&params)).transpose()?;
    let modern = session.state().modern_jobs;
    let cut = server.take(|knobs| &mut knobs.cut_jobs);
    let (number, mut ended) = server.submit(session, method, params, lock, id.filter(|_| modern))?;
    if cut {
        server.running(number).await;
        if server.knobs().cut == Cut::AfterAnswer
            && let Some(id) = id
        {
            session.send(json!({ "jsonrpc": "2.0", "result": number, "id": id }));
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        session.cut();
    }
    if modern || server.knobs().late_answers {
        // A sender that is gone has said its last.
        let _ = ended.wait_for(|ended| *ended).await;
    }
    if modern {
        return server.outcome(number);
    }
    Ok(json!(number))
}

fn authorize(server: &Server, session: &Session, method: Method) -> Result<(), Failure> {
    if method.open {
        return Ok(());
    }
    let limit = server.knobs().session_calls;
    let mut state = session.state();
    if !state.authenticated {
        return Err(Failure::call(errno::ENOTAUTHENTICATED, "Not authenticated"));
    }
    state.calls += 1;
    if limit.is_some_and(|limit| state.calls > limit) {
        return Err(Failure::call(errno::EACCES, "Session is expired"));
    }
    Ok(())
}
