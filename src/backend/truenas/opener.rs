//! From settings to a connection.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;

use super::TrueNas;
use super::auth::{ApiKey, Login};
use super::client::{Address, Client};
use super::dialect::Places;
use super::ssh::Doors;
use crate::backend::tls::{self, Trust};
use crate::backend::{Error, ErrorKind, Examination, Result, Sandboxes, Settings};

/// Opens [`TrueNas`] by its name, `truenas`.
#[derive(Debug, Clone, Copy)]
pub struct Opener;

const SETTINGS: &[(&str, &str)] = &[
    ("host", "the system's host name or address"),
    ("port", "its HTTPS port; 443 when there is none"),
    ("username", "the user that the API key belongs to"),
    ("pool", "pool of new sandboxes; the system's choice when there is none"),
    (
        "network",
        "interface or bridge that new sandboxes hang on: that of the default route when there is none, `default` for the \
         system's own bridge",
    ),
    (
        "nic",
        "`bridged` or `macvlan`; told by the interface when there is none",
    ),
    (
        "domain",
        "domain in which sandboxes are found by their names; by the addresses that the system tells when there is none",
    ),
    ("ssh-port", "port of the sandboxes' SSH servers; 22 when there is none"),
    ("api-key", "the API key; never from a spec"),
    ("api-key-file", "file with the API key; never from a spec"),
    (
        "server-certificate",
        "PEM file with the one certificate that it may show",
    ),
    ("insecure", "`true` to take any certificate; never from a spec"),
    ("plain", "`true` for no TLS, on this machine only; never from a spec"),
    (
        "host-from",
        "who has named the host: `spec` or `plan` where nobody else has",
    ),
];

/// The longest that a file with a key may be.
const LONGEST_KEY: u64 = 4096;

#[async_trait]
impl crate::backend::Opener for Opener {
    fn name(&self) -> &'static str {
        "truenas"
    }

    fn settings(&self) -> &'static [(&'static str, &'static str)] {
        SETTINGS
    }

    async fn open(&self, settings: &Settings) -> Result<Arc<dyn Sandboxes>> {
        Ok(Arc::new(TrueNas::open(settings).await?))
    }

    async fn examine(&self, settings: &Settings) -> Examination {
        super::examine::examine(settings).await
    }
}

impl TrueNas {
    /// Connects and logs in, and asks for the version.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for settings that make no sense, [`ErrorKind::Unauthorised`] where there is no key or it is
    /// refused, [`ErrorKind::Unreachable`] and [`ErrorKind::Unsupported`] for what answers, or does not.
    pub async fn open(settings: &Settings) -> Result<Self> {
        let setting = |key: &str| settings.get(key).map(String::as_str).filter(|value| !value.is_empty());
        let client = Self::client(settings).await?;
        let places = Places {
            pool: setting("pool").map(str::to_owned),
            network: setting("network").map(str::to_owned),
            nic: match setting("nic") {
                None | Some("bridged" | "macvlan") => setting("nic").map(str::to_owned),
                Some(other) => return Err(invalid(format!("`nic` is `bridged` or `macvlan`, and not `{other}`"))),
            },
        };
        let domain = setting("domain").map(|domain| domain.trim_matches('.').to_owned());
        Self::meet(client, places, Doors::new(domain), port(setting("ssh-port"), 22)?).await
    }

    /// A client that has sent nothing yet.
    pub(super) async fn client(settings: &Settings) -> Result<Client> {
        let setting = |key: &str| settings.get(key).map(String::as_str).filter(|value| !value.is_empty());
        let is_set = |key: &str| setting(key).is_some_and(|value| value == "true" || value == "1");
        let host = setting("host").ok_or_else(|| {
            invalid("no host is named".to_owned())
                .with_hint("say where TrueNAS is: `host` in the spec, `--host`, or SBX_HOST")
        })?;
        if host.contains(['/', '@', ' ']) {
            return Err(
                invalid(format!("`{host}` is no host name or address")).with_hint("leave out `https://` and paths")
            );
        }
        let loopback = host == "localhost"
            || host
                .parse::<std::net::IpAddr>()
                .is_ok_and(|address| address.is_loopback());
        if let Some(by) = setting("host-from").filter(|_| !loopback) {
            return Err(Error::new(
                ErrorKind::Unauthorised,
                format!("only the {by} says that your API key is for `{host}`"),
            )
            .with_hint(format!(
                "a {by} could send it anywhere: say so yourself, with `--host {host}` or SBX_HOST={host}"
            )));
        }
        let trust = match (is_set("insecure"), setting("server-certificate")) {
            (true, Some(_)) => {
                return Err(invalid("a pinned certificate and any certificate at once".to_owned())
                    .with_hint("take `insecure` out"));
            }
            (true, None) => Trust::Anybody,
            (false, pin) => Trust::of(pin.map(Path::new)),
        };
        let rules = match is_set("plain") {
            true => None,
            false => Some(tls::config(tls::Files { identity: None, trust })?),
        };
        let usual = if rules.is_some() { 443 } else { 80 };
        let login = Login {
            user: setting("username").map(str::to_owned),
            key: key(setting("api-key"), setting("api-key-file")).await?,
        };
        let address = Address::new(host, port(setting("port"), usual)?, rules);
        Ok(Client::new(address, login))
    }
}

async fn key(given: Option<&str>, file: Option<&str>) -> Result<ApiKey> {
    match (file, given) {
        (Some(file), _) => {
            let unreadable = || {
                Error::new(ErrorKind::Unauthorised, format!("cannot read the API key in {file}"))
                    .with_hint("the file holds the key and nothing else")
            };
            let metadata = tokio::fs::metadata(file).await;
            let metadata = metadata.map_err(|error| unreadable().with_source(error))?;
            if !metadata.is_file() || metadata.len() > LONGEST_KEY {
                return Err(unreadable());
            }
            let text = tokio::fs::read_to_string(file).await;
            ApiKey::new(&text.map_err(|error| unreadable().with_source(error))?)
        }
        (None, Some(key)) => ApiKey::new(key),
        (None, None) => Err(
            Error::new(ErrorKind::Unauthorised, "no API key for TrueNAS is given").with_hint(
                "make one in the system's web interface, under Credentials, and give it in SBX_TRUENAS_API_KEY, or in a \
                 file that `--api-key-file` names",
            ),
        ),
    }
}

fn port(text: Option<&str>, usual: u16) -> Result<u16> {
    match text {
        None => Ok(usual),
        Some(text) => text
            .parse()
            .ok()
            .filter(|port| *port > 0)
            .ok_or_else(|| invalid(format!("`{text}` is no port"))),
    }
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::Invalid, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn refused(pairs: &[(&str, &str)]) -> Error {
        let settings: Settings = pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        TrueNas::open(&settings).await.expect_err("refused")
    }

    #[tokio::test]
    async fn settings_that_make_no_sense_are_refused_before_anything_is_sent() {
        let key = ("api-key", "1-secretsecret");
        for (pairs, words) in [
            (vec![key], "no host"),
            (vec![("host", "nas.example")], "no API key"),
            (vec![("host", "https://nas.example"), key], "no host name"),
            (
                vec![("host", "nas.example"), ("host-from", "spec"), key],
                "only the spec says",
            ),
            (
                vec![("host", "nas.example"), ("host-from", "plan"), key],
                "only the plan says",
            ),
            (vec![("host", "nas.example"), ("port", "0"), key], "no port"),
            (
                vec![("host", "nas.example"), ("api-key", "secretsecret")],
                "has not the form",
            ),
            (
                vec![("host", "nas.example"), ("api-key-file", "/no/such")],
                "cannot read the API key",
            ),
            (
                vec![
                    ("host", "nas.example"),
                    ("insecure", "true"),
                    ("server-certificate", "/x"),
                    key,
                ],
                "at once",
            ),
        ] {
            let error = refused(&pairs).await;
            assert!(error.to_string().contains(words), "{error}");
            assert!(!format!("{error:?}").contains("secretsecret"), "{error:?}");
        }
    }
}
