//! KDL 1, KDL 2 and YAML mean the same.

use std::path::Path;

use sbx_apply::model::Desired;
use sbx_apply::spec::{self, Request};
use sbx_apply::view::diagnostics;

pub(crate) fn example(name: &str) -> Request {
    Request::file(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name))
}

pub(crate) fn load(request: &Request) -> Desired {
    match spec::load(request) {
        Ok(loaded) => loaded.desired,
        Err(rejected) => {
            let style = diagnostics::Style::default();
            panic!(
                "{}",
                diagnostics::render(&rejected.diagnostics, &rejected.sources, style)
            )
        }
    }
}

/// Without places, which are the only thing that may differ.
pub(crate) fn bare(desired: &Desired) -> String {
    let mut desired = desired.clone();
    desired.files.clear();
    let text = format!("{desired:#?}");
    let mut kept = String::new();
    let mut skipping = 0_usize;
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        if skipping > 0 {
            if indent < skipping {
                skipping = 0;
            }
            continue;
        }
        // Which file the spec is in is nothing that it says.
        let guarded = line.trim_start().starts_with("guarded: {");
        if guarded && line.trim_end().ends_with("},") {
            continue;
        }
        if guarded || line.trim_end().ends_with("Place {") {
            skipping = indent + 1;
            continue;
        }
        kept.push_str(line);
        kept.push('\n');
    }
    kept
}

#[test]
fn the_examples_load_and_their_twins_are_equal() {
    for name in ["everything", "quickstart-incus"] {
        let kdl = load(&example(&format!("{name}.kdl")));
        let yaml = load(&example(&format!("{name}.yaml")));
        assert_eq!(bare(&kdl), bare(&yaml), "{name}");
    }
    assert_eq!(load(&example("agents.kdl")).sandboxes.len(), 3);
}

#[test]
fn kdl_1_and_kdl_2_mean_the_same() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/everything.kdl");
    let text = std::fs::read_to_string(path).expect("the example");
    let two = text
        .replace("=true", "=#true")
        .replace("=false", "=#false")
        .replace(" true", " #true");
    let at_root = |text: &str| {
        let mut request = Request::text("everything.kdl", text, Some(spec::Format::Kdl));
        request.root = Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples"));
        load(&request)
    };
    assert_eq!(bare(&at_root(&text)), bare(&at_root(&two)));
}
