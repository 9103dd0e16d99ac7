//! Finding the image that a spec names.

use super::Incus;
use super::remote::Protocol;
use super::wire::{Image, ImageAlias, Source};
use crate::backend::{Error, ErrorKind, Result};

/// The remote where unqualified names are looked for when the daemon does not know them.
const DEFAULT_REMOTE: &str = "images";

impl Incus {
    /// What to make an instance from: a local alias or fingerprint, else `REMOTE:alias`.
    pub(super) async fn image_source(&self, image: &str) -> Result<Source> {
        let parts = image
            .split_once(':')
            .filter(|(remote, alias)| !remote.is_empty() && !alias.is_empty());
        if let Some((remote, alias)) = parts {
            if self.remotes.is_here(remote) {
                return self
                    .local(alias)
                    .await?
                    .ok_or_else(|| Error::not_found(format!("no image `{alias}` at {}", self.client.place())));
            }
            return self.elsewhere(remote, alias);
        }
        if let Some(source) = self.local(image).await? {
            return Ok(source);
        }
        match self.elsewhere(DEFAULT_REMOTE, image) {
            Ok(source) => Ok(source),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(Error::not_found(format!(
                "no image `{image}`: neither an alias nor a fingerprint at {} (project {}), and no remote \
                 `{DEFAULT_REMOTE}` to look at",
                self.client.place(),
                self.client.project()
            ))
            .with_hint(format!(
                "import it under that alias, or add a remote with `incus remote add {DEFAULT_REMOTE} URL \
                 --protocol simplestreams`"
            ))),
            Err(error) => Err(error),
        }
    }

    async fn local(&self, image: &str) -> Result<Option<Source>> {
        let by_fingerprint = |fingerprint: String| Source {
            kind: "image",
            fingerprint: Some(fingerprint),
            ..Source::default()
        };
        let alias = self.client.url(["images", "aliases", image]);
        match self.client.get::<ImageAlias>(&alias).await {
            Ok((alias, _)) => return Ok(Some(by_fingerprint(alias.target))),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        if image.is_empty() || image.len() > 64 || !image.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Ok(None);
        }
        match self.client.get::<Image>(&self.client.url(["images", image])).await {
            Ok((image, _)) => Ok(Some(by_fingerprint(image.fingerprint))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// An image that the daemon fetches itself, from a server that the incus client knows.
    fn elsewhere(&self, name: &str, alias: &str) -> Result<Source> {
        let remote = self.remotes.get(name)?;
        if !remote.public && remote.protocol != Protocol::Simplestreams {
            return Err(
                Error::unsupported(format!("the remote `{name}` shows its images to its own clients only")).with_hint(
                    format!("copy the image first: `incus image copy {name}:{alias} local: --alias {alias}`"),
                ),
            );
        }
        Ok(Source {
            kind: "image",
            alias: Some(alias.to_owned()),
            mode: Some("pull"),
            protocol: Some(match remote.protocol {
                Protocol::Incus => "incus",
                Protocol::Simplestreams => "simplestreams",
            }),
            server: Some(remote.addr.clone()),
            certificate: remote.certificate,
            ..Source::default()
        })
    }
}
