//! How commands end, with the simulated backend.

use sbx_apply::backend::memory::Memory;
use sbx_apply::backend::{ExecOpts, Output};

use crate::support::program::{Run, program};

const FRESH: &str = "tests/scenarios/fresh/after.kdl";
const TWO: &str = "tests/scenarios/replace/before.kdl";
const REPLACED: &str = "tests/scenarios/replace/after.kdl";

fn fails(_: &mut sbx_apply::backend::memory::Machine, options: &ExecOpts) -> Option<Output> {
    (options.command.last()? == "true").then(|| Output {
        code: 7,
        stdout: b"all is well\n".to_vec(),
        stderr: b"\x1b[2Jno, it is not\n".to_vec(),
    })
}

async fn ends(memory: &Memory, arguments: &[&str], code: u8) -> Run {
    let run = program(memory, arguments).await;
    assert_eq!(run.code, code, "{arguments:?}\n{}\n{}", run.stdout, run.stderr);
    run
}

#[tokio::test]
async fn without_a_terminal_losing_data_needs_the_flag() {
    let memory = Memory::new();
    let run = ends(&memory, &["apply", TWO], 0).await;
    assert!(
        run.stdout.ends_with("The environment matches the spec.\n"),
        "{}",
        run.stdout
    );
    let _ = memory.take_journal();
    let run = ends(&memory, &["apply", REPLACED, "--yes"], 4).await;
    assert!(run.stderr.contains("--allow-data-loss"), "{}", run.stderr);
    assert_eq!(memory.journal(), Vec::<String>::new(), "refused before the first write");
    ends(&memory, &["apply", REPLACED, "--allow-data-loss"], 0).await;
    ends(&memory, &["destroy", REPLACED, "--yes"], 4).await;
    ends(&memory, &["destroy", REPLACED, "--allow-data-loss"], 0).await;
    assert_eq!(memory.names(), Vec::<String>::new());
    ends(&memory, &["destroy", REPLACED], 0).await;
}

#[tokio::test]
async fn destroy_needs_no_spec() {
    let memory = Memory::new();
    ends(&memory, &["apply", TWO, "--yes", "--environment", "other"], 0).await;
    ends(&memory, &["apply", TWO, "--yes"], 0).await;
    let flags = ["--environment", "demo", "--backend", "local", "--allow-data-loss"];
    ends(&memory, &[&["destroy"], &flags[..]].concat(), 0).await;
    assert_eq!(memory.names(), ["other-base", "other-other"]);
}

#[tokio::test]
async fn a_failure_takes_only_what_needs_it_and_is_told_at_the_end() {
    let memory = Memory::new();
    memory.on_exec(fails);
    let run = ends(&memory, &["apply", TWO, "--yes"], 1).await;
    let expected = "\
failed: base: run install
    the step `install` exited with 7
    | all is well
    | \\u{1b}[2Jno, it is not

Skipped, because they need what failed:
  · 1 step after base/run:install: base

Failed after ";
    assert!(run.stderr.contains(expected), "{}", run.stderr);
    assert!(run.stderr.contains("base | no, it is not\n"), "{}", run.stderr);
    assert!(!run.stderr.contains('\u{1b}') && !run.stdout.contains('\u{1b}'));
    assert_eq!(memory.names(), ["demo-base", "demo-other"]);
}

#[tokio::test]
async fn quiet_says_only_what_went_wrong() {
    let memory = Memory::new();
    let run = ends(&memory, &["apply", FRESH, "--yes", "-q"], 0).await;
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("", ""));
    let run = ends(&memory, &["validate", FRESH, "-q"], 0).await;
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("", ""));
    let memory = Memory::new();
    memory.on_exec(fails);
    let run = ends(&memory, &["apply", FRESH, "--yes", "-q"], 1).await;
    assert_eq!(run.stdout, "");
    assert!(run.stderr.starts_with("failed: base: run install\n"), "{}", run.stderr);
}

#[tokio::test]
async fn progress_goes_to_standard_error_and_results_to_standard_output() {
    let memory = Memory::new();
    let run = ends(&memory, &["apply", TWO, "--yes", "--parallel", "1"], 0).await;
    assert!(
        run.stdout.starts_with("Environment demo on memory, 2 sandboxes:\n"),
        "{}",
        run.stdout
    );
    assert!(
        run.stderr
            .starts_with("base: create from image debian/12 ... done 0.0s\n"),
        "{}",
        run.stderr
    );
    assert!(
        !run.stderr.contains("write down"),
        "records are kept in silence: {}",
        run.stderr
    );
}

#[tokio::test]
async fn colours_are_for_whoever_asks() {
    let run = ends(&Memory::new(), &["plan", TWO, "--color", "always"], 0).await;
    assert!(run.stdout.contains('\u{1b}'));
}

#[tokio::test]
async fn show_and_graph() {
    let memory = Memory::new();
    memory.set_time(crate::support::program::NOW - 100_000);
    ends(&memory, &["apply", FRESH, "--yes", "--target", "base", "-q"], 0).await;
    let run = ends(&memory, &["show", FRESH], 0).await;
    let expected = "\
SANDBOX  STATUS   ADDRESSES  SOURCE     SNAPSHOTS  STALE  AGE
base     stopped  -          debian/12  ready      -      1d 3h
task-1   missing  -          -          -          -      -
task-2   missing  -          -          -          -      -
";
    assert_eq!(run.stdout, expected);
    let run = ends(&memory, &["show", FRESH, "--json"], 0).await;
    let shown: serde_json::Value = serde_json::from_str(&run.stdout).expect("JSON");
    assert_eq!(shown["sandboxes"][0]["snapshots"][0], "ready");
    for (format, expected) in [
        ("dot", "tests/cli/graph.dot"),
        ("mermaid", "tests/cli/graph.mermaid"),
        ("svg", "tests/cli/graph.svg"),
    ] {
        let arguments = ["graph", FRESH, "--target", "task-1", "--format", format];
        let run = ends(&memory, &arguments, 0).await;
        crate::support::blessed::check(expected, &run.stdout);
    }
}

#[tokio::test]
async fn mistakes_on_the_command_line_are_told() {
    let memory = Memory::new();
    for (arguments, said) in [
        (
            &["plan", FRESH, "--target", "nobody"][..],
            "--target: no sandbox is named `nobody`",
        ),
        (
            &["plan", FRESH, "--ignore", "nobody/power"],
            "--ignore: no sandbox is named `nobody`",
        ),
        (&["plan", FRESH, "--backend", "nothing"], "nothing"),
        (
            &["plan", FRESH, "--socket", "/s"],
            "the backend `local` has no setting `socket`",
        ),
        (&["plan", "tests/nothing.kdl"], "tests/nothing.kdl"),
        (
            &["destroy", "--environment", "No", "--backend", "local"],
            "--environment: ",
        ),
    ] {
        let run = ends(&memory, arguments, 1).await;
        assert!(run.stderr.contains(said), "{arguments:?}: {}", run.stderr);
        assert_eq!(run.stdout, "");
    }
    ends(&memory, &["plan", FRESH, "--pool", "p"], 0).await;
}
