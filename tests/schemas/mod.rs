//! The JSON Schemas: as they are kept in `schemas/`, and true of what is printed.

use sbx_apply::backend::memory::Memory;
use sbx_apply::view::json;
use serde_json::Value;

use crate::support::blessed;
use crate::support::program::program;

/// All specs whose plans are held against the schema.
const SPECS: [&str; 3] = ["fresh/after", "left-spec/before", "lacking/after"];

#[test]
fn the_kept_schemas_are_fresh() {
    for (name, schema) in [("plan", json::plan_schema()), ("events", json::events_schema())] {
        let text = format!("{}\n", json::pretty(&schema));
        blessed::check(&format!("schemas/{name}.schema.json"), &text);
    }
}

#[tokio::test]
async fn plans_are_as_their_schema_says() {
    let schema = jsonschema::validator_for(&json::plan_schema()).expect("a schema");
    for spec in SPECS {
        let path = format!("tests/scenarios/{spec}.kdl");
        let run = program(&Memory::new(), &["plan", &path, "--json"]).await;
        let plan: Value = serde_json::from_str(&run.stdout).expect("JSON");
        assert!(schema.is_valid(&plan), "{spec}: {:?}", schema.iter_errors(&plan).next());
        assert_eq!(plan["format_version"], "1");
        let told = run.stderr.is_empty();
        assert_eq!(plan["refusals"].as_array().map(Vec::is_empty), Some(told), "{spec}");
    }
}

#[tokio::test]
async fn events_are_as_their_schema_says() {
    let schema = jsonschema::validator_for(&json::events_schema()).expect("a schema");
    let memory = Memory::new();
    let spec = "tests/scenarios/fresh/after.kdl";
    for (command, consent, last) in [
        ("apply", "--yes", "done"),
        ("apply", "--yes", "nothing_to_do"),
        ("destroy", "--yes", "refused"),
        ("destroy", "--allow-data-loss", "done"),
    ] {
        let run = program(&memory, &[command, spec, consent, "--json"]).await;
        let events: Vec<Value> = run
            .stdout
            .lines()
            .map(|line| serde_json::from_str(line).expect("one JSON object on each line"))
            .collect();
        for event in &events {
            assert!(
                schema.is_valid(event),
                "{event}: {:?}",
                schema.iter_errors(event).next()
            );
        }
        let summary = events.last().expect("events");
        assert_eq!(events[0]["event"], "plan");
        assert_eq!(
            (&summary["event"], &summary["outcome"]),
            (&"summary".into(), &last.into()),
            "{}",
            run.stderr
        );
        let started = events.iter().filter(|event| event["event"] == "step_started").count();
        assert_eq!(summary["done"], started, "{command}");
    }
}
