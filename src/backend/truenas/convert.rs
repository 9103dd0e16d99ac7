//! Between what TrueNAS keeps of an instance and the model. Nothing else knows both.
//!
//! There is one place that every version keeps for an instance and gives back with it: its environment variables. Labels
//! stand there beside what the spec declares, and so does what this backend has to remember, each cut into parts, because
//! a value has at most 1,024 characters. Inside, only pid 1 is given them; commands get what the spec declares.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::backend::{Error, ErrorKind, Result};
use crate::model::Labels;

/// Before every variable that is ours. What follows is a label's key, or, after one more `_`, a word of our own.
const OURS: &str = "SBX_APPLY_";
/// Before the name of a declared variable that cannot stand for itself: an empty one, or a long one.
const ODD: &str = "SBX_APPLY__ENV_";
/// The most characters of a part.
const PART: usize = 1_000;
/// Before a value that is written in base64.
const CODED: char = '%';

/// Names that the backend remembers something by.
pub(super) mod own {
    /// When it was made, in seconds since 1970.
    pub(in crate::backend::truenas) const CREATED: &str = "CREATED";
    /// The image that it was made from, as the spec named it.
    pub(in crate::backend::truenas) const IMAGE: &str = "IMAGE";
    /// The environment whose key opens it, as its notes are called.
    pub(in crate::backend::truenas) const KEY: &str = "KEY";
    /// Its SSH host key. Where there is none, nobody's command has run in it yet.
    pub(in crate::backend::truenas) const HOST_KEY: &str = "HOST_KEY";
}

/// What an instance carries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Carried {
    /// What the spec declares.
    pub(super) env: BTreeMap<String, String>,
    /// Labels.
    pub(super) labels: Labels,
    /// What the backend remembers, by [`own`].
    pub(super) own: BTreeMap<String, String>,
}

impl Carried {
    /// Reads an instance's variables.
    pub(super) fn read(variables: &BTreeMap<String, String>) -> Self {
        let mut carried = Self::default();
        let mut parts: BTreeMap<String, BTreeMap<usize, &str>> = BTreeMap::new();
        for (name, value) in variables {
            if name.starts_with(OURS) {
                let (name, part) = split_part(name);
                parts.entry(name.to_owned()).or_default().insert(part, value);
            } else {
                carried.env.insert(name.clone(), value.clone());
            }
        }
        for (name, parts) in parts {
            let text: String = parts.into_values().collect();
            let Some(value) = decode(&text) else { continue };
            if let Some(name) = name.strip_prefix(ODD) {
                carried.env.extend(plain(name).map(|name| (name, value)));
            } else if let Some(word) = name.strip_prefix("SBX_APPLY__") {
                carried.own.insert(word.to_owned(), value);
            } else if let Some(key) = name.strip_prefix(OURS) {
                carried.labels.0.extend(plain(key).map(|key| (key, value)));
            }
        }
        carried
    }

    /// The variables that carry it.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for what could do harm where it is written to, or would be taken for something of ours.
    pub(super) fn write(&self) -> Result<BTreeMap<String, String>> {
        let mut variables = BTreeMap::new();
        for (name, value) in &self.env {
            check_variable(name, value)?;
            match stands_for_itself(name, value) {
                true => drop(variables.insert(name.clone(), value.clone())),
                false => cut(&mut variables, &format!("{ODD}{}", coded_name(name)), value, "__"),
            }
        }
        for (key, value) in &self.labels.0 {
            if key.is_empty() || key.contains(char::is_control) || value.contains(char::is_control) {
                return Err(Error::new(
                    ErrorKind::Invalid,
                    format!("the label {key:?} has a control character"),
                ));
            }
            cut(&mut variables, &format!("{OURS}{}", coded_name(key)), value, "__");
        }
        for (word, value) in &self.own {
            cut(&mut variables, &format!("SBX_APPLY__{word}"), value, "__");
        }
        Ok(variables)
    }
}

/// Refuses what must not become a variable. Incus writes them into a file of lines; before 6.0.6, a newline in one
/// adds a line there, which can be a command for the host to run (CVE-2026-23953).
fn check_variable(name: &str, value: &str) -> Result<()> {
    let refuse = |message: String| Err(Error::new(ErrorKind::Invalid, message));
    if name.contains(char::is_control) || value.contains(char::is_control) {
        return refuse(format!(
            "the variable {name:?} has a control character, such as a newline"
        ));
    }
    if name.is_empty() || name.contains('=') {
        return refuse(format!("`{name}` is no environment variable"));
    }
    if name.starts_with(OURS) {
        return refuse(format!("the variable `{name}` is sbx-apply's own"));
    }
    Ok(())
}

fn stands_for_itself(name: &str, value: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphanumeric() || c == '_';
    name.chars().all(letter) && !value.trim().is_empty() && value.chars().count() <= PART
}

/// Puts a value in, in parts.
fn cut(into: &mut BTreeMap<String, String>, name: &str, value: &str, separator: &str) {
    let text = encode(value);
    // What is encoded is ASCII.
    for (index, part) in text.as_bytes().chunks(PART).enumerate() {
        let part = String::from_utf8_lossy(part).into_owned();
        let name = match index {
            0 => name.to_owned(),
            index => format!("{name}{separator}{index}"),
        };
        into.insert(name, part);
    }
}

/// The name without the number of its part, and that.
fn split_part(name: &str) -> (&str, usize) {
    let numbered = name
        .rsplit_once("__")
        .and_then(|(name, number)| Some((name, number.parse::<usize>().ok()?)));
    // The first part has none; a word of our own begins with two, and a declared variable's name of one letter, such as
    // `P`, is `_50`.
    numbered
        .filter(|(name, _)| name.len() > OURS.len() && Some(*name) != ODD.strip_suffix('_'))
        .unwrap_or((name, 0))
}

/// A value in printable ASCII that every part of is worth keeping: nowhere blank.
fn encode(value: &str) -> String {
    let printable = value.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    let blank = value
        .as_bytes()
        .chunks(PART)
        .any(|part| part.iter().all(|byte| *byte == b' ') || part.first() == Some(&b' ') || part.last() == Some(&b' '));
    match printable && !blank && !value.is_empty() && !value.starts_with(CODED) {
        true => value.to_owned(),
        false => format!("{CODED}{}", BASE64.encode(value)),
    }
}

fn decode(text: &str) -> Option<String> {
    match text.strip_prefix(CODED) {
        Some(coded) => String::from_utf8(BASE64.decode(coded).ok()?).ok(),
        None => Some(text.to_owned()),
    }
}

/// A key in capitals, digits and `_`: other bytes as `_` and two small hexadecimal digits.
fn coded_name(key: &str) -> String {
    let mut name = String::new();
    for byte in key.bytes() {
        match byte {
            b'a'..=b'z' => name.push(byte.to_ascii_uppercase().into()),
            b'0'..=b'9' => name.push(byte.into()),
            byte => name.push_str(&format!("_{byte:02x}")),
        }
    }
    name
}

/// [`coded_name`] back; none for what is none.
fn plain(name: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = name.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        match first {
            b'A'..=b'Z' => bytes.push(first.to_ascii_lowercase()),
            b'0'..=b'9' => bytes.push(*first),
            b'_' => {
                let (digits, after) = rest.split_at_checked(2)?;
                bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
                rest = after;
            }
            _ => return None,
        }
    }
    String::from_utf8(bytes).ok()
}

/// Before the key of a label in the properties of a snapshot or a dataset.
const PROPERTY: &str = "sbx-apply:";

/// Texts as user properties: `sbx-apply:KEY`, and `sbx-apply:KEY.N` for the parts after the first.
pub(super) fn properties<'a>(texts: impl IntoIterator<Item = (&'a String, &'a String)>) -> BTreeMap<String, String> {
    let mut properties = BTreeMap::new();
    for (key, value) in texts {
        cut(
            &mut properties,
            &format!("{PROPERTY}{}", property_name(key)),
            value,
            ".",
        );
    }
    properties
}

/// Whether a user property is one of ours.
pub(super) fn is_property(name: &str) -> bool {
    name.starts_with(PROPERTY)
}

/// The texts among user properties.
pub(super) fn texts<'a>(properties: impl IntoIterator<Item = (&'a String, &'a str)>) -> BTreeMap<String, String> {
    let mut parts: BTreeMap<&str, BTreeMap<usize, &str>> = BTreeMap::new();
    for (name, value) in properties {
        let Some(name) = name.strip_prefix(PROPERTY) else {
            continue;
        };
        let numbered = name
            .rsplit_once('.')
            .and_then(|(name, number)| Some((name, number.parse().ok()?)));
        let (name, part) = numbered.unwrap_or((name, 0));
        parts.entry(name).or_default().insert(part, value);
    }
    let texts = parts.into_iter().filter_map(|(name, parts)| {
        let text: String = parts.into_values().collect();
        Some((plain_property(name)?, decode(&text)?))
    });
    texts.collect()
}

/// A key as ZFS takes it: small letters, digits and `-`; other bytes as `_` and two hexadecimal digits.
fn property_name(key: &str) -> String {
    let mut name = String::new();
    for byte in key.bytes() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' => name.push(byte.into()),
            byte => name.push_str(&format!("_{byte:02x}")),
        }
    }
    name
}

fn plain_property(name: &str) -> Option<String> {
    let mut parts = name.split('_');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend(rest.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn what_is_carried_comes_back() {
        let long = "x ".repeat(3_000);
        let carried = Carried {
            env: map(&[
                ("A", "b"),
                ("EMPTY", ""),
                ("P", ""),
                ("Q", &long),
                ("BLANK", "  "),
                ("LONG", &long),
                ("odd.name-1", "é"),
                ("PERCENT", "%41"),
            ]),
            labels: Labels(map(&[
                ("environment", "demo"),
                ("applied", &"{\"größe\":1}".repeat(300)),
                ("a_b.c-D1", " x"),
                ("empty", ""),
            ])),
            own: map(&[("CREATED", "5"), ("HOST_KEY", "ssh-ed25519 AAAA")]),
        };
        let variables = carried.write().expect("writes");
        assert_eq!(variables["SBX_APPLY_ENVIRONMENT"], "demo");
        assert_eq!(variables["SBX_APPLY__CREATED"], "5");
        assert_eq!(variables["A"], "b");
        for (name, value) in &variables {
            assert!(!value.trim().is_empty() && value.chars().count() <= 1024, "{name}");
            assert!(
                name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'),
                "{name}"
            );
        }
        assert_eq!(Carried::read(&variables), carried);
    }

    #[test]
    fn what_could_do_harm_is_refused() {
        for (name, value) in [
            ("A", "a\nb"),
            ("A\n", "a"),
            ("", "a"),
            ("A=B", "a"),
            ("SBX_APPLY_SANDBOX", "a"),
        ] {
            let carried = Carried {
                env: map(&[(name, value)]),
                ..Carried::default()
            };
            assert_eq!(carried.write().expect_err(name).kind(), ErrorKind::Invalid, "{name:?}");
        }
        let carried = Carried {
            labels: Labels(map(&[("ttl", "1h\nx")])),
            ..Carried::default()
        };
        assert_eq!(carried.write().expect_err("refused").kind(), ErrorKind::Invalid);
    }

    #[test]
    fn properties_come_back() {
        let texts_of = map(&[
            ("applied", &"{\"a\":\"é\"}".repeat(400)),
            ("own.host-key", "ssh x"),
            ("Ab_c", ""),
            ("ttl", "1h"),
        ]);
        let properties = properties(&texts_of);
        assert_eq!(properties["sbx-apply:ttl"], "1h");
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b":-_.".contains(&byte);
        assert!(properties.keys().all(|name| name.bytes().all(allowed)));
        let read = properties.iter().map(|(name, value)| (name, value.as_str()));
        assert_eq!(texts(read), texts_of);
    }
}
