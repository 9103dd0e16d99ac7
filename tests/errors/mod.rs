//! Specs that are wrong: `NAME.kdl` or `NAME.yaml`, and in `NAME.stderr` exactly what is said of it.
//!
//! `SBX_BLESS=1 cargo test` writes the expected texts anew.

use std::path::{Path, PathBuf};

use sbx_apply::spec::{self, Request};
use sbx_apply::view::diagnostics;

mod stress;

fn folder() -> PathBuf {
    // Cargo runs tests in the package's folder; a relative path keeps this machine's out of the texts.
    PathBuf::from("tests/errors")
}

/// What a spec's first line asks of the command line: `// args: --var a=b --environment x`.
fn request(path: &Path) -> Request {
    let mut request = Request::file(path);
    let text = std::fs::read(path).expect("a spec");
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().next().unwrap_or_default();
    let Some((_, args)) = line.split_once("args: ") else {
        return request;
    };
    let mut args = args.split_whitespace();
    while let Some(flag) = args.next() {
        let value = args.next().expect("a value").to_owned();
        match flag {
            "--var" => {
                let (name, value) = value.split_once('=').expect("name=value");
                request.variables.push((name.to_owned(), value.to_owned()));
            }
            "--environment" => request.environment = Some(value),
            "--backend" => request.backend = Some(value),
            "--allow-unsafe-config" => request.allow_unsafe_config.push(value),
            other => panic!("{other}"),
        }
    }
    request
}

/// What is said of a spec.
fn said(path: &Path) -> String {
    match spec::load(&request(path)) {
        Ok(_) => "no error\n".to_owned(),
        Err(rejected) => {
            let style = diagnostics::Style::default();
            let text = diagnostics::render(&rejected.diagnostics, &rejected.sources, style);
            let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
            format!("{}\n", lines.join("\n"))
        }
    }
}

#[test]
fn every_wrong_spec_is_told_what_is_wrong() {
    // A link that leads out of the folder cannot be told apart from a file by every tool that copies a
    // repository, so the test makes it.
    let link = folder().join("files/link-out");
    let _ = std::fs::remove_file(&link);
    std::os::unix::fs::symlink("/etc/hostname", &link).expect("a link");
    let mut specs: Vec<PathBuf> = std::fs::read_dir(folder())
        .expect("the folder")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|is| is == "kdl" || is == "yaml"))
        .collect();
    specs.sort();
    assert!(specs.len() >= 60, "{}", specs.len());
    let bless = std::env::var_os("SBX_BLESS").is_some();
    let mut wrong = Vec::new();
    for path in specs {
        let expected_path = path.with_extension(format!(
            "{}.stderr",
            path.extension().and_then(|is| is.to_str()).expect("an extension")
        ));
        let said = said(&path);
        assert_ne!(said, "no error\n", "{}", path.display());
        if bless {
            std::fs::write(&expected_path, &said).expect("written");
        } else if std::fs::read_to_string(&expected_path).unwrap_or_default() != said {
            wrong.push(format!("{}:\n{said}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}\nSBX_BLESS=1 accepts these", wrong.join("\n"));
}
