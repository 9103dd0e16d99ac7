//! The JSON Schema is fresh, and tells right from wrong.

use std::path::{Path, PathBuf};

use sbx_apply::spec;

fn package(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[test]
fn the_schema_in_the_repository_is_fresh() {
    let path = package("schemas/spec.schema.json");
    let fresh = format!("{}\n", serde_json::to_string_pretty(&spec::schema()).expect("JSON"));
    if std::env::var_os("SBX_BLESS").is_some() {
        std::fs::create_dir_all(package("schemas")).expect("a folder");
        std::fs::write(&path, &fresh).expect("written");
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == fresh,
        "schemas/spec.schema.json is stale: SBX_BLESS=1 cargo test"
    );
}

fn instance(path: &Path) -> Option<serde_json::Value> {
    let text = std::fs::read_to_string(path).ok()?;
    let yaml: serde_yaml::Value = serde_yaml::from_str(&text).ok()?;
    serde_json::to_value(yaml).ok()
}

#[test]
fn examples_validate_and_broken_specs_do_not() {
    let validator = jsonschema::validator_for(&spec::schema()).expect("a schema");
    for name in ["everything", "quickstart-incus", "shared"] {
        let instance = instance(&package(&format!("examples/{name}.yaml"))).expect(name);
        let errors: Vec<String> = validator
            .iter_errors(&instance)
            .map(|e| format!("{} at {}", e, e.instance_path()))
            .collect();
        assert!(errors.is_empty(), "{name}: {errors:#?}");
    }
    for name in [
        "unknown-key",
        "unknown-setting",
        "wrong-type",
        "wrong-type-root",
        "missing",
        "conflicting-origin",
        "bad-durations",
        "bad-users",
        "bad-target",
        "variables-shape",
        "everything-wrong",
    ] {
        // What is not even YAML to every reader says nothing here.
        let Some(instance) = instance(&package(&format!("tests/errors/{name}.yaml"))) else {
            continue;
        };
        assert!(!validator.is_valid(&instance), "{name}");
    }
}
