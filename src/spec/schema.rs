//! The JSON Schema of YAML specs, for editors. It follows the same table as the decoder; what takes more than a
//! look at one value, such as whether a name exists, it does not tell.

use serde_json::{Map, Value, json};

use super::language::{BACKENDS, Body, DOCUMENT, Form, Label, Shape, Type, Written};

/// The schema (JSON Schema, draft 2020-12).
#[must_use]
pub fn schema() -> Value {
    let mut definitions = Definitions(Map::new());
    let root = definitions.body(&DOCUMENT, None);
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "sbx-apply spec",
        "description": "An environment: sandboxes, their files, set-up steps, snapshots, clones, mounts and egress rules.",
    });
    if let (Some(schema), Value::Object(root)) = (schema.as_object_mut(), root) {
        schema.extend(root);
        schema.insert("$defs".to_owned(), Value::Object(definitions.0));
    }
    schema
}

/// What is referred to from several places.
struct Definitions(Map<String, Value>);

impl Definitions {
    /// Keeps a definition under a name of its own, and refers to it.
    fn refer(&mut self, name: &str, definition: Value) -> Value {
        let mut key = name.to_owned();
        while self.0.get(&key).is_some_and(|known| *known != definition) {
            key.push_str("-of-sandbox");
        }
        let reference = json!({ "$ref": format!("#/$defs/{key}") });
        self.0.insert(key, definition);
        reference
    }

    /// The map that a body is. `label` is a key that stands for the label.
    fn body(&mut self, body: &'static Body, label: Option<(&str, Type, bool)>) -> Value {
        let mut properties = Map::new();
        let mut required = Vec::new();
        if let Some((key, kind, needed)) = label {
            properties.insert(key.to_owned(), self.value(kind));
            if needed {
                required.push(key);
            }
        }
        for form in body.forms() {
            let mut property = self.form(form);
            if let Some(property) = property.as_object_mut() {
                property.insert("description".to_owned(), json!(form.doc));
            }
            properties.insert(form.key.to_owned(), property);
            if form.required {
                required.push(form.key);
            }
        }
        let both = properties.contains_key("image") && properties.contains_key("clone-from");
        let mut schema = json!({ "type": "object", "properties": properties, "additionalProperties": false });
        let Some(map) = schema.as_object_mut() else {
            return schema;
        };
        if !required.is_empty() {
            map.insert("required".to_owned(), json!(required));
        }
        if !body.one_of.is_empty() {
            let each: Vec<Value> = body.one_of.iter().map(|key| json!({ "required": [key] })).collect();
            map.insert("oneOf".to_owned(), json!(each));
        }
        if both {
            map.insert("not".to_owned(), json!({ "required": ["image", "clone-from"] }));
        }
        schema
    }

    fn form(&mut self, form: &'static Form) -> Value {
        match &form.shape {
            Shape::Value(kind) => self.value(*kind),
            Shape::Values(kind) => {
                let one = self.value(*kind);
                json!({ "anyOf": [one, { "type": "array", "items": one }] })
            }
            Shape::Map { keys, values } => {
                let names = self.value(*keys);
                let value = self.value(*values);
                json!({ "type": "object", "propertyNames": names, "additionalProperties": value })
            }
            Shape::Block(body) => self.block(form, body),
        }
    }

    fn block(&mut self, form: &'static Form, body: &'static Body) -> Value {
        let label = match &body.label {
            Label::None => None,
            Label::Optional { key, kind } => Some((*key, *kind, false)),
            Label::Required { key, kind } => Some((*key, *kind, true)),
        };
        match body.written {
            Written::Once => {
                let inner = self.body(body, label);
                let reference = self.refer(form.name, inner);
                let alone = label.map_or_else(|| json!({ "type": "null" }), |(_, kind, _)| self.value(kind));
                json!({ "anyOf": [alone, reference] })
            }
            Written::Tagged => tagged(),
            Written::Map => {
                let inner = self.body(body, None);
                let reference = self.refer(form.name, inner);
                let names = label.map_or_else(|| json!(true), |(_, kind, _)| self.value(kind));
                let empty = json!({ "type": "null" });
                json!({ "type": "object", "propertyNames": names, "additionalProperties": { "anyOf": [reference, empty] } })
            }
            Written::List => {
                let inner = self.body(body, label);
                let reference = self.refer(form.name, inner);
                let bare = body.one_of.is_empty() && body.forms().all(|form| !form.required);
                let item = match label {
                    Some((_, kind, _)) if bare => json!({ "anyOf": [self.value(kind), reference] }),
                    _ => reference,
                };
                json!({ "type": "array", "items": item })
            }
        }
    }

    fn value(&mut self, kind: Type) -> Value {
        let (name, definition) = value(kind);
        match name {
            Some(name) => self.refer(name, definition),
            None => definition,
        }
    }
}

/// A backend: its name, or a map of its name to its settings.
fn tagged() -> Value {
    let names: Vec<&str> = BACKENDS.iter().map(|backend| backend.name).collect();
    let backends: Map<String, Value> = BACKENDS
        .iter()
        .map(|backend| {
            let keys: Map<String, Value> = backend
                .keys
                .iter()
                .map(|(key, doc)| {
                    let key = (*key).to_owned();
                    (
                        key,
                        json!({ "type": ["string", "number", "boolean"], "description": doc }),
                    )
                })
                .collect();
            let settings = json!({ "type": ["object", "null"], "properties": keys, "additionalProperties": false });
            (backend.name.to_owned(), settings)
        })
        .collect();
    let map = json!({
        "type": "object", "properties": backends, "additionalProperties": false, "minProperties": 1, "maxProperties": 1,
    });
    json!({ "anyOf": [{ "enum": names }, map] })
}

/// A text that has a variable in it can turn out to be anything.
fn or_variable(definition: Value) -> Value {
    json!({ "anyOf": [definition, { "type": "string", "pattern": "\\$\\{" }] })
}

fn pattern(pattern: &str) -> Value {
    json!({ "type": "string", "pattern": pattern })
}

/// The schema of a type, and the name to keep it under when it is used all over.
fn value(kind: Type) -> (Option<&'static str>, Value) {
    let size = "^[0-9]+ *(TiB|GiB|MiB|KiB|TB|GB|MB|kB|KB|B)?$";
    match kind {
        Type::Text | Type::Note => (None, json!({ "type": ["string", "number", "boolean"] })),
        Type::Setting => (None, json!({ "type": ["string", "number", "boolean"], "minLength": 1 })),
        Type::Line | Type::Image | Type::Pattern | Type::Include | Type::Reference => {
            (None, json!({ "type": "string", "minLength": 1 }))
        }
        Type::Source => (Some("source"), or_variable(pattern("^[^/~]"))),
        Type::Name => (Some("name"), pattern("^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$")),
        Type::Integer { min, max } => (
            None,
            or_variable(json!({ "type": "integer", "minimum": min, "maximum": max })),
        ),
        Type::Boolean => (Some("boolean"), or_variable(json!({ "type": "boolean" }))),
        Type::Size => (
            Some("size"),
            or_variable(json!({ "anyOf": [pattern(size), { "type": "integer", "minimum": 1 }] })),
        ),
        Type::Memory => {
            let share = pattern("^(100|[1-9][0-9]?)%$");
            (
                Some("memory"),
                or_variable(json!({ "anyOf": [pattern(size), share, { "type": "integer", "minimum": 1 }] })),
            )
        }
        Type::Duration => (
            Some("duration"),
            or_variable(pattern("^([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?$")),
        ),
        // Unquoted, YAML readers take the digits of a mode for a number; ours keeps them as they are written.
        Type::Mode => (
            Some("mode"),
            or_variable(
                json!({ "anyOf": [pattern("^0?[0-7]{3}$"), { "type": "integer", "minimum": 0, "maximum": 777 }] }),
            ),
        ),
        Type::GuestPath => (Some("path"), or_variable(pattern("^(/[^/]+)+$"))),
        Type::UserName => (Some("login"), or_variable(pattern("^[a-z_][a-z0-9_-]{0,31}$"))),
        Type::EnvironmentVariable => (Some("variable-name"), or_variable(pattern("^[A-Za-z_][A-Za-z0-9_]*$"))),
        Type::Port => (
            Some("port-number"),
            or_variable(json!({ "type": "integer", "minimum": 1, "maximum": 65_535 })),
        ),
        Type::Ports => (
            Some("port-range"),
            or_variable(json!({ "anyOf": [
                { "type": "integer", "minimum": 1, "maximum": 65_535 },
                pattern("^[0-9]{1,5}(-[0-9]{1,5})?$"),
            ] })),
        ),
        Type::Word(words) => (None, or_variable(json!({ "enum": words }))),
        Type::Destination => (Some("destination"), or_variable(pattern("^[A-Za-z0-9_.:/-]+$"))),
        Type::Field => (
            Some("field"),
            or_variable(pattern(
                "^(image|clone-from|source-recipe|cpu|memory|disk|user|protect|ttl|(env|config):.+|\
                 (sandbox|file|tree|volume|mount|port|egress|run|power|snapshot)([:.].+)?)$",
            )),
        ),
        Type::Date => (Some("date"), or_variable(pattern("^[0-9]{4}-[0-9]{2}-[0-9]{2}$"))),
        Type::Target => (Some("target"), or_variable(pattern("^@?[A-Za-z0-9][A-Za-z0-9._-]*$"))),
        Type::ConfigKey => (Some("setting"), pattern("^[A-Za-z0-9._-]+$")),
    }
}
