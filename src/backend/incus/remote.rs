//! The incus client's own configuration: its remotes and certificates.
//!
//! Source: the incus client's `config.yml`, `client.crt`, `client.key`, `clientcerts/` and `servercerts/`, as
//! its manual describes them. They are read, never written.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::backend::{Error, ErrorKind, Result};

/// The languages that servers speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Incus,
    Simplestreams,
}

/// One server that the client knows.
#[derive(Debug, Clone)]
pub(super) struct Remote {
    pub(super) addr: String,
    pub(super) protocol: Protocol,
    /// Shows its images to everybody.
    pub(super) public: bool,
    pub(super) project: Option<String>,
    /// Its pinned certificate, PEM.
    pub(super) certificate: Option<String>,
}

/// The servers that the client knows, and its folder.
#[derive(Debug, Default)]
pub(super) struct Remotes {
    folder: Option<PathBuf>,
    file: File,
    /// The remote that this very connection leads to.
    here: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct File {
    #[serde(default)]
    remotes: BTreeMap<String, Entry>,
}

#[derive(Debug, Deserialize)]
struct Entry {
    #[serde(default)]
    addr: String,
    #[serde(default)]
    protocol: String,
    #[serde(default)]
    auth_type: String,
    #[serde(default)]
    project: String,
    #[serde(default)]
    public: bool,
}

/// The server that the incus client knows as `images` before anybody has configured it (Incus manual, "Remote
/// image servers").
const IMAGES: (&str, &str) = ("images", "https://images.linuxcontainers.org");

impl Remotes {
    /// Reads the client's configuration. No folder, or none with a `config.yml`, is no error: then there are no
    /// remotes.
    pub(super) async fn read(folder: Option<&Path>) -> Result<Self> {
        let Some(folder) = folder else {
            return Ok(Self::default());
        };
        let path = folder.join("config.yml");
        let text = match tokio::fs::read_to_string(&path).await {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(unreadable(&path).with_source(error)),
        };
        let mut file = if text.trim().is_empty() {
            File::default()
        } else {
            serde_yaml::from_str::<File>(&text).map_err(|error| unreadable(&path).with_source(error))?
        };
        file.remotes.entry(IMAGES.0.to_owned()).or_insert_with(|| Entry {
            addr: IMAGES.1.to_owned(),
            protocol: "simplestreams".to_owned(),
            auth_type: String::new(),
            project: String::new(),
            public: true,
        });
        Ok(Self {
            folder: Some(folder.to_owned()),
            file,
            here: None,
        })
    }

    /// Remembers which remote this connection leads to.
    pub(super) fn stand_at(&mut self, name: Option<&str>) {
        self.here = name.map(str::to_owned);
    }

    /// Whether the name means the daemon that we are connected to.
    pub(super) fn is_here(&self, name: &str) -> bool {
        match &self.here {
            Some(here) => here == name,
            None => name == "local",
        }
    }

    /// The names of those that show images to everybody.
    pub(super) fn image_servers(&self) -> Vec<&str> {
        let servers = self
            .file
            .remotes
            .iter()
            .filter(|(_, entry)| entry.public || entry.protocol == "simplestreams");
        servers.map(|(name, _)| name.as_str()).collect()
    }

    /// One remote.
    pub(super) fn get(&self, name: &str) -> Result<Remote> {
        let entry = self.file.remotes.get(name).ok_or_else(|| {
            let known: Vec<_> = self.file.remotes.keys().map(String::as_str).collect();
            let missing = Error::not_found(format!("the incus client knows no remote `{name}`"));
            missing.with_hint(match self.folder {
                None => "where its configuration lies is not known".to_owned(),
                Some(_) => format!("it knows: {}", known.join(", ")),
            })
        })?;
        let protocol = match entry.protocol.as_str() {
            "incus" | "" => Protocol::Incus,
            "simplestreams" => Protocol::Simplestreams,
            other => return Err(Error::unsupported(format!("the remote `{name}` speaks `{other}`"))),
        };
        if !entry.public && !matches!(entry.auth_type.as_str(), "tls" | "") {
            return Err(Error::unsupported(format!(
                "the remote `{name}` wants authentication by `{}`",
                entry.auth_type
            ))
            .with_hint("a client certificate is the only way that is known here"));
        }
        let certificate = match self.pin(name) {
            Some(pin) => {
                let text = std::fs::read_to_string(&pin);
                Some(text.map_err(|error| unreadable(&pin).with_source(error))?)
            }
            None => None,
        };
        Ok(Remote {
            addr: entry.addr.clone(),
            protocol,
            public: entry.public,
            project: Some(entry.project.clone()).filter(|project| !project.is_empty()),
            certificate,
        })
    }

    /// The file with a remote's pinned certificate, where there is one.
    pub(super) fn pin(&self, name: &str) -> Option<PathBuf> {
        self.existing(&format!("servercerts/{name}.crt"))
    }

    /// The files with the certificate and key that a remote knows us by.
    pub(super) fn identity(&self, name: &str) -> Option<(PathBuf, PathBuf)> {
        let pair = |stem: &str| {
            Some((
                self.existing(&format!("{stem}.crt"))?,
                self.existing(&format!("{stem}.key"))?,
            ))
        };
        pair(&format!("clientcerts/{name}")).or_else(|| pair("client"))
    }

    fn existing(&self, relative: &str) -> Option<PathBuf> {
        let path = self.folder.as_ref()?.join(relative);
        path.is_file().then_some(path)
    }
}

fn unreadable(path: &Path) -> Error {
    Error::new(ErrorKind::Invalid, format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn remotes_are_read_as_the_client_writes_them() {
        let folder = tempfile::tempdir().expect("a folder");
        let text = "default-remote: far\nremotes:\n  far:\n    addr: https://192.0.2.1:8443\n    auth_type: tls\n    \
                    project: team\n    protocol: incus\n    public: false\n  web:\n    addr: https://example.com\n    \
                    protocol: simplestreams\n    public: true\n  sso:\n    addr: https://192.0.2.2\n    auth_type: \
                    oidc\naliases: {}\n";
        std::fs::write(folder.path().join("config.yml"), text).expect("written");
        std::fs::create_dir(folder.path().join("servercerts")).expect("made");
        std::fs::write(folder.path().join("servercerts/far.crt"), "pem").expect("written");
        let remotes = Remotes::read(Some(folder.path())).await.expect("remotes");
        let far = remotes.get("far").expect("known");
        assert_eq!((far.addr.as_str(), far.public), ("https://192.0.2.1:8443", false));
        assert_eq!(far.project.as_deref(), Some("team"));
        assert_eq!(far.certificate.as_deref(), Some("pem"));
        assert_eq!(remotes.get("web").expect("known").protocol, Protocol::Simplestreams);
        assert_eq!(remotes.get("sso").expect_err("refused").kind(), ErrorKind::Unsupported);
        assert_eq!(remotes.get("none").expect_err("unknown").kind(), ErrorKind::NotFound);
        assert!(remotes.identity("far").is_none());
    }

    #[tokio::test]
    async fn no_configuration_is_no_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let remotes = Remotes::read(Some(folder.path())).await.expect("none");
        assert!(remotes.is_here("local"));
        assert_eq!(
            remotes.get("images").expect("the client's own").protocol,
            Protocol::Simplestreams
        );
        assert_eq!(remotes.get("other").expect_err("unknown").kind(), ErrorKind::NotFound);
    }
}
