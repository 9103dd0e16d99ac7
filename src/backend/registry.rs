//! Backends by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;

use super::{Error, ErrorKind, Examination, Finding, Reader, Result, Sandboxes, Settings};

/// Opens one kind of backend.
#[async_trait]
pub trait Opener: Send + Sync {
    /// The name by which specs ask for it.
    fn name(&self) -> &'static str;

    /// The settings that it takes, with a few words on each.
    fn settings(&self) -> &'static [(&'static str, &'static str)];

    /// Opens it. May read its own configuration files; must not change anything.
    async fn open(&self, settings: &Settings) -> Result<Arc<dyn Sandboxes>>;

    /// Looks whether it could be used, and what is missing, even where it cannot be opened. Changes nothing.
    async fn examine(&self, settings: &Settings) -> Examination {
        let answer = async {
            let backend = self.open(settings).await?;
            Ok((backend.describe().await?, backend.capabilities().clone()))
        };
        match answer.await {
            Ok((answers, capabilities)) => Examination {
                answers: Some(answers),
                capabilities: Some(capabilities),
                findings: Vec::new(),
            },
            Err(error) => Examination {
                findings: vec![Finding::broken("connection", &error)],
                ..Examination::default()
            },
        }
    }
}

/// The backends that a program knows.
#[derive(Default)]
pub struct Registry(BTreeMap<&'static str, Box<dyn Opener>>);

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

impl Registry {
    /// None.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// Every backend of this build.
    #[must_use]
    pub fn standard() -> Self {
        Self::empty()
            .with(super::incus::Opener)
            .with(super::local::Opener)
            .with(super::truenas::Opener)
    }

    /// Adds one.
    #[must_use]
    pub fn with(mut self, opener: impl Opener + 'static) -> Self {
        self.0.insert(opener.name(), Box::new(opener));
        self
    }

    /// Their names, ordered.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.keys().copied()
    }

    /// The keys of the settings that a backend takes; none for a name that is not known.
    pub fn settings(&self, name: &str) -> impl Iterator<Item = &'static str> {
        let opener = self.0.get(name);
        opener
            .into_iter()
            .flat_map(|opener| opener.settings().iter().map(|(key, _)| *key))
    }

    /// Opens a backend for changing.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] for a name or a setting that is not known, and whatever the backend says.
    pub async fn open(&self, name: &str, settings: &Settings) -> Result<Arc<dyn Sandboxes>> {
        self.opener(name, settings)?.open(settings).await
    }

    /// Looks whether a backend could be used, and what is missing.
    ///
    /// # Errors
    /// For a name or a setting that is not known, as [`Self::open`]; all else is a finding.
    pub async fn examine(&self, name: &str, settings: &Settings) -> Result<Examination> {
        Ok(self.opener(name, settings)?.examine(settings).await)
    }

    /// The opener of that name, for settings that it knows.
    fn opener(&self, name: &str, settings: &Settings) -> Result<&dyn Opener> {
        let opener = self.0.get(name).ok_or_else(|| {
            let known: Vec<_> = self.names().collect();
            Error::unsupported(format!("this build has no backend `{name}`")).with_hint(format!(
                "name one that it has, with `--backend` or in the spec: {}",
                known.join(", ")
            ))
        })?;
        let unknown = settings
            .keys()
            .find(|key| opener.settings().iter().all(|(known, _)| known != key));
        if let Some(key) = unknown {
            let known: Vec<_> = opener.settings().iter().map(|(known, _)| *known).collect();
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("the backend `{name}` has no setting `{key}`"),
            )
            .with_hint(format!("it has: {}", known.join(", "))));
        }
        Ok(&**opener)
    }

    /// Opens a backend for reading only: what comes back has no method that changes anything, and no way back to what
    /// it was made from.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn open_reader(&self, name: &str, settings: &Settings) -> Result<Arc<dyn Reader>> {
        Ok(self.open(name, settings).await?)
    }
}
