//! From settings to a connection.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use reqwest::Url;
use rustix::fs::{Access, access};

use super::Incus;
use super::client::{Client, Endpoint};
use super::remote::{Protocol, Remotes};
use super::workspace::Host;
use crate::backend::tls::{self, Trust};
use crate::backend::{Error, ErrorKind, Examination, Result, Sandboxes, Settings};

/// Opens [`Incus`] by its name, `incus`.
#[derive(Debug, Clone, Copy)]
pub struct Opener;

const SETTINGS: &[(&str, &str)] = &[
    ("socket", "path of the daemon's unix socket"),
    ("remote", "name of a remote that the incus client knows"),
    ("project", "the project to work in"),
    (
        "profile",
        "profiles of new sandboxes, separated by commas; `default` when there is none",
    ),
    (
        "pool",
        "storage pool of new sandboxes; their profiles' when there is none",
    ),
    (
        "network",
        "network of new sandboxes; their profiles' when there is none",
    ),
    ("incus-dir", "the daemon's folder, with its unix socket"),
    ("config-dir", "the incus client's configuration folder"),
    (
        "url",
        "address of a daemon without an entry in the client's configuration",
    ),
    (
        "state",
        "folder beside which copies of guarded files are kept; as for local sandboxes",
    ),
    ("data", "the user's data folder"),
    (
        "client-certificate",
        "PEM file with the certificate that it knows us by",
    ),
    ("client-key", "PEM file with that certificate's key"),
    (
        "server-certificate",
        "PEM file with the one certificate that it may show",
    ),
];

/// Where daemons listen when nothing else is said.
const FOLDERS: [&str; 2] = ["/run/incus", "/var/lib/incus"];

#[async_trait]
impl crate::backend::Opener for Opener {
    fn name(&self) -> &'static str {
        "incus"
    }

    fn settings(&self) -> &'static [(&'static str, &'static str)] {
        SETTINGS
    }

    async fn open(&self, settings: &Settings) -> Result<Arc<dyn Sandboxes>> {
        let mut incus = Incus::open(settings).await?;
        incus.learn().await?;
        Ok(Arc::new(incus))
    }

    async fn examine(&self, settings: &Settings) -> Examination {
        super::examine::examine(settings).await
    }
}

impl Incus {
    /// Reads the configuration that the settings name and prepares a connection. Nothing is sent before the
    /// first call.
    ///
    /// # Errors
    /// [`ErrorKind::Unreachable`] when there is no socket, [`ErrorKind::NotFound`] for an unknown remote,
    /// [`ErrorKind::Invalid`] for files that cannot be read.
    pub async fn open(settings: &Settings) -> Result<Self> {
        let setting = |key: &str| settings.get(key).map(String::as_str).filter(|value| !value.is_empty());
        let mut remotes = Remotes::read(setting("config-dir").map(Path::new)).await?;
        let mut project = setting("project").map(str::to_owned);
        let endpoint = match (setting("socket"), setting("url"), setting("remote")) {
            (Some(path), None, None) => Endpoint::Socket(PathBuf::from(path)),
            (None, Some(url), None) => {
                let identity = setting("client-certificate").zip(setting("client-key"));
                let files = tls::Files {
                    identity: identity.map(|(certificate, key)| (Path::new(certificate), Path::new(key))),
                    trust: Trust::of(setting("server-certificate").map(Path::new)),
                };
                Endpoint::Https(address(url)?, tls::config(files)?)
            }
            (None, None, Some(name)) => {
                remotes.stand_at(Some(name));
                let (endpoint, theirs) = remote_endpoint(&remotes, name, setting("incus-dir"))?;
                project = project.or(theirs);
                endpoint
            }
            (None, None, None) => Endpoint::Socket(find_socket(setting("incus-dir"))?),
            _ => {
                return Err(Error::new(ErrorKind::Invalid, "where Incus is was said twice")
                    .with_hint("set one of `socket`, `remote` and `url`"));
            }
        };
        let project = project.filter(|project| project != "default");
        let profiles = setting("profile")
            .unwrap_or("default")
            .split(',')
            .map(|name| name.trim().to_owned());
        Ok(Self::new(
            Client::new(&endpoint, project)?,
            profiles.filter(|name| !name.is_empty()).collect(),
            setting("pool").map(str::to_owned),
            setting("network").map(str::to_owned),
            remotes,
            Host::of(settings),
        ))
    }
}

fn remote_endpoint(remotes: &Remotes, name: &str, incus_dir: Option<&str>) -> Result<(Endpoint, Option<String>)> {
    let remote = match remotes.get(name) {
        // The client has this one built in.
        Err(error) if error.kind() == ErrorKind::NotFound && name == "local" => {
            return Ok((Endpoint::Socket(find_socket(incus_dir)?), None));
        }
        remote => remote?,
    };
    if remote.protocol != Protocol::Incus {
        return Err(Error::unsupported(format!(
            "the remote `{name}` has images only, no sandboxes"
        )));
    }
    let endpoint = match remote.addr.strip_prefix("unix:") {
        Some(path) => match path.trim_start_matches("//") {
            "" => Endpoint::Socket(find_socket(incus_dir)?),
            path => Endpoint::Socket(PathBuf::from(path)),
        },
        None => {
            let pin = remotes.pin(name);
            let identity = remotes.identity(name).ok_or_else(|| {
                Error::new(
                    ErrorKind::Unauthorised,
                    format!("no client certificate for the remote `{name}`"),
                )
                .with_hint("make one with `incus remote generate-certificate`, and have it trusted there")
            })?;
            let files = tls::Files {
                identity: Some((&identity.0, &identity.1)),
                trust: Trust::of(pin.as_deref()),
            };
            Endpoint::Https(address(&remote.addr)?, tls::config(files)?)
        }
    };
    Ok((endpoint, remote.project))
}

fn address(text: &str) -> Result<Url> {
    let wrong = || Error::new(ErrorKind::Invalid, format!("`{text}` is no `https://` address"));
    let url = Url::parse(text).map_err(|error| wrong().with_source(error))?;
    if url.scheme() != "https" || url.host().is_none() {
        return Err(wrong());
    }
    Ok(url)
}

/// The first socket that can be used, else the first that is there: its refusal says more than a missing one.
fn find_socket(incus_dir: Option<&str>) -> Result<PathBuf> {
    let folders: Vec<&str> = match incus_dir {
        Some(folder) => vec![folder],
        None => FOLDERS.to_vec(),
    };
    // The second is for users with a project of their own.
    let candidates: Vec<PathBuf> = folders
        .iter()
        .flat_map(|folder| ["unix.socket", "unix.socket.user"].map(|name| Path::new(folder).join(name)))
        .collect();
    let usable = |path: &&PathBuf| access(path.as_path(), Access::READ_OK | Access::WRITE_OK).is_ok();
    let is_there = |path: &&PathBuf| access(path.as_path(), Access::EXISTS).is_ok();
    let found = candidates
        .iter()
        .find(usable)
        .or_else(|| candidates.iter().find(is_there));
    found.cloned().ok_or_else(|| {
        let looked: Vec<_> = candidates.iter().map(|path| path.display().to_string()).collect();
        Error::new(ErrorKind::Unreachable, "no Incus daemon on this machine").with_hint(format!(
            "looked for {}; install and start Incus, or say where it is with one of the settings `socket`, `remote` \
             and `url`",
            looked.join(", ")
        ))
    })
}
