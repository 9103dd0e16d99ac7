//! What the documents show is what the program takes: every example and every block of KDL or YAML in them is
//! loaded whole.

use std::fs;
use std::path::{Path, PathBuf};

use sbx_apply::spec::{Format, Request, load};

/// A block of a document.
struct Block {
    document: PathBuf,
    line: usize,
    format: Format,
    text: String,
}

fn documents() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut documents = vec![root.join("README.md"), root.join("tests/incus/README.md")];
    let pages = fs::read_dir(root.join("src/docs")).expect("the pages");
    documents.extend(pages.filter_map(|page| {
        let path = page.expect("a page").path();
        (path.extension()? == "md").then_some(path)
    }));
    documents.sort();
    documents
}

fn blocks(document: &Path) -> Vec<Block> {
    let text = fs::read_to_string(document).expect("a document");
    let mut blocks = Vec::new();
    let mut open: Option<Option<Block>> = None;
    for (number, line) in text.lines().enumerate() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(language)) => {
                let format = match language {
                    "kdl" => Some(Format::Kdl),
                    "yaml" => Some(Format::Yaml),
                    _ => None,
                };
                open = Some(format.map(|format| Block {
                    document: document.to_owned(),
                    line: number + 1,
                    format,
                    text: String::new(),
                }));
            }
            (Some(_), Some(_)) => blocks.extend(open.take().flatten()),
            (Some(Some(block)), None) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            _ => {}
        }
    }
    blocks
}

#[test]
fn every_block_of_every_document_is_a_spec() {
    let blocks: Vec<Block> = documents().iter().flat_map(|document| blocks(document)).collect();
    assert!(blocks.len() >= 7, "only {} blocks were found", blocks.len());
    for block in blocks {
        let mut request = Request::text("block", block.text.as_bytes(), Some(block.format));
        request.root = Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples"));
        if let Err(rejected) = load(&request) {
            let problems: Vec<String> = rejected
                .diagnostics
                .iter()
                .map(|problem| format!("{} ({})", problem.message, problem.marks[0].place))
                .collect();
            panic!("{}:{}: {}", block.document.display(), block.line, problems.join("; "));
        }
    }
}

#[test]
fn blocks_next_to_each_other_in_both_languages_mean_the_same() {
    let mut pairs = 0;
    for document in documents() {
        let blocks = blocks(&document);
        for pair in blocks.windows(2) {
            let [one, two] = pair else { continue };
            if (one.format, two.format) != (Format::Kdl, Format::Yaml) {
                continue;
            }
            let facts = |block: &Block| {
                let mut request = Request::text("block", block.text.as_bytes(), Some(block.format));
                request.root = Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples"));
                let desired = load(&request).expect("checked by the other test").desired;
                let memory = sbx_apply::backend::memory::Memory::new().with_image("busybox", &[]);
                let capabilities = sbx_apply::backend::Observe::capabilities(&memory).clone();
                sbx_apply::plan::plan(&desired, &Default::default(), &capabilities, &Default::default())
                    .expect("no targets")
                    .changes
            };
            assert_eq!(facts(one), facts(two), "{}:{}", two.document.display(), two.line);
            pairs += 1;
        }
    }
    assert!(pairs >= 2, "only {pairs} pairs were found");
}
