//! Any bytes, read as a spec: a desired state or diagnostics, never a crash. What can be converted must be
//! readable again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sbx_apply::spec::{self, Format, Request};
use sbx_apply::view::diagnostics;

fuzz_target!(|data: &[u8]| {
    let Some((first, text)) = data.split_first() else {
        return;
    };
    let (from, to) = if first % 2 == 0 {
        (Format::Kdl, Format::Yaml)
    } else {
        (Format::Yaml, Format::Kdl)
    };
    // The root is a folder without files, so that nothing but the text is read.
    let mut request = Request::text("fuzz", text, Some(from));
    request.root = Some(std::env::temp_dir());
    if let Err(rejected) = spec::load(&request) {
        let _ = diagnostics::render(&rejected.diagnostics, &rejected.sources, diagnostics::Style::default());
    }
    if let Ok(there) = spec::convert("fuzz", text, from, to) {
        match spec::convert("fuzz", there.as_bytes(), to, from) {
            Ok(back) => {
                let again = spec::convert("fuzz", back.as_bytes(), from, to).ok();
                let twice = again.and_then(|again| spec::convert("fuzz", again.as_bytes(), to, from).ok());
                // The first way may bring things into the other format's order; after that nothing moves.
                assert_eq!(twice.as_deref(), Some(back.as_str()), "{there}");
            }
            // Longer than it was, it may pass a bound.
            Err(rejected) => assert!(
                rejected.diagnostics.iter().all(|d| d.code == "spec::file-too-large"),
                "{there}\n{:?}",
                rejected.diagnostics
            ),
        }
    }
});
