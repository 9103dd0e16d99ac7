//! The exit code of each case, in a table that the documents repeat.

use std::fs;
use std::path::Path;

use sbx_apply::backend::memory::{Machine, Memory};
use sbx_apply::model::Status;

use crate::support::program::program;

/// What there is before the command is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    /// Nothing.
    Nothing,
    /// The spec, applied.
    Applied,
    /// The same, and somebody stopped a sandbox.
    Drifted,
    /// The same, and somebody changed an accepted field.
    Accepted,
    /// An instance that is not ours, under a name that the spec wants.
    Foreign,
    /// The spec, applied; then a ttl is written on a sandbox, and is over.
    Expired,
    /// The same, and another instance claims to be that sandbox.
    Twice,
    /// The spec, applied; then a plan is kept, and a limit changed.
    Moved,
    /// The spec, applied; then somebody else works on it.
    Locked,
    /// The spec with a sandbox that can write to it, applied.
    Mounted,
    /// The spec with a sandbox that is protected, applied.
    Guarded,
}

/// Which spec the command is given: each is the first one with an edit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spec {
    Same,
    /// A limit is another one.
    Edited,
    /// The image is another one.
    Image,
    /// A sandbox is no more in it.
    Fewer,
    /// It is none.
    Wrong,
    /// It wants what the backend cannot do.
    Lacking,
    /// Its set-up step fails.
    Failing,
    /// Its set-up step undoes what it declares.
    Restless,
    /// A sandbox can write to it, and a limit is another one.
    Written,
}

use Before::{Accepted, Applied, Drifted, Expired, Foreign, Guarded, Locked, Mounted, Moved, Nothing, Twice};
use Spec::{Edited, Failing, Fewer, Image, Lacking, Restless, Same, Written, Wrong};

/// Words, what there was, which spec, the code, and the case as the documents tell it.
type Case = (&'static str, Before, Spec, u8, &'static str);

const CASES: &[Case] = &[
    ("plan", Nothing, Same, 0, "`plan`, whatever it shows"),
    (
        "plan --detailed-exitcode",
        Applied,
        Same,
        0,
        "`check`, `plan --detailed-exitcode`: in sync",
    ),
    ("check", Applied, Same, 0, ""),
    ("check", Accepted, Same, 0, "… all drift is accepted"),
    ("check", Applied, Fewer, 0, "… sandboxes are left over"),
    ("apply", Nothing, Same, 0, "`apply`, `destroy`: done, or nothing to do"),
    ("apply", Applied, Same, 0, ""),
    ("apply PLAN", Applied, Edited, 0, ""),
    ("destroy --allow-data-loss", Applied, Edited, 0, ""),
    ("destroy", Nothing, Same, 0, ""),
    ("gc", Applied, Same, 0, "`gc`: done, or nothing has expired"),
    ("gc", Expired, Same, 0, ""),
    (
        "adopt base demo-base",
        Foreign,
        Same,
        0,
        "`adopt`: done, or it is that sandbox already",
    ),
    ("adopt base demo-base", Applied, Same, 0, ""),
    ("validate", Nothing, Same, 0, "`validate`, `show`, `graph`: done"),
    ("show", Nothing, Same, 0, ""),
    ("graph", Nothing, Same, 0, ""),
    ("file list base /etc", Applied, Same, 0, "`file`, `snapshot`: done"),
    ("file write base /etc/new", Applied, Same, 0, ""),
    ("snapshot list other", Applied, Same, 0, ""),
    ("snapshot create base new", Applied, Same, 0, ""),
    ("snapshot delete other ready", Applied, Same, 0, ""),
    ("snapshot restore other ready --allow-data-loss", Applied, Same, 0, ""),
    ("doctor", Nothing, Same, 0, "`doctor`: sandboxes can be made"),
    (
        "export --environment demo --backend local",
        Applied,
        Same,
        0,
        "`export`: written",
    ),
    ("plan --nothing", Nothing, Same, 1, "wrong usage"),
    ("plan", Nothing, Wrong, 1, "an invalid spec"),
    ("check", Nothing, Wrong, 1, ""),
    ("validate", Nothing, Wrong, 1, ""),
    (
        "plan",
        Nothing,
        Lacking,
        1,
        "the backend cannot do what the spec asks for",
    ),
    ("check", Nothing, Lacking, 1, ""),
    ("apply", Nothing, Lacking, 1, ""),
    (
        "export --environment demo --backend local",
        Nothing,
        Same,
        1,
        "`export`: nothing of that name, or several environments at once",
    ),
    (
        "adopt base nothing",
        Nothing,
        Same,
        1,
        "`adopt`: no such sandbox, or no such instance",
    ),
    ("apply", Nothing, Failing, 1, "`apply`: a step failed"),
    (
        "apply",
        Nothing,
        Restless,
        1,
        "`apply`: all was done, and looked at again it is not as the spec says",
    ),
    (
        "apply DAMAGED",
        Applied,
        Edited,
        1,
        "`apply plan.json`: of another version, edited, or damaged",
    ),
    (
        "file read base /none",
        Applied,
        Same,
        1,
        "`file`, `snapshot`: no such sandbox, file or snapshot",
    ),
    ("file list none /etc", Applied, Same, 1, ""),
    ("snapshot restore other none --allow-data-loss", Applied, Same, 1, ""),
    (
        "exec base -- /bin/sh -ec false",
        Applied,
        Same,
        1,
        "`exec`, `console`: whatever the command ends with, here 1",
    ),
    (
        "plan --detailed-exitcode",
        Nothing,
        Same,
        2,
        "`check`, `plan --detailed-exitcode`: the spec has changes to apply",
    ),
    ("check", Nothing, Same, 2, ""),
    ("check", Applied, Edited, 2, ""),
    ("check", Applied, Image, 2, ""),
    (
        "check --prune",
        Applied,
        Fewer,
        2,
        "… with `--prune`, sandboxes are left over",
    ),
    (
        "plan --detailed-exitcode",
        Drifted,
        Same,
        3,
        "`check`, `plan --detailed-exitcode`: drift or conflict",
    ),
    ("check", Drifted, Same, 3, ""),
    ("check", Drifted, Edited, 3, "… and changes to apply as well"),
    (
        "plan",
        Foreign,
        Same,
        4,
        "`plan`, `check`, `apply`: a name is taken by what is not ours",
    ),
    ("check", Foreign, Same, 4, ""),
    ("apply", Foreign, Same, 4, ""),
    (
        "apply --yes",
        Applied,
        Image,
        4,
        "`apply`, `destroy`: data would be lost, and nobody consented",
    ),
    ("destroy --yes", Applied, Same, 4, ""),
    (
        "destroy --allow-data-loss",
        Guarded,
        Same,
        4,
        "`apply`, `destroy`: a protected sandbox would lose its disk",
    ),
    ("apply --prune", Guarded, Fewer, 4, ""),
    ("apply --allow-data-loss", Guarded, Image, 4, ""),
    (
        "apply",
        Mounted,
        Written,
        4,
        "`apply`: a sandbox may have written the spec, and nobody consented",
    ),
    ("apply PLAN", Mounted, Written, 4, ""),
    ("apply --allow-changed-spec", Mounted, Written, 0, ""),
    ("check", Mounted, Written, 2, ""),
    (
        "gc",
        Twice,
        Same,
        4,
        "`destroy`, `gc`: two instances claim to be one sandbox",
    ),
    ("destroy --allow-data-loss", Twice, Same, 4, ""),
    (
        "adopt other demo-base",
        Applied,
        Same,
        4,
        "`adopt`: the instance has an owner, or the sandbox an instance",
    ),
    (
        "apply PLAN",
        Moved,
        Edited,
        4,
        "`apply plan.json`: the spec, a source or the live system has moved",
    ),
    (
        "apply",
        Locked,
        Edited,
        4,
        "`apply`, `destroy`, `gc`, `adopt`, `snapshot`: somebody else works on the environment",
    ),
    ("destroy --allow-data-loss", Locked, Same, 4, ""),
    ("adopt other demo-base", Locked, Same, 4, ""),
    ("snapshot create base new", Locked, Same, 4, ""),
    ("check", Locked, Same, 0, ""),
    (
        "exec base -- true",
        Foreign,
        Same,
        4,
        "`exec`, `console`, `file`, `snapshot`: the name is held by what is not ours",
    ),
    ("file read base /etc/passwd", Foreign, Same, 4, ""),
    ("snapshot create base new", Foreign, Same, 4, ""),
    (
        "snapshot restore other ready --yes",
        Applied,
        Same,
        4,
        "`snapshot`: data would be lost, and nobody consented",
    ),
    (
        "exec base -- true",
        Nothing,
        Same,
        125,
        "`exec`, `console`: no command ran, whatever the reason",
    ),
    ("exec base -- true", Drifted, Same, 125, ""),
    ("exec base -- true", Applied, Wrong, 125, ""),
    ("console base", Applied, Same, 125, ""),
];

const SPEC: &str = "environment \"demo\"\nsandbox \"other\" { image \"debian/12\"; snapshot \"ready\"; }\n\
                    sandbox \"base\" { image \"debian/12\"; cpu 1; memory \"1GiB\"; ignore \"memory\"; }\n";

fn spec(spec: Spec) -> String {
    match spec {
        Same => SPEC.to_owned(),
        Edited => SPEC.replace("cpu 1", "cpu 2"),
        Image => SPEC.replace("\"debian/12\"; cpu", "\"debian/13\"; cpu"),
        Fewer => SPEC.lines().take(2).map(|line| format!("{line}\n")).collect(),
        Wrong => SPEC.replace("cpu 1", "cpus 1"),
        Lacking => SPEC.replace("cpu 1", "cpu 1; egress { enforce \"guest\"; allow \"192.0.2.1\"; }"),
        Written => SPEC.replace("cpu 1", "cpu 2; mount \"/work\" source=\".\""),
        Restless => SPEC.replace(
            "cpu 1",
            "cpu 1; file \"/etc/conf\" content=\"x\"; run \"go\" command=\"echo y > /etc/conf\"",
        ),
        Failing => SPEC.replace("cpu 1", "cpu 1; run \"go\" command=\"false\""),
    }
}

fn edit(memory: &Memory, change: impl FnOnce(&mut Machine)) {
    let edited = memory.edit("demo-base", |machine| {
        change(machine);
        Ok(())
    });
    edited.expect("is there");
}

/// Runs one case. Gives the code, all that was said, and whether anything was changed.
async fn run(words: &str, before: Before, given: Spec) -> (u8, String, bool) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (kept, file) = (path("plan.json"), path("sbx.kdl"));
    let memory = Memory::new();
    let first = match before {
        Mounted => spec(Written).replace("cpu 2", "cpu 1"),
        Guarded => SPEC.replace("cpu 1;", "cpu 1; protect true;"),
        _ => SPEC.to_owned(),
    };
    fs::write(&file, first).expect("writes");
    if !matches!(before, Nothing | Foreign) {
        let run = program(&memory, &["apply", &file, "-q"]).await;
        assert_eq!(run.code, 0, "{}", run.stderr);
    }
    match before {
        Drifted => edit(&memory, |machine| machine.status = Status::Stopped),
        Accepted => edit(&memory, |machine| machine.memory = None),
        Foreign => memory.make_foreign("demo-base").expect("is free"),
        Expired | Twice => {
            edit(&memory, |machine| {
                machine.labels.0.insert("ttl".to_owned(), "1h".to_owned());
            });
            if before == Twice {
                memory.copy_by_hand("demo-base", "copy").expect("copies");
                let claims = memory.edit("copy", |machine| {
                    machine.labels.0.insert("instance".to_owned(), "copy".to_owned());
                    Ok(())
                });
                claims.expect("is there");
            }
        }
        Locked => {
            let holder = crate::locking::lock(1);
            crate::locking::take(&memory, &holder).await;
        }
        Nothing | Applied | Moved | Mounted | Guarded => {}
    }
    fs::write(&file, spec(given)).expect("writes");
    let mut words: Vec<&str> = words.split(' ').collect();
    if matches!(words.get(1), Some(&("PLAN" | "DAMAGED"))) {
        let run = program(&memory, &["plan", &file, "--out", &kept]).await;
        assert_eq!(run.code, 0, "{}", run.stderr);
        if words.pop() == Some("DAMAGED") {
            let text = fs::read_to_string(&kept).expect("a plan");
            fs::write(&kept, text.replace("\"update\"", "\"none\"")).expect("writes");
        }
        words.push(&kept);
    } else if words[0] != "export" {
        let verbs = if matches!(words[0], "file" | "snapshot") { 2 } else { 1 };
        words.insert(verbs, &file);
    }
    if before == Moved {
        edit(&memory, |machine| machine.cpu = Some("9".to_owned()));
    }
    let journal = memory.journal();
    let run = program(&memory, &words).await;
    (
        run.code,
        format!("{}\n{}", run.stdout, run.stderr),
        memory.journal() != journal,
    )
}

#[tokio::test]
async fn each_case_has_its_exit_code() {
    for (words, before, given, code, _) in CASES {
        let (ended, said, changed) = run(words, *before, *given).await;
        assert_eq!(ended, *code, "{words} {before:?} {given:?}\n{said}");
        let changes = ["adopt", "apply", "destroy", "exec", "file write", "gc", "snapshot"]
            .iter()
            .any(|word| words.starts_with(word));
        assert!(
            !changed || changes && *code < 4,
            "{words} {before:?} {given:?} changed something\n{said}"
        );
    }
}

/// The rows of the table: of each code, the cases that have words.
fn rows() -> Vec<String> {
    let told = CASES.iter().filter(|(_, _, _, _, words)| !words.is_empty());
    told.map(|(_, _, _, code, words)| format!("| {code} | {words} |"))
        .collect()
}

#[test]
fn the_documents_have_the_same_table() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/docs/exit-codes.md");
    let page = fs::read_to_string(page).expect("the page");
    let is_case = |line: &&str| {
        let code = line.strip_prefix("| ").and_then(|line| line.split(' ').next());
        code.is_some_and(|code| code.parse::<u8>().is_ok_and(|code| code != 130))
    };
    let shown: Vec<&str> = page.lines().filter(is_case).collect();
    assert_eq!(shown, rows());
}
