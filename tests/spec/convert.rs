//! What is converted means the same.

use std::path::Path;

use sbx_apply::spec::{self, Format, Request};

use super::twins::{bare, example, load};

fn loaded(text: &str, format: Format) -> String {
    let mut request = Request::text("converted", text, Some(format));
    request.root = Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples"));
    bare(&load(&request))
}

#[test]
fn every_example_means_the_same_in_the_other_format_and_back() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    for entry in std::fs::read_dir(&folder).expect("the examples") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let Some(from) = Format::of_name(&name) else { continue };
        // No environment of its own: included by others.
        if name.starts_with("shared") {
            continue;
        }
        let to = if from == Format::Kdl { Format::Yaml } else { Format::Kdl };
        let text = std::fs::read(&path).expect("an example");
        let there = spec::convert(&name, &text, from, to).unwrap_or_else(|r| panic!("{name}: {:?}", r.diagnostics));
        let back =
            spec::convert(&name, there.as_bytes(), to, from).unwrap_or_else(|r| panic!("{there}{:?}", r.diagnostics));
        let original = bare(&load(&example(&name)));
        assert_eq!(loaded(&there, to), original, "{name}:\n{there}");
        assert_eq!(loaded(&back, from), original, "{name}:\n{back}");
    }
}

#[test]
fn what_is_wrong_is_not_converted() {
    let rejected = spec::convert("x.kdl", b"sandbox \"a\" { cpus 2; }", Format::Kdl, Format::Yaml).expect_err("wrong");
    assert_eq!(rejected.diagnostics[0].code, "spec::unknown-property");
}
