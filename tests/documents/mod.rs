//! What the documents show is what the program takes: every example and every block of KDL or YAML in them is
//! loaded whole.

use std::fs;
use std::path::{Path, PathBuf};

use sbx_apply::backend::Observe as _;
use sbx_apply::backend::memory::Memory;
use sbx_apply::model::Live;
use sbx_apply::plan::{Options, Plan, plan};
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

fn request(block: &Block) -> Request {
    let mut request = Request::text("block", block.text.as_bytes(), Some(block.format));
    request.root = Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples"));
    request
}

#[test]
fn every_block_of_every_document_is_a_spec() {
    let blocks: Vec<Block> = documents().iter().flat_map(|document| blocks(document)).collect();
    assert!(blocks.len() >= 7, "only {} blocks were found", blocks.len());
    for block in blocks {
        if let Err(rejected) = load(&request(&block)) {
            let problems: Vec<String> = rejected
                .diagnostics
                .iter()
                .map(|problem| format!("{} ({})", problem.message, problem.marks[0].place))
                .collect();
            panic!("{}:{}: {}", block.document.display(), block.line, problems.join("; "));
        }
    }
}

/// What a spec would have done on a backend that has nothing yet.
fn plan_of(request: &Request) -> Plan {
    let loaded = load(request).unwrap_or_else(|rejected| panic!("{:?}: {:#?}", request.input, rejected.diagnostics));
    let capabilities = Memory::new().capabilities().clone();
    let mut plan = plan(&loaded.desired, &Live::default(), &capabilities, &Options::default()).expect("no targets");
    // Places differ between languages; what is asked for must not.
    plan.refusals
        .iter_mut()
        .for_each(|refusal| refusal.diagnostic.marks.clear());
    plan
}

#[test]
fn every_example_makes_sense_and_its_twin_plans_the_same() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let files = fs::read_dir(&folder)
        .expect("the examples")
        .map(|file| file.expect("a file").path());
    let specs: Vec<PathBuf> = files
        .filter(|path| path.extension().is_some_and(|e| e == "kdl" || e == "yaml"))
        .collect();
    let mut twins = 0;
    for path in &specs {
        let text = fs::read_to_string(path).expect("an example");
        if !text.contains("environment") {
            // Something to be included, and loaded with what includes it.
            continue;
        }
        let plan = plan_of(&Request::file(path));
        assert!(!plan.changes.is_empty(), "{}", path.display());
        let twin = path.with_extension("yaml");
        if path.extension().is_some_and(|extension| extension == "kdl") && specs.contains(&twin) {
            let other = plan_of(&Request::file(&twin));
            assert_eq!(plan.changes, other.changes, "{}", twin.display());
            let steps = |plan: &Plan| {
                plan.steps
                    .iter()
                    .map(|step| (step.id.clone(), step.title.clone(), step.needs.clone()))
                    .collect::<Vec<_>>()
            };
            assert_eq!(steps(&plan), steps(&other), "{}", twin.display());
            assert_eq!(plan.refusals, other.refusals, "{}", twin.display());
            twins += 1;
        }
    }
    assert!(twins >= 2, "only {twins} twins were found");
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
            let changes = |block: &Block| plan_of(&request(block)).changes;
            assert_eq!(changes(one), changes(two), "{}:{}", two.document.display(), two.line);
            pairs += 1;
        }
    }
    assert!(pairs >= 2, "only {pairs} pairs were found");
}
