//! Names, checked once when they are made.

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// Nothing at all.
    #[error("a name must not be empty")]
    Empty,
    /// A character outside `[a-z0-9-]`, or a first one outside `[a-z]`.
    #[error("a name is lower-case letters, digits and `-`, and starts with a letter")]
    Characters,
    /// More than 63 characters, the bound of a host name's label (RFC 1123, section 2.1).
    #[error("a name has at most 63 characters, this one has {0}")]
    Long(usize),
    /// A `-` at the end, which no host name may have (RFC 1123, section 2.1).
    #[error("a name must not end in `-`")]
    TrailingDash,
}

fn check(text: &str) -> Result<(), InvalidName> {
    let Some(first) = text.chars().next() else {
        return Err(InvalidName::Empty);
    };
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if !first.is_ascii_lowercase() || !text.chars().all(allowed) {
        return Err(InvalidName::Characters);
    }
    if text.len() > 63 {
        return Err(InvalidName::Long(text.len()));
    }
    if text.ends_with('-') {
        return Err(InvalidName::TrailingDash);
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// Checks and takes a name.
            ///
            /// # Errors
            /// When the text is empty, too long, ends in `-`, or has a character outside `[a-z0-9-]`.
            pub fn new(text: impl Into<String>) -> Result<Self, InvalidName> {
                let text = text.into();
                check(&text)?;
                Ok(Self(text))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl TryFrom<String> for $type {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, InvalidName> {
                Self::new(text)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> Self {
                name.0
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

name!(
    /// The name of an environment: what one spec describes, and the prefix of its instances.
    EnvironmentName
);
name!(
    /// The name of a sandbox in the spec, a count's number included: `base`, `task-1`.
    SandboxName
);
name!(
    /// The name of a snapshot: `ready`.
    SnapshotName
);
name!(
    /// The name of a run step: `install`.
    StepName
);

impl SandboxName {
    /// Orders as people count: `task-2` before `task-10`.
    #[must_use]
    pub fn in_natural_order(&self, other: &Self) -> Ordering {
        fn numbered(name: &str) -> (&str, Option<u64>) {
            let number = |(base, digits): (_, &str)| Some((base, Some(digits.parse().ok()?)));
            name.rsplit_once('-').and_then(number).unwrap_or((name, None))
        }
        numbered(&self.0).cmp(&numbered(&other.0)).then_with(|| self.cmp(other))
    }
}

/// The name of an instance on a backend. A sandbox's own is `<environment>-<sandbox>`; an adopted one keeps
/// what it had, so any text a backend accepts is possible here.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InstanceName(String);

impl InstanceName {
    /// The name that a sandbox of an environment gets.
    ///
    /// # Errors
    /// When the two together have more than 63 characters.
    pub fn of(environment: &EnvironmentName, sandbox: &SandboxName) -> Result<Self, InvalidName> {
        let text = format!("{environment}-{sandbox}");
        check(&text)?;
        Ok(Self(text))
    }

    /// A name read from a backend, taken as it is.
    #[must_use]
    pub fn observed(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InstanceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_host_name_label() {
        for good in ["a", "task-1", "a0", &"a".repeat(63)] {
            assert!(SandboxName::new(good).is_ok(), "{good}");
        }
        for (bad, why) in [
            ("", InvalidName::Empty),
            ("1a", InvalidName::Characters),
            ("A", InvalidName::Characters),
            ("a_b", InvalidName::Characters),
            ("a-", InvalidName::TrailingDash),
            (&"a".repeat(64), InvalidName::Long(64)),
        ] {
            assert_eq!(SandboxName::new(bad), Err(why), "{bad}");
        }
    }

    #[test]
    fn an_instance_name_is_bounded_as_a_whole() {
        let environment = EnvironmentName::new("e".repeat(40)).expect("a name");
        let short = SandboxName::new("s".repeat(22)).expect("a name");
        let long = SandboxName::new("s".repeat(23)).expect("a name");
        assert!(InstanceName::of(&environment, &short).is_ok());
        assert_eq!(InstanceName::of(&environment, &long), Err(InvalidName::Long(64)));
    }
}
