//! The form of messages: JSON-RPC 2.0, one in each text frame.

use serde::Deserialize;
use serde_json::{Value, json};

use super::failure::Refusal;
use super::job::Job;
use crate::backend::{Error, ErrorKind, Result};

/// The most characters of a message before logging in, after it, and where a file is in it.
const STRANGER: usize = 8_192;
const ORDINARY: usize = 65_536;
const FILE: usize = 2_097_152;
/// The one method that takes a file.
const TAKES_FILE: &str = "filesystem.file_receive";

/// What a system says.
#[derive(Debug)]
pub(super) enum Said {
    /// The answer to a call.
    Answer(u64, Result<Value>),
    /// A call that could not even be read was refused; nobody knows which.
    Refused(Error),
    /// A job has changed.
    Job(Box<Job>),
    /// Changes of jobs are told no more.
    Unsubscribed,
    /// Anything else.
    Other,
}

#[derive(Deserialize)]
struct Frame {
    #[serde(default)]
    id: Option<Value>,
    result: Option<Value>,
    error: Option<Refusal>,
    #[serde(default)]
    method: Option<String>,
    #[serde(default)]
    params: Value,
}

/// A call; an error where the server would close the connection over its length.
pub(super) fn call(id: u64, method: &str, params: &Value) -> Result<String> {
    let text = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }).to_string();
    let most = match method {
        TAKES_FILE => FILE,
        method if method.starts_with("auth.login") => STRANGER,
        _ => ORDINARY,
    };
    let count = text.chars().count();
    if count > most {
        return Err(Error::new(
            ErrorKind::Invalid,
            format!("`{method}` would need a message of {count} characters, and TrueNAS takes {most}"),
        )
        .with_hint(
            "labels, among them what was last applied, travel in it: declare fewer files in one sandbox, or a tree",
        ));
    }
    Ok(text)
}

/// Reads a message.
pub(super) fn read(text: &str) -> Said {
    let Ok(frame) = serde_json::from_str::<Frame>(text) else {
        return Said::Other;
    };
    if let Some(method) = frame.method {
        return event(&method, frame.params);
    }
    let outcome = match frame.error {
        Some(refusal) => Err(refusal.into_error()),
        None => Ok(frame.result.unwrap_or_default()),
    };
    match (frame.id.as_ref().and_then(Value::as_u64), outcome) {
        (Some(id), outcome) => Said::Answer(id, outcome),
        (None, Err(error)) => Said::Refused(error),
        (None, Ok(_)) => Said::Other,
    }
}

fn event(method: &str, mut params: Value) -> Said {
    let of_jobs = params.get("collection").and_then(Value::as_str) == Some(JOBS);
    match method {
        "notify_unsubscribed" if of_jobs => Said::Unsubscribed,
        "collection_update" if of_jobs => {
            let fields = params.get_mut("fields").map(Value::take).unwrap_or_default();
            serde_json::from_value(fields).map_or(Said::Other, |job| Said::Job(Box::new(job)))
        }
        _ => Said::Other,
    }
}

/// What is subscribed to, and the method that lists it.
pub(super) const JOBS: &str = "core.get_jobs";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_its_bound() {
        let room = |method: &str, length: usize| call(1, method, &json!(["x".repeat(length)])).is_ok();
        assert!(room("virt.instance.update", 65_000));
        assert!(!room("virt.instance.update", 65_536));
        assert!(room("filesystem.file_receive", 2_000_000));
        assert!(!room("filesystem.file_receive", 2_097_152));
        assert!(!room("auth.login_ex", 8_192));
        // Characters, and not bytes.
        assert!(call(1, "virt.instance.update", &json!(["\u{1f980}".repeat(60_000)])).is_ok());
    }

    #[test]
    fn what_is_said_is_told_apart() {
        assert!(matches!(
            read(r#"{"jsonrpc":"2.0","id":7,"result":null}"#),
            Said::Answer(7, Ok(Value::Null))
        ));
        let refused = r#"{"jsonrpc":"2.0","error":{"code":-32700,"message":"no JSON"},"id":null}"#;
        assert!(matches!(read(refused), Said::Refused(_)));
        let event = r#"{"jsonrpc":"2.0","method":"collection_update","params":{"msg":"added","collection":
            "core.get_jobs","id":3,"fields":{"id":3,"method":"virt.instance.create","state":"RUNNING"}}}"#;
        assert!(matches!(read(event), Said::Job(job) if job.id == 3));
        let gone =
            r#"{"jsonrpc":"2.0","method":"notify_unsubscribed","params":{"collection":"core.get_jobs","error":null}}"#;
        assert!(matches!(read(gone), Said::Unsubscribed));
        assert!(matches!(read("no JSON"), Said::Other));
    }
}
