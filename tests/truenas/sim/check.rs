//! What parameters must look like, and what is said when they do not.

use serde_json::{Map, Value};

use super::failure::{Failure, Fault, errno};
use super::filter;

/// Who checks a method's parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Checker {
    /// A pydantic model: no coercion, no unknown key, and texts of at most 1,024 characters.
    Model,
    /// The schema that came before, still under parts of 25.04. Stricter here: the original takes a number for a
    /// text and digits for a number, which nobody should rely on.
    Schema,
}

/// The shape of a value.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shape {
    Any,
    Bool,
    Int(Option<i64>, Option<i64>),
    /// A text: least and most characters.
    Text(usize, usize),
    /// A text that a rule has something to say about.
    Ruled(Rule),
    /// One of these texts.
    OneOf(&'static [&'static str]),
    /// Also null.
    OrNull(&'static Shape),
    List(&'static Shape),
    /// The filters of a query.
    Filters,
    /// Any keys that hold to a rule, and values of one shape.
    Map(Option<Rule>, &'static Shape),
    /// These keys and no others. The name is its model's.
    Object(&'static str, &'static [Field]),
    /// One of several objects, told apart by a key's value.
    Tagged(&'static str, &'static [(&'static str, &'static [Field])]),
    /// The first of several objects that fits; the names are those of their models.
    Either(&'static [(&'static str, &'static [Field])]),
}

/// Says what is wrong with a text, if anything.
pub(super) type Rule = fn(&str) -> Option<&'static str>;

/// A parameter, or a key of an object.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) shape: Shape,
    pub(super) absent: Absent,
}

/// What an absent field means.
#[derive(Debug, Clone, Copy)]
pub(super) enum Absent {
    Refused,
    /// It stays absent.
    Left,
    /// It has this value, in JSON.
    Is(&'static str),
}

/// Any text that a model takes.
pub(super) const TEXT: Shape = Shape::Text(0, 1024);
/// One that is not empty.
pub(super) const SOME_TEXT: Shape = Shape::Text(1, 1024);
/// Any integer.
pub(super) const INT: Shape = Shape::Int(None, None);

/// A field that must be there.
pub(super) const fn required(name: &'static str, shape: Shape) -> Field {
    Field {
        name,
        shape,
        absent: Absent::Refused,
    }
}

/// A field with a default, in JSON.
pub(super) const fn default(name: &'static str, shape: Shape, value: &'static str) -> Field {
    Field {
        name,
        shape,
        absent: Absent::Is(value),
    }
}

/// A field that may be left out.
pub(super) const fn optional(name: &'static str, shape: Shape) -> Field {
    Field {
        name,
        shape,
        absent: Absent::Left,
    }
}

/// The parameters as the method takes them, defaults filled in.
pub(super) fn accept(checker: Checker, fields: &'static [Field], params: Vec<Value>) -> Result<Vec<Value>, Failure> {
    if params.len() > fields.len() {
        let message = format!("Too many arguments (expected {}, found {})", fields.len(), params.len());
        return Err(match checker {
            Checker::Model => Failure::invalid("", message),
            Checker::Schema => Failure::call(errno::EFAULT, message),
        });
    }
    let given = fields
        .iter()
        .zip(params)
        .map(|(field, value)| (field.name.to_owned(), value));
    let given: Map<String, Value> = given.collect();
    let mut check = Check {
        checker,
        at: Vec::new(),
        faults: Vec::new(),
    };
    let mut taken = check.object(fields, &given);
    if !check.faults.is_empty() {
        return Err(Failure::Invalid(check.faults));
    }
    let names = fields.iter().map(|field| field.name);
    Ok(names
        .map(|name| taken.shift_remove(name).unwrap_or(Value::Null))
        .collect())
}

struct Check {
    checker: Checker,
    at: Vec<String>,
    faults: Vec<Fault>,
}

impl Check {
    fn wrong(&mut self, model: &str, schema: &str) -> Value {
        let message = match self.checker {
            Checker::Model => model,
            Checker::Schema => schema,
        };
        self.faults.push(Fault::new(self.at.join("."), message));
        Value::Null
    }

    fn within(&mut self, key: impl Into<String>, shape: Shape, value: &Value) -> Value {
        self.at.push(key.into());
        let taken = self.value(shape, value);
        self.at.pop();
        taken
    }

    fn object(&mut self, fields: &'static [Field], given: &Map<String, Value>) -> Map<String, Value> {
        let mut taken = Map::new();
        for field in fields {
            let value = match (given.get(field.name), field.absent) {
                (Some(value), _) => self.within(field.name, field.shape, value),
                (None, Absent::Left) => continue,
                (None, Absent::Is(text)) => {
                    let value = serde_json::from_str(text).expect("a default is JSON");
                    // The default of an object is an object with its own defaults.
                    self.within(field.name, field.shape, &value)
                }
                (None, Absent::Refused) => {
                    self.at.push(field.name.to_owned());
                    self.wrong("Field required", "attribute required");
                    self.at.pop();
                    continue;
                }
            };
            taken.insert(field.name.to_owned(), value);
        }
        for key in given.keys().filter(|key| fields.iter().all(|field| field.name != *key)) {
            self.at.push(key.clone());
            self.wrong("Extra inputs are not permitted", "Field was not expected");
            self.at.pop();
        }
        taken
    }

    fn value(&mut self, shape: Shape, value: &Value) -> Value {
        if value.is_null() && self.checker == Checker::Schema && !matches!(shape, Shape::OrNull(_) | Shape::Any) {
            return self.wrong("", "null not allowed");
        }
        match (shape, value) {
            (Shape::OrNull(_), Value::Null) | (Shape::Any, _) => value.clone(),
            (Shape::OrNull(shape), _) => self.value(*shape, value),
            (Shape::Bool, Value::Bool(_)) => value.clone(),
            (Shape::Bool, _) => self.wrong("Input should be a valid boolean", "Not a boolean"),
            (Shape::Int(least, most), _) => self.integer(value, least, most),
            (Shape::Text(least, most), Value::String(text)) => self.text(text, least, most),
            (Shape::Ruled(rule), Value::String(text)) => {
                self.text(text, 0, 1024);
                if let Some(message) = rule(text) {
                    self.wrong(&format!("Value error, {message}"), message);
                }
                value.clone()
            }
            (Shape::Text(..) | Shape::Ruled(_), _) => self.wrong("Input should be a valid string", "Not a string"),
            (Shape::OneOf(choices), _) => self.choice(choices, value),
            (Shape::List(shape), Value::Array(items)) => {
                let items = items.iter().enumerate();
                items
                    .map(|(index, item)| self.within(index.to_string(), *shape, item))
                    .collect()
            }
            (Shape::Filters, Value::Array(filters)) => {
                if let Err(message) = filter::validate(filters, 0) {
                    self.wrong(&format!("Value error, {message}"), &message);
                }
                value.clone()
            }
            (Shape::List(_) | Shape::Filters, _) => self.wrong("Input should be a valid list", "Not a list"),
            (Shape::Map(rule, shape), Value::Object(map)) => self.map(rule, *shape, map),
            (Shape::Map(..), _) => self.wrong("Input should be a valid dictionary", "A dict was expected"),
            (Shape::Object(_, fields), Value::Object(map)) => Value::Object(self.object(fields, map)),
            (Shape::Object(name, _), _) => {
                let message = format!("Input should be a valid dictionary or instance of {name}");
                self.wrong(&message, "A dict was expected")
            }
            (Shape::Tagged(tag, variants), _) => self.tagged(tag, variants, value),
            (Shape::Either(variants), _) => self.either(variants, value),
        }
    }

    fn integer(&mut self, value: &Value, least: Option<i64>, most: Option<i64>) -> Value {
        let Some(number) = value.as_i64() else {
            return self.wrong("Input should be a valid integer", "Not an integer");
        };
        if let Some(least) = least.filter(|least| number < *least) {
            let message = format!("Input should be greater than or equal to {least}");
            self.wrong(&message, &message);
        }
        if let Some(most) = most.filter(|most| number > *most) {
            let message = format!("Input should be less than or equal to {most}");
            self.wrong(&message, &message);
        }
        value.clone()
    }

    fn text(&mut self, text: &str, least: usize, most: usize) -> Value {
        let count = text.chars().count();
        if count < least {
            let plural = if least == 1 { "" } else { "s" };
            let message = format!("String should have at least {least} character{plural}");
            self.wrong(&message, "Empty value not allowed");
        } else if count > most {
            let model = format!("String should have at most {most} characters");
            let schema = format!("The value may not be longer than {most} characters");
            self.wrong(&model, &schema);
        }
        Value::from(text)
    }

    fn choice(&mut self, choices: &[&str], value: &Value) -> Value {
        if value.as_str().is_some_and(|text| choices.contains(&text)) {
            return value.clone();
        }
        let quoted: Vec<_> = choices.iter().map(|choice| format!("'{choice}'")).collect();
        let list = match quoted.split_last() {
            Some((last, [])) => last.clone(),
            Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
            None => String::new(),
        };
        let schema = format!("Invalid choice: {}", value.as_str().unwrap_or_default());
        self.wrong(&format!("Input should be {list}"), &schema)
    }

    fn map(&mut self, rule: Option<Rule>, shape: Shape, map: &Map<String, Value>) -> Value {
        let mut taken = Map::new();
        for (key, value) in map {
            if let Some(message) = rule.and_then(|rule| rule(key)) {
                self.at.extend([key.clone(), "[key]".to_owned()]);
                self.wrong(&format!("Value error, {message}"), message);
                self.at.truncate(self.at.len() - 2);
            }
            taken.insert(key.clone(), self.within(key.clone(), shape, value));
        }
        Value::Object(taken)
    }

    fn tagged(&mut self, tag: &str, variants: &[(&'static str, &'static [Field])], value: &Value) -> Value {
        let Value::Object(map) = value else {
            return self.wrong(
                "Input should be a valid dictionary or object to extract fields from",
                "A dict was expected",
            );
        };
        let Some(given) = map.get(tag) else {
            self.at.push(tag.to_owned());
            self.wrong("Field required", "attribute required");
            self.at.pop();
            return Value::Null;
        };
        let given = given.as_str().unwrap_or_default();
        let Some((name, fields)) = variants.iter().find(|(name, _)| *name == given) else {
            let names: Vec<_> = variants.iter().map(|(name, _)| format!("'{name}'")).collect();
            let message = format!(
                "Input tag '{given}' found using '{tag}' does not match any of the expected tags: {}",
                names.join(", ")
            );
            return self.wrong(&message, &message);
        };
        self.at.push((*name).to_owned());
        let taken = self.object(fields, map);
        self.at.pop();
        Value::Object(taken)
    }

    fn either(&mut self, variants: &[(&'static str, &'static [Field])], value: &Value) -> Value {
        let before = self.faults.len();
        for (name, fields) in variants {
            let tried = self.faults.len();
            let taken = self.within(*name, Shape::Object(name, fields), value);
            if self.faults.len() == tried {
                self.faults.truncate(before);
                return taken;
            }
        }
        Value::Null
    }
}
