//! The paths of fields, as plans show them and `ignore` takes them: `KIND[:NAME][.FIELD]`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What a change concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The sandbox itself: source, limits, environment variables, backend settings, user.
    Sandbox,
    /// A declared file.
    File,
    /// A declared tree.
    Tree,
    /// A volume.
    Volume,
    /// A mount.
    Mount,
    /// A published port.
    Port,
    /// The outbound network policy.
    Egress,
    /// A set-up step.
    Run,
    /// Whether it runs.
    Power,
    /// A snapshot.
    Snapshot,
}

impl Kind {
    /// Every kind, in the order in which plans list them.
    pub const ALL: [Self; 10] = [
        Self::Sandbox,
        Self::File,
        Self::Tree,
        Self::Volume,
        Self::Mount,
        Self::Port,
        Self::Egress,
        Self::Run,
        Self::Power,
        Self::Snapshot,
    ];

    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sandbox => "sandbox",
            Self::File => "file",
            Self::Tree => "tree",
            Self::Volume => "volume",
            Self::Mount => "mount",
            Self::Port => "port",
            Self::Egress => "egress",
            Self::Run => "run",
            Self::Power => "power",
            Self::Snapshot => "snapshot",
        }
    }

    /// The fields that a named object of this kind can have, where they are few and fixed.
    fn fixed_fields(self) -> &'static [&'static str] {
        match self {
            Self::File => &["content", "mode", "owner", "seed"],
            Self::Run => &["digest"],
            Self::Snapshot => &["exists", "recipe"],
            Self::Volume => &["path", "size"],
            Self::Mount => &["source", "readonly", "guarded"],
            Self::Port => &["host"],
            _ => &[],
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One comparable field of a sandbox.
///
/// Of [`Kind::Sandbox`] the name is empty and the field says all: `cpu`, `env:RUST_LOG`,
/// `config:limits.processes`. Of a tree the field is the path of an entry below it. An empty field stands,
/// in `ignore`, for every field of the object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Field {
    /// What it belongs to.
    pub kind: Kind,
    /// Which one of that kind: a path, a label, a name; empty for the sandbox, its power and its egress.
    pub name: String,
    /// Which of its fields.
    pub field: String,
}

impl Field {
    /// A field of the sandbox itself.
    #[must_use]
    pub fn sandbox(field: impl Into<String>) -> Self {
        Self {
            kind: Kind::Sandbox,
            name: String::new(),
            field: field.into(),
        }
    }

    /// A field of a named object.
    #[must_use]
    pub fn of(kind: Kind, name: impl Into<String>, field: impl Into<String>) -> Self {
        Self {
            kind,
            name: name.into(),
            field: field.into(),
        }
    }

    /// Whether this, read as an `ignore` pattern, means that field.
    #[must_use]
    pub fn covers(&self, field: &Self) -> bool {
        let parts =
            (self.name.is_empty() || self.name == field.name) && (self.field.is_empty() || self.field == field.field);
        // Where a tree's path ends and an entry's begins, only the whole tells.
        self.kind == field.kind && (parts || self.to_string() == field.to_string())
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.kind == Kind::Power {
            // It has one field only.
            return f.write_str(self.kind.as_str());
        }
        if self.kind == Kind::Sandbox && !self.field.is_empty() {
            return f.write_str(&self.field);
        }
        f.write_str(self.kind.as_str())?;
        if !self.name.is_empty() {
            write!(f, ":{}", self.name)?;
        }
        if !self.field.is_empty() {
            write!(f, ".{}", self.field)?;
        }
        Ok(())
    }
}

/// Why a text is no field path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a field is `KIND[:NAME][.FIELD]`, such as `file:/etc/hosts.mode`, `config:limits.memory` or `power`")]
pub struct ParseFieldError;

const SANDBOX_FIELDS: [&str; 9] = [
    "image",
    "clone-from",
    "source-recipe",
    "cpu",
    "memory",
    "disk",
    "user",
    "protect",
    "ttl",
];

/// Whether an egress policy has that field: `mode`, `allow:example.com:443/tcp`, `addresses:example.com`.
fn is_of_egress(field: &str) -> bool {
    let listed = ["allow:", "addresses:"];
    ["mode", "policy", "enforced"].contains(&field)
        || listed
            .iter()
            .any(|prefix| field.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty()))
}

impl FromStr for Field {
    type Err = ParseFieldError;

    fn from_str(text: &str) -> Result<Self, ParseFieldError> {
        if SANDBOX_FIELDS.contains(&text) {
            return Ok(Self::sandbox(text));
        }
        // What the language has its own words for is found by the backend's too.
        if let Some(word) = text
            .strip_prefix("config:limits.")
            .filter(|word| ["cpu", "memory"].contains(word))
        {
            return Ok(Self::sandbox(word));
        }
        if let Some(("env" | "config", name)) = text.split_once(':') {
            return if name.is_empty() {
                Err(ParseFieldError)
            } else {
                Ok(Self::sandbox(text))
            };
        }
        for kind in Kind::ALL {
            let Some(rest) = text.strip_prefix(kind.as_str()) else {
                continue;
            };
            if rest.is_empty() {
                return Ok(Self::of(kind, "", ""));
            }
            if let Some(field) = rest.strip_prefix('.') {
                let known = match kind {
                    Kind::Egress => is_of_egress(field),
                    Kind::Sandbox => SANDBOX_FIELDS.contains(&field),
                    _ => kind.fixed_fields().contains(&field),
                };
                return if known {
                    Ok(Self::of(kind, "", field))
                } else {
                    Err(ParseFieldError)
                };
            }
            let Some(named) = rest.strip_prefix(':') else { continue };
            if named.is_empty() || matches!(kind, Kind::Sandbox | Kind::Power | Kind::Egress) {
                return Err(ParseFieldError);
            }
            let split = kind.fixed_fields().iter().find_map(|field| {
                let name = named.strip_suffix(field)?.strip_suffix('.')?;
                (!name.is_empty()).then(|| Self::of(kind, name, *field))
            });
            return Ok(split.unwrap_or_else(|| Self::of(kind, named, "")));
        }
        Err(ParseFieldError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_read_as_they_print() {
        for text in [
            "cpu",
            "env:RUST_LOG",
            "config:limits.processes",
            "file:/etc/hosts",
            "file:/etc/hosts.mode",
            "file:/etc/a.conf.content",
            "power",
            "run:install.digest",
            "snapshot:ready",
            "snapshot:ready.recipe",
            "source-recipe",
            "tree:/srv/app",
            "egress",
            "egress.mode",
            "egress.allow:example.com:443/tcp",
            "egress.addresses:example.com",
        ] {
            assert_eq!(text.parse::<Field>().expect(text).to_string(), text);
        }
        for bad in ["", "cpus", "file:", "env:", "power:x", "nothing:x", "file.size"] {
            assert_eq!(bad.parse::<Field>(), Err(ParseFieldError), "{bad}");
        }
    }

    #[test]
    fn a_pattern_without_a_field_covers_all_of_them() {
        let mode = Field::of(Kind::File, "/etc/hosts", "mode");
        let entry = Field::of(Kind::Tree, "/srv/app", "sub/b.txt");
        assert!(entry.to_string().parse::<Field>().expect("a path").covers(&entry));
        assert_eq!("config:limits.memory".parse::<Field>(), Ok(Field::sandbox("memory")));
        for (pattern, covers) in [
            ("file:/etc/hosts", true),
            ("file", true),
            ("file:/etc/hosts.content", false),
            ("file:/etc/host", false),
        ] {
            assert_eq!(
                pattern.parse::<Field>().expect(pattern).covers(&mode),
                covers,
                "{pattern}"
            );
        }
    }
}
