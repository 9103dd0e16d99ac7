//! The flat normal form in which desired, last-applied and live are compared.

use std::collections::BTreeMap;

use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Serialize, SerializeMap as _, Serializer};

use super::{Field, Kind};

/// The value of each field, in a normal form: equal texts mean equal things.
///
/// Kept in band as the last-applied record, so its serial form is compact: a JSON object of
/// `kind → name → field → value`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts(BTreeMap<Field, String>);

impl Facts {
    /// No facts.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// States a fact.
    pub fn set(&mut self, field: Field, value: impl Into<String>) {
        self.0.insert(field, value.into());
    }

    /// Takes a fact back.
    pub fn unset(&mut self, field: &Field) -> Option<String> {
        self.0.remove(field)
    }

    /// A field's value.
    #[must_use]
    pub fn get(&self, field: &Field) -> Option<&str> {
        self.0.get(field).map(String::as_str)
    }

    /// All facts, ordered by field.
    pub fn iter(&self) -> impl Iterator<Item = (&Field, &str)> {
        self.0.iter().map(|(field, value)| (field, value.as_str()))
    }

    /// The names of the objects of a kind, each once, ordered.
    pub fn names(&self, kind: Kind) -> impl Iterator<Item = &str> {
        let mut last = None;
        self.0
            .keys()
            .filter(move |field| field.kind == kind)
            .filter_map(move |field| {
                let fresh = last != Some(field.name.as_str());
                last = Some(field.name.as_str());
                fresh.then_some(field.name.as_str())
            })
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Extend<(Field, String)> for Facts {
    fn extend<I: IntoIterator<Item = (Field, String)>>(&mut self, facts: I) {
        self.0.extend(facts);
    }
}

type Nested<K> = BTreeMap<K, BTreeMap<String, BTreeMap<String, String>>>;

impl Serialize for Facts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut nested: Nested<&'static str> = BTreeMap::new();
        for (field, value) in &self.0 {
            let named = nested
                .entry(field.kind.as_str())
                .or_default()
                .entry(field.name.clone())
                .or_default();
            named.insert(field.field.clone(), value.clone());
        }
        let mut map = serializer.serialize_map(Some(nested.len()))?;
        for (kind, named) in nested {
            map.serialize_entry(kind, &named)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Facts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let nested: Nested<String> = Deserialize::deserialize(deserializer)?;
        let mut facts = Self::new();
        for (kind, named) in nested {
            let kind = *Kind::ALL
                .iter()
                .find(|known| known.as_str() == kind)
                .ok_or_else(|| D::Error::custom(format!("unknown kind `{kind}`")))?;
            for (name, fields) in named {
                for (field, value) in fields {
                    facts.set(Field::of(kind, name.clone(), field), value);
                }
            }
        }
        Ok(facts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_serial_form_round_trips() {
        let mut facts = Facts::new();
        facts.set(Field::sandbox("cpu"), "2");
        facts.set(Field::of(Kind::File, "/etc/a", "mode"), "0644");
        facts.set(Field::of(Kind::File, "/etc/b", "mode"), "0600");
        let text = serde_json::to_string(&facts).expect("serializes");
        assert_eq!(
            text,
            r#"{"file":{"/etc/a":{"mode":"0644"},"/etc/b":{"mode":"0600"}},"sandbox":{"":{"cpu":"2"}}}"#
        );
        assert_eq!(serde_json::from_str::<Facts>(&text).expect("reads"), facts);
        assert_eq!(facts.names(Kind::File).collect::<Vec<_>>(), ["/etc/a", "/etc/b"]);
    }
}
