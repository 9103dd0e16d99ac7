//! The flat normal form in which desired, last-applied and live are compared.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error as _, MapAccess, Visitor};
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

    /// Every field that any of these states, ordered, with the value that each gives it.
    pub fn side_by_side<const N: usize>(all: [&Self; N]) -> impl Iterator<Item = (&Field, [Option<&str>; N])> {
        let mut iters = all.map(|facts| facts.0.iter().peekable());
        std::iter::from_fn(move || {
            let mut heads = [None; N];
            let mut first: Option<&Field> = None;
            for index in 0..N {
                let Some((field, value)) = iters[index].peek() else {
                    continue;
                };
                match first.map_or(Ordering::Less, |first| field.cmp(&first)) {
                    Ordering::Greater => continue,
                    Ordering::Less => {
                        first = Some(field);
                        heads = [None; N];
                    }
                    Ordering::Equal => {}
                }
                heads[index] = Some(value.as_str());
            }
            for (iter, head) in iters.iter_mut().zip(&heads) {
                if head.is_some() {
                    iter.next();
                }
            }
            Some((first?, heads))
        })
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

type Nested<'a> = BTreeMap<&'static str, BTreeMap<&'a str, BTreeMap<&'a str, &'a str>>>;

impl Serialize for Facts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut nested = Nested::new();
        for (field, value) in &self.0 {
            let named = nested
                .entry(field.kind.as_str())
                .or_default()
                .entry(&field.name)
                .or_default();
            named.insert(&field.field, value);
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
        let mut facts = Vec::new();
        let whole = Reading {
            level: Level::Kinds,
            facts: &mut facts,
        };
        whole.deserialize(deserializer)?;
        // All at once: one by one, each would look for its place.
        Ok(Self(facts.into_iter().collect()))
    }
}

/// How deep in the serial form a map stands.
#[derive(Clone, Copy)]
enum Level<'a> {
    Kinds,
    Names(Kind),
    Fields(Kind, &'a str),
}

/// Reads one map of the serial form into facts.
struct Reading<'a> {
    level: Level<'a>,
    facts: &'a mut Vec<(Field, String)>,
}

impl<'de> DeserializeSeed<'de> for Reading<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Reading<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of kinds to names to fields to values")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            let level = match self.level {
                Level::Kinds => {
                    let kind = Kind::ALL.into_iter().find(|known| known.as_str() == key);
                    Level::Names(kind.ok_or_else(|| A::Error::custom(format!("unknown kind `{key}`")))?)
                }
                Level::Names(kind) => Level::Fields(kind, &key),
                Level::Fields(kind, name) => {
                    self.facts.push((Field::of(kind, name, key), map.next_value()?));
                    continue;
                }
            };
            map.next_value_seed(Reading {
                level,
                facts: self.facts,
            })?;
        }
        Ok(())
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
        for wrong in [r#"{"what":{}}"#, r#"{"file":{"/etc/a":"mode"}}"#, r#"{"file":[]}"#, "1"] {
            assert!(serde_json::from_str::<Facts>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn side_by_side_is_every_field_once() {
        let facts = |pairs: &[(&str, &str)]| {
            let mut facts = Facts::new();
            pairs
                .iter()
                .for_each(|(name, value)| facts.set(Field::sandbox(*name), *value));
            facts
        };
        let (one, two, none) = (
            facts(&[("b", "1"), ("c", "2")]),
            facts(&[("a", "3"), ("c", "4")]),
            facts(&[]),
        );
        let rows: Vec<_> = Facts::side_by_side([&one, &two, &none])
            .map(|(field, values)| (field.field.as_str(), values))
            .collect();
        assert_eq!(
            rows,
            [
                ("a", [None, Some("3"), None]),
                ("b", [Some("1"), None, None]),
                ("c", [Some("2"), Some("4"), None]),
            ]
        );
    }
}
