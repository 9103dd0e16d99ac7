//! What a look at a backend finds, for `doctor`.

use super::Error;
use crate::model::Capabilities;

/// How well one thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// As it should be.
    Good,
    /// Not there, and sandboxes can be made without it.
    Lacking,
    /// Without it there are no sandboxes.
    Broken,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What: a few words.
    pub what: &'static str,
    /// How it is.
    pub health: Health,
    /// What was found.
    pub said: String,
    /// What to do about it, where there is something to do.
    pub hint: Option<String>,
}

impl Finding {
    /// Something is well.
    #[must_use]
    pub fn good(what: &'static str, said: impl Into<String>) -> Self {
        Self {
            what,
            health: Health::Good,
            said: said.into(),
            hint: None,
        }
    }

    /// Something that could be of use is not there.
    #[must_use]
    pub fn lacking(what: &'static str, said: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            health: Health::Lacking,
            hint: Some(hint.into()),
            ..Self::good(what, said)
        }
    }

    /// Something that is needed does not work.
    #[must_use]
    pub fn broken(what: &'static str, error: &Error) -> Self {
        let mut said = error.to_string();
        let mut cause = std::error::Error::source(error);
        while let Some(next) = cause {
            let text = next.to_string();
            if !said.contains(&text) {
                said.push_str(&format!(": {text}"));
            }
            cause = next.source();
        }
        Self {
            health: Health::Broken,
            hint: error.hint().map(str::to_owned),
            ..Self::good(what, said)
        }
    }
}

/// All that a look has found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Examination {
    /// What answers, with its version; none where nothing does.
    pub answers: Option<String>,
    /// What it can do, as far as that is known.
    pub capabilities: Option<Capabilities>,
    /// What was looked at, in its order.
    pub findings: Vec<Finding>,
}

impl Examination {
    /// Whether sandboxes can be made.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.answers.is_some() && self.findings.iter().all(|finding| finding.health != Health::Broken)
    }
}
