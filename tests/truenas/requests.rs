//! What a full run asks of a system, by method, with its parameters: `tests/truenas/requests/`, for whoever wants to hold
//! it against an appliance, or against its sources. A request that is not in these lists fails the run that makes it;
//! `SBX_BLESS=1` adds it. Delete a list and bless to have it without what is asked no more.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::sim::{Dialect, Request, Sim};

/// Each method, and the different parameters that it was asked with.
type List = BTreeMap<String, BTreeSet<String>>;

fn file(dialect: Dialect) -> PathBuf {
    let name = match dialect {
        Dialect::V25_04 => "25.04",
        Dialect::V25_10 => "25.10",
        Dialect::V26 => "26",
    };
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/truenas/requests/{name}.txt"))
}

/// Holds what was asked against the list of its dialect. The environment's name differs from run to run.
pub(super) fn check(sim: &Sim, environment: &str) {
    let file = file(sim.dialect());
    let mut known = read(&std::fs::read_to_string(&file).unwrap_or_default());
    let mut asked = List::new();
    for request in sim.requests() {
        let params = general(&request, environment).to_string();
        asked.entry(request.method).or_default().insert(params);
    }
    // Asked where an event may have been lost, which is not in every run.
    let by_number = json!([[["id", "=", "N"]]]).to_string();
    asked.entry("core.get_jobs".to_owned()).or_default().insert(by_number);
    let is_new = |method: &str, params: &str| !known.get(method).is_some_and(|all| all.contains(params));
    let new: Vec<String> = asked
        .iter()
        .flat_map(|(method, all)| all.iter().map(move |params| (method, params)))
        .filter(|(method, params)| is_new(method, params))
        .map(|(method, params)| format!("{method} {params}"))
        .collect();
    if std::env::var_os("SBX_BLESS").is_some_and(|value| value == "1") {
        for (method, all) in asked {
            known.entry(method).or_default().extend(all);
        }
        std::fs::write(&file, write(&known)).expect("the list can be written");
        return;
    }
    assert!(
        new.is_empty(),
        "{} has not:\n{}\nSBX_BLESS=1 adds it",
        file.display(),
        new.join("\n")
    );
}

fn write(list: &List) -> String {
    let mut text = String::new();
    for (method, all) in list {
        writeln!(text, "{method}").expect("a text");
        for params in all {
            writeln!(text, "    {params}").expect("a text");
        }
    }
    text
}

fn read(text: &str) -> List {
    let mut list = List::new();
    let mut method = String::new();
    for line in text.lines() {
        match line.strip_prefix("    ") {
            Some(params) => drop(list.entry(method.clone()).or_default().insert(params.to_owned())),
            None => method = line.to_owned(),
        }
    }
    list
}

/// Parameters without what is another in every run: names, numbers, marks, and what ours remember.
fn general(request: &Request, environment: &str) -> Value {
    let mut params = request.params.clone();
    let numbered = request.method.starts_with("container.");
    if let Some(first) = params.get_mut(0).filter(|first| numbered && first.is_i64()) {
        *first = json!("N");
    }
    settle(&mut params, environment);
    params
}

fn settle(value: &mut Value, environment: &str) {
    match value {
        Value::String(text) => *text = plain(&text.replace(environment, "demo")),
        Value::Array(items) => {
            // The filter of one job, or of those after it.
            if let [Value::String(field), Value::String(_), number] = &mut items[..]
                && field == "id"
                && number.is_i64()
            {
                *number = json!("N");
            }
            items.iter_mut().for_each(|item| settle(item, environment));
            let mut seen = BTreeSet::new();
            items.retain(|item| !is_property(item) || seen.insert(item.to_string()));
        }
        Value::Object(map) => {
            if map.get("key").and_then(Value::as_str).is_some_and(is_ours) {
                let key = whole(map["key"].as_str().unwrap_or_default());
                map.insert("key".to_owned(), json!(key));
                if map.contains_key("value") {
                    map.insert("value".to_owned(), json!("…"));
                }
            }
            if let Some(number) = map.get_mut("container").filter(|number| number.is_i64()) {
                *number = json!("N");
            }
            let old = std::mem::take(map);
            let mut new = Map::new();
            for (key, mut inner) in old {
                match is_ours(&key) {
                    true => drop(new.insert(whole(&key), json!("…"))),
                    false => {
                        settle(&mut inner, environment);
                        new.insert(key, inner);
                    }
                }
            }
            *map = new;
        }
        _ => {}
    }
}

fn is_property(item: &Value) -> bool {
    item.get("key").and_then(Value::as_str).is_some_and(is_ours)
}

/// Whether a variable or a user property is the backend's own.
fn is_ours(key: &str) -> bool {
    key.starts_with("SBX_APPLY_") || key.starts_with("sbx-apply:")
}

/// The name of what a part is of.
fn whole(key: &str) -> String {
    let parted = key.rsplit_once("__").or_else(|| key.rsplit_once('.'));
    let parted = parted.filter(|(_, number)| number.parse::<u32>().is_ok());
    parted.map_or(key, |(whole, _)| whole).to_owned()
}

/// A text without marks, which are long numbers in base 16, and without lengths.
fn plain(text: &str) -> String {
    if text.starts_with('(') && text.ends_with(" characters)") {
        return "(hidden)".to_owned();
    }
    let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    let mut out = String::new();
    let mut run = String::new();
    for c in text.chars().chain(['\0']) {
        if hex(c) {
            run.push(c);
            continue;
        }
        match run.len() >= 12 {
            true => out.push('…'),
            false => out.push_str(&run),
        }
        run.clear();
        out.push(c);
    }
    out.pop();
    out
}

#[test]
fn what_differs_from_run_to_run_is_left_out() {
    let request = Request {
        method: "container.update".to_owned(),
        params: json!([7, { "initenv": { "A": "w1-2", "SBX_APPLY_APPLIED": "x", "SBX_APPLY_APPLIED__1": "y" },
            "user_properties": [{ "key": "sbx-apply:note", "value": "1" }, { "key": "sbx-apply:note.1", "value": "2" }],
            "dataset": "tank/w1-2-base@sbx-apply-0123456789abcdef", "content": "(12 characters)" }]),
    };
    assert_eq!(
        general(&request, "w1-2"),
        json!(["N", { "initenv": { "A": "demo", "SBX_APPLY_APPLIED": "…" },
            "user_properties": [{ "key": "sbx-apply:note", "value": "…" }],
            "dataset": "tank/demo-base@sbx-apply-…", "content": "(hidden)" }])
    );
    let list = read(&write(&read("a.b\n    [1]\n    [2]\nc.d\n    []\n")));
    assert_eq!((list["a.b"].len(), list["c.d"].len()), (2, 1));
}
