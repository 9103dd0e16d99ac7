//! `query-filters` and `query-options`.

use std::cmp::Ordering;

use serde_json::{Map, Value, json};

use super::check::{Field, INT, SOME_TEXT, Shape, TEXT, default};
use super::failure::Failure;

/// What most queries take after their filters.
const OPTIONS: &[Field] = &[
    default("relationships", Shape::Bool, "true"),
    default("extend", Shape::OrNull(&TEXT), "null"),
    default("extend_context", Shape::OrNull(&TEXT), "null"),
    default("prefix", Shape::OrNull(&TEXT), "null"),
    default("extra", Shape::Map(None, &Shape::Any), "{}"),
    default("order_by", Shape::List(&TEXT), "[]"),
    default("select", Shape::List(&Shape::Any), "[]"),
    default("count", Shape::Bool, "false"),
    default("get", Shape::Bool, "false"),
    default("offset", INT, "0"),
    default("limit", INT, "0"),
    default("force_sql_filters", Shape::Bool, "false"),
];

const OPTIONS_SHAPE: Shape = Shape::Object("QueryOptions", OPTIONS);

/// The parameters of a query.
pub(super) const QUERY: &[Field] = &[
    default("filters", Shape::Filters, "[]"),
    default("options", OPTIONS_SHAPE, "{}"),
];

/// The same where the schema before the models checks them.
pub(super) const SCHEMA_QUERY: &[Field] = &[
    default("query-filters", Shape::Filters, "[]"),
    default("query-options", OPTIONS_SHAPE, "{}"),
];

/// The parameters of a `get_instance` whose id is a text.
pub(super) const INSTANCE: &[Field] = &[
    Field { shape: SOME_TEXT, ..ID },
    default("options", OPTIONS_SHAPE, "{}"),
];

/// The parameters of a `get_instance` whose id is a number.
pub(super) const NUMBERED: &[Field] = &[Field { shape: INT, ..ID }, default("options", OPTIONS_SHAPE, "{}")];

const ID: Field = super::check::required("id", TEXT);

const OPERATORS: [&str; 15] = [
    "=", "!=", ">", ">=", "<", "<=", "~", "in", "nin", "rin", "rnin", "^", "!^", "$", "!$",
];

/// What a query gives of all there is.
pub(super) fn query(all: Vec<Value>, filters: &Value, options: &Value) -> Result<Value, Failure> {
    let filters = filters.as_array().map(Vec::as_slice).unwrap_or_default();
    if options["get"] == true && (options["limit"].as_i64() > Some(1) || options["offset"].as_i64() > Some(0)) {
        let message = "Value error, Invalid options combination. `get` implies a single result.";
        return Err(Failure::invalid("options", message));
    }
    let mut left = all;
    left.retain(|item| filters.iter().all(|filter| holds(item, filter)));
    if options["count"] == true {
        return Ok(json!(left.len()));
    }
    for order in options["order_by"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
    {
        let order = order
            .trim_start_matches("nulls_first:")
            .trim_start_matches("nulls_last:");
        let (key, back) = order.strip_prefix('-').map_or((order, false), |key| (key, true));
        left.sort_by(|a, b| {
            let ordering = compare(at(a, key).unwrap_or(&Value::Null), at(b, key).unwrap_or(&Value::Null));
            let ordering = ordering.unwrap_or(Ordering::Equal);
            if back { ordering.reverse() } else { ordering }
        });
    }
    let select = options["select"].as_array().filter(|select| !select.is_empty());
    if let Some(select) = select {
        left = left.iter().map(|item| pick(item, select)).collect();
    }
    if options["get"] == true {
        return left.into_iter().next().ok_or_else(|| Failure::Raised {
            class: "MatchNotFound",
            message: "MatchNotFound()".to_owned(),
        });
    }
    let number = |key: &str| options[key].as_u64().and_then(|number| usize::try_from(number).ok());
    let skipped = left.into_iter().skip(number("offset").unwrap_or(0));
    Ok(match number("limit").filter(|limit| *limit > 0) {
        Some(limit) => skipped.take(limit).collect(),
        None => skipped.collect(),
    })
}

/// The one of all that has the id, in the words of `get_instance`.
pub(super) fn instance(all: Vec<Value>, id: &Value, kind: &str) -> Result<Value, Failure> {
    let shown = id.as_str().map_or_else(|| id.to_string(), str::to_owned);
    let found = all.into_iter().find(|item| item["id"] == *id);
    found.ok_or_else(|| Failure::missing(format!("{kind} {shown} does not exist")))
}

/// Whether filters are some: none is nested deeper than three levels, and each has an operator that there is.
pub(super) fn validate(filters: &[Value], depth: usize) -> Result<(), String> {
    if depth > 3 {
        return Err("query-filters max recursion depth exceeded".to_owned());
    }
    for filter in filters {
        let parts = filter.as_array().map(Vec::as_slice).unwrap_or_default();
        match parts {
            [operator, branches] => {
                if operator != "OR" {
                    return Err(format!("Invalid operation: {operator}"));
                }
                let branches = branches.as_array().filter(|branches| !branches.is_empty());
                let branches = branches.ok_or("OR filter requires at least one branch.")?;
                for branch in branches {
                    let all = branch
                        .as_array()
                        .filter(|branch| branch.first().is_some_and(Value::is_array));
                    match all {
                        Some(all) => validate(all, depth + 1)?,
                        None => validate(std::slice::from_ref(branch), depth + 1)?,
                    }
                }
            }
            [name, operator, _] => {
                let operator = operator.as_str().unwrap_or_default();
                let plain = operator.strip_prefix('C').unwrap_or(operator);
                if !name.is_string() || !OPERATORS.contains(&plain) || operator == "C~" {
                    return Err(format!("Invalid operation: {operator}"));
                }
            }
            _ => {
                let shown = filter.as_str().map_or_else(|| filter.to_string(), str::to_owned);
                return Err(format!("Invalid filter {shown}"));
            }
        }
    }
    Ok(())
}

fn holds(item: &Value, filter: &Value) -> bool {
    match filter.as_array().map(Vec::as_slice) {
        Some([_, branches]) => branches.as_array().into_iter().flatten().any(|branch| {
            let all = branch
                .as_array()
                .filter(|branch| branch.first().is_some_and(Value::is_array));
            all.map_or_else(
                || holds(item, branch),
                |all| all.iter().all(|filter| holds(item, filter)),
            )
        }),
        Some([name, operator, operand]) => {
            let (name, operator) = (name.as_str().unwrap_or_default(), operator.as_str().unwrap_or_default());
            at(item, name).is_some_and(|value| match operator.strip_prefix('C') {
                Some(operator) => matches(&folded(value), operator, &folded(operand)),
                None => matches(value, operator, operand),
            })
        }
        _ => false,
    }
}

fn folded(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::from(text.to_lowercase()),
        Value::Array(items) => items.iter().map(folded).collect(),
        other => other.clone(),
    }
}

fn matches(value: &Value, operator: &str, operand: &Value) -> bool {
    let texts = value.as_str().zip(operand.as_str());
    let contains = |holder: &Value, item: &Value| match holder {
        Value::Array(items) => items.contains(item),
        Value::String(text) => item.as_str().is_some_and(|item| text.contains(item)),
        _ => false,
    };
    match operator {
        "=" => value == operand,
        "!=" => value != operand,
        ">" => compare(value, operand) == Some(Ordering::Greater),
        ">=" => matches!(compare(value, operand), Some(Ordering::Greater | Ordering::Equal)),
        "<" => compare(value, operand) == Some(Ordering::Less),
        "<=" => matches!(compare(value, operand), Some(Ordering::Less | Ordering::Equal)),
        "in" => contains(operand, value),
        "nin" => !value.is_null() && !contains(operand, value),
        "rin" => contains(value, operand),
        "rnin" => !value.is_null() && !contains(value, operand),
        "^" => texts.is_some_and(|(text, start)| text.starts_with(start)),
        "!^" => texts.is_some_and(|(text, start)| !text.starts_with(start)),
        "$" => texts.is_some_and(|(text, end)| text.ends_with(end)),
        "!$" => texts.is_some_and(|(text, end)| !text.ends_with(end)),
        // Regular expressions: the simulation knows plain texts only, anchored at the start as Python's match is.
        _ => texts.is_some_and(|(text, start)| text.starts_with(start)),
    }
}

fn compare(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64()?.partial_cmp(&b.as_f64()?),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        _ => None,
    }
}

fn at<'a>(item: &'a Value, path: &str) -> Option<&'a Value> {
    // A name may itself hold dots, as those of user properties do: the whole of it comes first.
    let direct = item.get(path);
    direct.or_else(|| {
        let (first, rest) = path.split_once('.')?;
        at(item.get(first)?, rest)
    })
}

fn pick(item: &Value, select: &[Value]) -> Value {
    let mut picked = Map::new();
    for entry in select {
        let (from, to) = match entry {
            Value::Array(pair) => (pair[0].as_str().unwrap_or_default(), pair[1].as_str()),
            other => (other.as_str().unwrap_or_default(), None),
        };
        let Some(value) = at(item, from) else { continue };
        if let Some(to) = to {
            picked.insert(to.to_owned(), value.clone());
            continue;
        }
        let mut into = &mut picked;
        let mut keys: Vec<_> = from.split('.').collect();
        let last = keys.pop().unwrap_or_default();
        for key in keys {
            let inner = into.entry(key).or_insert_with(|| json!({}));
            into = inner.as_object_mut().expect("only objects are put there");
        }
        into.insert(last.to_owned(), value.clone());
    }
    Value::Object(picked)
}
