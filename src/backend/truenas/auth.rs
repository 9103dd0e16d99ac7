//! Logging in with an API key.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::client::Connection;
use crate::backend::{Error, ErrorKind, Result};

/// How long logging in may take. A refusal comes after a second at least.
const PATIENCE: Duration = Duration::from_secs(60);

/// An API key. It is written nowhere but into the call that logs in.
#[derive(Clone)]
pub(super) struct ApiKey(String);

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey")
    }
}

impl ApiKey {
    /// A key as the system shows it once: a number, a dash, and letters and digits.
    ///
    /// # Errors
    /// When it has another form. The message does not hold it.
    pub(super) fn new(text: &str) -> Result<Self> {
        let text = text.trim();
        let good = text.split_once('-').is_some_and(|(number, secret)| {
            let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
            digits && !secret.is_empty() && secret.bytes().all(|byte| byte.is_ascii_graphic())
        });
        match good && text.len() <= 1024 {
            true => Ok(Self(text.to_owned())),
            false => Err(
                Error::new(ErrorKind::Unauthorised, "the API key has not the form of one").with_hint(
                    "it is what the system showed when it was made: a number, a dash, and 64 letters and digits",
                ),
            ),
        }
    }
}

/// Who logs in, and with what.
#[derive(Debug, Clone)]
pub(super) struct Login {
    /// The user that the key belongs to; where none is known, the system looks it up by the key's number.
    pub(super) user: Option<String>,
    /// The key.
    pub(super) key: ApiKey,
}

#[derive(Deserialize)]
struct Answer {
    response_type: String,
}

impl Login {
    /// Logs in on a fresh connection.
    pub(super) async fn log_in(&self, connection: &Connection) -> Result<()> {
        let Some(user) = &self.user else {
            let accepted = connection
                .ask("auth.login_with_api_key", &json!([self.key.0]), PATIENCE)
                .await?;
            return match accepted == Value::Bool(true) {
                true => Ok(()),
                false => Err(refused("the API key is wrong, expired or revoked")),
            };
        };
        let params = json!([{
            "mechanism": "API_KEY_PLAIN",
            "username": user,
            "api_key": self.key.0,
            "login_options": { "user_info": false },
        }]);
        let answer = connection.ask("auth.login_ex", &params, PATIENCE).await;
        let answer = answer.map_err(|error| match error.kind() {
            ErrorKind::Unsupported => refused("this system takes no API keys: its security settings ask for more"),
            _ => error,
        })?;
        let answer: Answer = serde_json::from_value(answer).map_err(|error| {
            Error::new(ErrorKind::Failed, "it cannot be told how logging in ended").with_source(error)
        })?;
        match answer.response_type.as_str() {
            "SUCCESS" => Ok(()),
            "AUTH_ERR" => Err(refused(format!("the user `{user}` and the API key do not go together"))),
            "EXPIRED" => Err(
                Error::new(ErrorKind::Unauthorised, "the API key has expired, or was revoked")
                    .with_hint("make a new one in the system's settings; a key that was sent in the clear is revoked"),
            ),
            "OTP_REQUIRED" => Err(Error::new(
                ErrorKind::Unauthorised,
                format!("the system asks `{user}` for a one-time password, which a program cannot give"),
            )
            .with_hint("use the key of a user without two-factor authentication")),
            "REDIRECT" => Err(Error::new(
                ErrorKind::Unauthorised,
                "the system sends its callers to another one to log in",
            )
            .with_hint("name the active controller's own address as `host`")),
            other => Err(refused(format!("it answers `{other}`"))),
        }
    }
}

fn refused(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::Unauthorised, why)
        .with_hint("make an API key in the system's web interface, under Credentials, for a user with full rights")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_shown_nowhere() {
        let key = ApiKey::new(" 7-secretsecret\n").expect("a key");
        let login = Login {
            user: Some("u".to_owned()),
            key,
        };
        assert!(!format!("{login:?}").contains("secretsecret"));
        for bad in ["", "secretsecret", "7-", "x-secretsecret", "7-a b"] {
            let error = ApiKey::new(bad).expect_err("is none");
            assert!(bad.is_empty() || !error.to_string().contains(bad));
        }
    }
}
