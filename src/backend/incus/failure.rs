//! What the daemon and the connection to it say when they fail, in our kinds.

use std::error::Error as StdError;
use std::io;

use crate::backend::{Error, ErrorKind};

/// Texts by which the daemon tells what its codes do not: failures inside operations mostly come as 500.
/// Observed on 6.0.4; the first that matches counts.
const TEXTS: [(&str, ErrorKind); 26] = [
    // When a network changes, the daemon looks at all devices of the machine, and stumbles over one that goes meanwhile.
    ("-j link show", ErrorKind::Busy),
    ("instance is busy", ErrorKind::Busy),
    ("is busy running", ErrorKind::Busy),
    ("forkfile.sock", ErrorKind::Busy),
    ("database is locked", ErrorKind::Busy),
    ("device or resource busy", ErrorKind::Busy),
    ("mac address", ErrorKind::Busy),
    ("unique constraint failed", ErrorKind::AlreadyExists),
    ("already exists", ErrorKind::AlreadyExists),
    ("already in use", ErrorKind::AlreadyExists),
    ("image not provided for instance creation", ErrorKind::NotFound),
    ("instance not found", ErrorKind::NotFound),
    ("snapshot not found", ErrorKind::NotFound),
    ("image not found", ErrorKind::NotFound),
    ("does not exist", ErrorKind::NotFound),
    ("doesn't exist", ErrorKind::NotFound),
    ("etag doesn't match", ErrorKind::Conflict),
    ("instance is not running", ErrorKind::Invalid),
    ("instance is running", ErrorKind::Invalid),
    ("unknown configuration key", ErrorKind::Invalid),
    ("invalid config", ErrorKind::Invalid),
    ("invalid value", ErrorKind::Invalid),
    ("invalid devices", ErrorKind::Invalid),
    ("failed shutting down", ErrorKind::Timeout),
    ("not authorized", ErrorKind::Unauthorised),
    ("daemon is shutting down", ErrorKind::Unreachable),
];

/// A failure that the daemon answered, by its code and words.
pub(super) fn answered(code: u16, message: &str) -> Error {
    let lower = message.to_lowercase();
    let by_text = TEXTS
        .iter()
        .find(|(text, _)| lower.contains(text))
        .map(|(_, kind)| *kind);
    let kind = match code {
        401 | 403 => ErrorKind::Unauthorised,
        404 => ErrorKind::NotFound,
        409 => ErrorKind::AlreadyExists,
        412 => ErrorKind::Conflict,
        423 | 429 | 503 => ErrorKind::Busy,
        501 => ErrorKind::Unsupported,
        400 => by_text.unwrap_or(ErrorKind::Invalid),
        _ => by_text.unwrap_or(ErrorKind::Failed),
    };
    let message = if message.is_empty() {
        format!("the daemon answered with code {code}")
    } else {
        message.to_owned()
    };
    Error::new(kind, message)
}

/// A failure to reach the daemon at `place`, or to hear its answer.
pub(super) fn unheard(error: reqwest::Error, place: &str) -> Error {
    let error = error.without_url();
    let (kind, hint) = if error.is_timeout() && !error.is_connect() {
        (ErrorKind::Timeout, None)
    } else if let Some(certificate) = cause::<rustls::Error>(&error) {
        match certificate {
            rustls::Error::InvalidCertificate(_) => (
                ErrorKind::Unauthorised,
                Some("its certificate is not the one that is trusted; if it was renewed, add the remote anew"),
            ),
            _ => (
                ErrorKind::Unauthorised,
                Some("the secure connection was refused; is the client's certificate trusted there?"),
            ),
        }
    } else if cause::<io::Error>(&error).is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied) {
        (
            ErrorKind::Unauthorised,
            Some(
                "only root and the socket's group may use it: add yourself to the group `incus-admin` and log in again",
            ),
        )
    } else if error.is_decode() {
        // What a body says is read elsewhere; here it has broken off.
        (
            ErrorKind::Unreachable,
            Some("the connection broke off; was the daemon ended, or started again?"),
        )
    } else {
        (
            ErrorKind::Unreachable,
            Some("is the daemon running, and is this where it listens?"),
        )
    };
    let what = match kind {
        ErrorKind::Timeout => "no answer in time from",
        ErrorKind::Unreachable if error.is_decode() => "no whole answer from",
        _ => "cannot reach",
    };
    let mut answer = Error::new(kind, format!("{what} Incus at {place}"));
    if let Some(hint) = hint {
        answer = answer.with_hint(hint);
    }
    answer.with_source(error)
}

/// The first cause of that type. An I/O error hides what it wraps from `source`, so it is opened here.
fn cause<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match inner {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_words_become_kinds() {
        for (code, message, kind) in [
            (404, "Instance not found", ErrorKind::NotFound),
            (403, "", ErrorKind::Unauthorised),
            (412, "Precondition failed", ErrorKind::Conflict),
            (
                500,
                "Failed creating instance record: Add instance info to the database: Failed to create \"instances\" \
                 entry: UNIQUE constraint failed: instances.project_id, instances.name",
                ErrorKind::AlreadyExists,
            ),
            (500, "Snapshot t1/nope does not exist", ErrorKind::NotFound),
            (400, "Instance is running", ErrorKind::Invalid),
            (500, "Instance is busy running a \"start\" operation", ErrorKind::Busy),
            (
                500,
                "Failed to run: ip -d -j link show veth1: exit status 1 (Device \"veth1\" does not exist.)",
                ErrorKind::Busy,
            ),
            (
                500,
                "Failed getting instance SFTP connection: dial unix /x/forkfile.sock: connect: no such file or \
                 directory",
                ErrorKind::Busy,
            ),
            (400, "Invalid limits.cpu", ErrorKind::Invalid),
            (500, "No space left on device", ErrorKind::Failed),
        ] {
            assert_eq!(answered(code, message).kind(), kind, "{code} {message}");
        }
    }
}
