//! What the system says when it refuses, in our kinds.
//!
//! It says most of it in numbers: of JSON-RPC, of the operating system (`errno`), and some of its own. Not-found hides in
//! a refusal of parameters whose own number is "invalid", so the numbers of its details are looked at first. Words count
//! only where the number says nothing: those are ZFS's, and Incus's, which the system passes on.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::backend::truenas::convert::Carried;
use crate::backend::{Error, ErrorKind, Objection};
use crate::model::Field;

/// The parameters that say how an instance is to be.
const INSTANCES: [&str; 4] = [
    "virt_instance_create",
    "virt_instance_update",
    "container_create",
    "container_update",
];

/// JSON-RPC: there is no such method.
const NO_METHOD: i64 = -32601;
/// The system's own: more calls at once than it takes.
const TOO_MANY: i64 = -32000;

/// The system's own: nobody is logged in any more.
const LOGGED_OUT: i64 = 207;

/// The cause of a refusal that logging in again would mend.
#[derive(Debug, thiserror::Error)]
#[error("TrueNAS wants its caller to log in again")]
pub(super) struct LoggedOut;

/// Whether a call was refused, and not begun, because nobody is logged in any more.
pub(super) fn is_logged_out(error: &Error) -> bool {
    std::error::Error::source(error).is_some_and(|cause| cause.is::<LoggedOut>())
}

/// An answer that is none.
#[derive(Debug, Deserialize)]
pub(super) struct Refusal {
    code: i64,
    #[serde(default)]
    message: String,
    data: Option<Details>,
}

#[derive(Debug, Default, Deserialize)]
struct Details {
    error: Option<i64>,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    extra: Value,
}

impl Details {
    /// Whether logging in again would help. For a session that has run out there is no number of its own.
    fn is_logged_out(&self) -> bool {
        let reason = self.reason.as_deref().unwrap_or_default();
        self.error == Some(LOGGED_OUT) || (self.error == Some(13) && reason.contains("Session is expired"))
    }
}

impl Refusal {
    /// As the backend's error.
    pub(super) fn into_error(self) -> Error {
        match (self.code, self.data) {
            (NO_METHOD, _) => Error::unsupported("this version of TrueNAS has no such method")
                .with_hint("TrueNAS 25.04, 25.10 and 26 are known; `sbx-apply doctor` says which one answers"),
            (TOO_MANY, _) => Error::new(ErrorKind::Busy, "TrueNAS has too many calls to answer at once"),
            (_, Some(details)) if details.is_logged_out() => {
                Error::new(ErrorKind::Unauthorised, "nobody is logged in any more").with_source(LoggedOut)
            }
            (_, Some(details)) => error(
                details.error,
                details.reason.as_deref().unwrap_or(&self.message),
                &details.extra,
            ),
            (_, None) => Error::new(ErrorKind::Failed, said(&self.message)),
        }
    }
}

/// An error by its number, its words, and what was wrong with each parameter: `[[path, words, number], …]`.
pub(super) fn error(number: Option<i64>, reason: &str, extra: &Value) -> Error {
    let wrong: Vec<(&str, &str, Option<i64>)> = extra
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let path = entry.get(0).and_then(Value::as_str).unwrap_or_default();
            Some((path, entry.get(1)?.as_str()?, entry.get(2).and_then(Value::as_i64)))
        })
        .collect();
    let mut of_details = wrong.iter().filter_map(|(_, words, number)| kind(*number, words));
    let kind = of_details
        .find(|kind| *kind != ErrorKind::Invalid)
        .or_else(|| (!wrong.is_empty()).then_some(ErrorKind::Invalid))
        .or_else(|| kind(number, reason))
        .unwrap_or(ErrorKind::Failed);
    let words = match wrong.is_empty() {
        true => said(reason),
        false => {
            let wrong: Vec<String> = wrong.iter().map(|(path, words, _)| place(path, words)).collect();
            wrong.join("; ")
        }
    };
    Error::new(kind, words).with_objections(
        wrong
            .iter()
            .filter_map(|(path, words, _)| objection(path, words))
            .collect(),
    )
}

/// What of an instance a parameter's path is about; none where it is about none.
fn objection(path: &str, words: &str) -> Option<Objection> {
    let (parameter, path) = path.split_once('.')?;
    let mut parts = path.split('.');
    let field = match parts.next()? {
        _ if !INSTANCES.contains(&parameter) => return None,
        "image" => Some("image".to_owned()),
        "cpu" | "cpuset" => Some("cpu".to_owned()),
        "memory" => Some("memory".to_owned()),
        "environment" | "initenv" => parts.next().and_then(|name| {
            // Where labels stand, too, and not every variable by its own name.
            let variable = BTreeMap::from([(name.to_owned(), String::new())]);
            let (name, _) = Carried::read(&variable).env.pop_first()?;
            Some(format!("env:{name}"))
        }),
        _ => None,
    };
    Some(Objection {
        field: field.map(Field::sandbox),
        words: words.trim_end().to_owned(),
    })
}

/// The kind that a number or, where it says little, words stand for.
fn kind(number: Option<i64>, words: &str) -> Option<ErrorKind> {
    match number {
        Some(2) => Some(ErrorKind::NotFound),
        Some(17) => Some(ErrorKind::AlreadyExists),
        Some(11 | 16) => Some(ErrorKind::Busy),
        Some(1 | 13 | 207) => Some(ErrorKind::Unauthorised),
        Some(95 | 201) => Some(ErrorKind::Unsupported),
        Some(110) => Some(ErrorKind::Timeout),
        Some(22) => by_words(words).or(Some(ErrorKind::Invalid)),
        _ => by_words(words),
    }
}

/// Where all that the number says is that something is wrong.
fn by_words(words: &str) -> Option<ErrorKind> {
    const WORDS: [(&str, ErrorKind); 12] = [
        ("already exists", ErrorKind::AlreadyExists),
        ("dataset is busy", ErrorKind::Busy),
        ("resource busy", ErrorKind::Busy),
        ("device busy", ErrorKind::Busy),
        ("instance is busy", ErrorKind::Busy),
        ("is busy running", ErrorKind::Busy),
        ("database is locked", ErrorKind::Busy),
        ("dataset does not exist", ErrorKind::NotFound),
        ("could not find any snapshots", ErrorKind::NotFound),
        ("instance not found", ErrorKind::NotFound),
        ("image not found", ErrorKind::NotFound),
        ("couldn't be found", ErrorKind::NotFound),
    ];
    let lower = words.to_lowercase();
    let found = WORDS.iter().find(|(words, _)| lower.contains(words));
    found.map(|(_, kind)| *kind)
}

/// What was wrong with a parameter, by the word that a spec has for it.
fn place(path: &str, words: &str) -> String {
    // Before the first dot stands the name that the system has for the whole parameter.
    let field = path.split_once('.').map_or("", |(_, field)| field);
    let field = match field {
        "image.name" | "image.version" => "image",
        "cpuset" => "cpu",
        field => field,
    };
    let words = words.trim_end();
    match field.strip_prefix("environment.").or(field.strip_prefix("initenv.")) {
        Some(name) => format!("env {name}: {words}"),
        None if field.is_empty() => words.to_owned(),
        None => format!("{field}: {words}"),
    }
}

/// Words without the name of the number before them, on one line.
fn said(reason: &str) -> String {
    let reason = reason.trim();
    let without = reason
        .strip_prefix("[E")
        .and_then(|rest| rest.split_once("] "))
        .map_or(reason, |(_, words)| words);
    let lines: Vec<&str> = without.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    match lines.is_empty() {
        true => "TrueNAS does not say why".to_owned(),
        false => lines.join(" "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Error {
        serde_json::from_str::<Refusal>(text).expect("a refusal").into_error()
    }

    #[test]
    fn not_found_is_told_by_the_numbers_of_the_details() {
        let error = read(
            r#"{"code":-32602,"message":"Invalid params","data":{"error":22,"errname":"EINVAL","reason":
            "[ENOENT] None: VirtInstance px-a does not exist","trace":null,"extra":[[null,"VirtInstance px-a does not exist",2]]}}"#,
        );
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert_eq!(error.to_string(), "VirtInstance px-a does not exist");
    }

    #[test]
    fn numbers_become_kinds_and_parameters_words_of_the_spec() {
        for (text, kind, words) in [
            (
                r#"{"code":-32001,"message":"Method call error","data":{"error":17,"reason":"[EEXIST] Failed to snapshot x","extra":null}}"#,
                ErrorKind::AlreadyExists,
                "Failed to snapshot x",
            ),
            (
                r#"{"code":-32602,"message":"Invalid params","data":{"error":22,"reason":"[EINVAL] …\n","extra":
                [["virt_instance_create.memory","Cannot reserve more than physical memory",22],
                ["virt_instance_create.environment.A","too long",22]]}}"#,
                ErrorKind::Invalid,
                "memory: Cannot reserve more than physical memory; env A: too long",
            ),
            (
                r#"{"code":-32602,"message":"Invalid params","data":{"error":22,"reason":"","extra":
                [["virt_instance_create.name","Name 'x' already exists",null],["a.b","wrong",22]]}}"#,
                ErrorKind::AlreadyExists,
                "name: Name 'x' already exists; b: wrong",
            ),
            (
                r#"{"code":-32602,"message":"Invalid params","data":{"error":22,"reason":"","extra":
                [["virt_instance_create.name","Name 'x' already exists",22]]}}"#,
                ErrorKind::AlreadyExists,
                "name: Name 'x' already exists",
            ),
            (
                r#"{"code":-32601,"message":"Method does not exist"}"#,
                ErrorKind::Unsupported,
                "this version of TrueNAS has no such method",
            ),
            (
                r#"{"code":-32000,"message":"too many"}"#,
                ErrorKind::Busy,
                "TrueNAS has too many calls to answer at once",
            ),
            (
                r#"{"code":-32001,"message":"Method call error","data":{"error":14,"reason":"[EFAULT] Failed to delete dataset: cannot destroy 'a': dataset is busy"}}"#,
                ErrorKind::Busy,
                "Failed to delete dataset: cannot destroy 'a': dataset is busy",
            ),
            (
                r#"{"code":-32001,"message":"Method call error","data":{"error":13,"reason":"Not authorized"}}"#,
                ErrorKind::Unauthorised,
                "Not authorized",
            ),
            (r#"{"code":-32603,"message":"odd"}"#, ErrorKind::Failed, "odd"),
        ] {
            let error = read(text);
            assert_eq!((error.kind(), error.to_string().as_str()), (kind, words), "{text}");
        }
    }
}
