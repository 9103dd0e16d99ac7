//! Secrets: written, compared by their hashes, and never seen.

use sbx_apply::backend::ReadNotes as _;
use sbx_apply::backend::memory::Memory;
use sbx_apply::model::{EnvironmentName, Mode, NoteKey, Owner};

use super::program_in;
use crate::support::program::Run;

const PATH: &str = "/home/dev/.token";
const ONE: &str = "s3cret-Value-1";
const TWO: &str = "s3cret-Value-2";

/// A sandbox with a secret in its user's home.
fn spec(more: &str) -> String {
    format!("sandbox \"one\" {{ image \"debian/12\"; user \"dev\"; file \"{PATH}\" secret=\"TOKEN\"; {more} }}")
}

async fn with(memory: &Memory, command: &[&str], spec: &str, value: Option<&str>) -> Run {
    let variables: Vec<(&str, &str)> = value.into_iter().map(|value| ("TOKEN", value)).collect();
    program_in(memory, command, spec, &variables).await
}

fn content(memory: &Memory) -> String {
    let machine = memory.machine("demo-one").expect("is there");
    String::from_utf8(machine.read(PATH).expect("a file")).expect("text")
}

const PLAN: &[&str] = &["plan", "-", "--detailed-exitcode"];
const APPLY: &[&str] = &["apply", "-"];

#[tokio::test]
async fn a_secret_that_has_to_be_written_must_be_there() {
    let memory = Memory::new();
    for command in [PLAN, APPLY] {
        let said = with(&memory, command, &spec(""), None).await;
        assert_eq!(said.code, 1, "{}", said.stderr);
        assert!(said.stderr.contains("plan::secret-not-set"), "{}", said.stderr);
        assert!(said.stderr.contains("export TOKEN before the call"), "{}", said.stderr);
    }
    assert!(memory.names().is_empty(), "nothing was done");
    let said = with(&memory, APPLY, &spec(""), Some(ONE)).await;
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    let machine = memory.machine("demo-one").expect("is there");
    let found = machine.found(PATH).expect("a file");
    assert_eq!(
        (found.mode, found.owner),
        (Mode::SECRET, Owner { uid: 1_000, gid: 1_000 })
    );
    assert_eq!(content(&memory), ONE);
}

#[tokio::test]
async fn a_secret_is_compared_by_its_hash_and_without_its_variable_by_the_record() {
    let memory = Memory::new();
    let plan = async |value, code| {
        let said = with(&memory, PLAN, &spec(""), value).await;
        assert_eq!(said.code, code, "{}{}", said.stdout, said.stderr);
        said.stdout
    };
    assert_eq!(with(&memory, APPLY, &spec(""), Some(ONE)).await.code, 0);
    assert!(!plan(Some(ONE), 0).await.contains("source not checked"));
    let unchecked = plan(None, 0).await;
    assert!(
        unchecked.contains("source not checked, TOKEN is not set here"),
        "{unchecked}"
    );

    let rotated = plan(Some(TWO), 2).await;
    assert!(rotated.contains("a secret → another secret"), "{rotated}");
    assert_eq!(with(&memory, APPLY, &spec(""), Some(TWO)).await.code, 0);
    assert_eq!(content(&memory), TWO);
    plan(Some(TWO), 0).await;

    memory
        .edit("demo-one", |machine| machine.write(PATH, "by hand"))
        .expect("edits");
    assert!(plan(Some(TWO), 3).await.contains("drift"));
    plan(Some(ONE), 3).await;
    let refused = with(&memory, APPLY, &spec(""), None).await;
    assert_eq!(refused.code, 1, "{}", refused.stdout);
    assert_eq!(content(&memory), "by hand", "nothing was done");
    assert_eq!(with(&memory, APPLY, &spec(""), Some(TWO)).await.code, 0);
    assert_eq!(content(&memory), TWO);

    // The owner of a file can be put right without knowing what is in it.
    memory
        .edit("demo-one", |machine| machine.attributes(PATH, Mode::FILE, Owner::ROOT))
        .expect("edits");
    plan(None, 3).await;
    assert_eq!(with(&memory, APPLY, &spec(""), None).await.code, 0);
    plan(None, 0).await;
    assert_eq!(content(&memory), TWO);
}

#[tokio::test]
async fn a_check_needs_no_values() {
    let memory = Memory::new();
    let check = async |value, code| {
        let said = with(&memory, &["check", "-"], &spec(""), value).await;
        assert_eq!(said.code, code, "{}{}", said.stdout, said.stderr);
        said.stdout
    };
    let needed = "an apply has to write it, and needs TOKEN for that";
    assert!(!check(Some(ONE), 2).await.contains(needed));
    assert!(check(None, 2).await.contains(needed));
    assert_eq!(with(&memory, APPLY, &spec(""), Some(ONE)).await.code, 0);
    assert!(
        check(None, 0)
            .await
            .contains("source not checked, TOKEN is not set here")
    );
    memory
        .edit("demo-one", |machine| machine.write(PATH, "by hand"))
        .expect("edits");
    check(Some(ONE), 3).await;
    let drifted = check(None, 3).await;
    assert!(drifted.contains(needed) && drifted.contains("drift"), "{drifted}");
    // Who means to apply is told before.
    assert_eq!(with(&memory, PLAN, &spec(""), None).await.code, 1);
}

#[tokio::test]
async fn a_file_becomes_secret_and_public_again_and_neither_is_shown() {
    let memory = Memory::new();
    let public = format!("sandbox \"one\" {{ image \"debian/12\"; file \"{PATH}\" content=\"public\"; }}");
    let secret = spec("").replace("user \"dev\";", "");
    assert_eq!(with(&memory, APPLY, &public, None).await.code, 0);
    let said = with(&memory, PLAN, &secret, Some(ONE)).await;
    assert_eq!(said.code, 2, "the live file is as it was applied: {}", said.stdout);
    assert_eq!(with(&memory, APPLY, &secret, Some(ONE)).await.code, 0);
    assert_eq!(with(&memory, PLAN, &secret, Some(ONE)).await.code, 0);
    for variable in [None, Some(ONE)] {
        let said = with(&memory, PLAN, &public, variable).await;
        assert_eq!(said.code, 2, "{}", said.stdout);
        assert!(!said.stdout.contains(ONE), "no diff shows what it was: {}", said.stdout);
    }
    assert_eq!(with(&memory, APPLY, &public, None).await.code, 0);
    assert_eq!(content(&memory), "public");
    assert_eq!(with(&memory, PLAN, &public, None).await.code, 0);
}

#[tokio::test]
async fn a_secret_travels_with_snapshots_and_a_step_runs_again_when_it_changes() {
    let memory = Memory::new();
    let spec = spec(&format!(
        "run \"login\" command=\"echo login >> /etc/ran\" on-change=\"{PATH}\"; snapshot \"ready\""
    ));
    let said = with(&memory, APPLY, &spec, Some(ONE)).await;
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stdout.contains("its secret files travel with"), "{}", said.stdout);
    let said = with(&memory, PLAN, &spec, Some(TWO)).await;
    assert!(said.stdout.contains("run login"), "{}", said.stdout);
    assert!(
        said.stdout.contains("snapshot ready"),
        "it holds the old one: {}",
        said.stdout
    );
    let said = with(&memory, PLAN, &spec, None).await;
    assert_eq!(said.code, 0, "{}", said.stdout);
}

/// What a run said, and all that is kept of it in the file `out`.
fn said(run: &Run) -> String {
    format!("{}{}", run.stdout, run.stderr)
}

#[tokio::test]
async fn the_value_is_nowhere_but_in_the_file() {
    let memory = Memory::new();
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("plan.json");
    let out = out.to_str().expect("a path");
    let loud = spec(&format!(
        "run \"loud\" command=\"cat {PATH}\"; run \"wrong\" command=\"echo {ONE} not found; false\""
    ));
    // The spec itself must not name the value either: only the failing command does, as a program could.
    let quiet = loud.replace(ONE, &ONE.chars().rev().collect::<String>());
    let mut texts = Vec::new();
    for command in [
        &["plan", "-"][..],
        &["plan", "-", "--json"],
        &["plan", "-", "--markdown"],
        &["plan", "-", "--out", out],
        &["check", "-"],
        &["check", "-", "--json"],
        &["graph", "-"],
        &["apply", "-", "-vvv"],
        &["apply", "-", "--json"],
        &["show", "-", "--json"],
        &["plan", "-", "--json"],
        &["plan", "-", "--out", out],
        &["destroy", "-", "--allow-data-loss", "--json"],
    ] {
        let run = with(&memory, command, &quiet, Some(ONE)).await;
        texts.push(format!("{command:?}: {}", said(&run)));
        texts.extend(std::fs::read_to_string(out));
        for name in memory.names() {
            let labels = memory.machine(&name).map(|machine| format!("{:?}", machine.labels));
            texts.extend(labels);
        }
        let environment = EnvironmentName::new("demo").expect("a name");
        for key in [NoteKey::Lock, NoteKey::SecretKey] {
            let note = memory.note(&environment, key).await.expect("reads");
            texts.extend(note.map(|note| note.as_str().to_owned()));
        }
    }
    assert!(
        texts.iter().any(|text| text.contains("***")),
        "a step printed it: {texts:#?}"
    );
    assert!(
        texts.iter().any(|text| text.contains("secret:")),
        "a record has its hash"
    );
    let plain = sbx_apply::model::Digest::of(ONE.as_bytes());
    for text in &texts {
        for leak in [ONE, plain.as_str(), &plain.as_str()[..12]] {
            assert!(!text.contains(leak), "{leak} in {text}");
        }
    }
    let note = memory
        .note(&EnvironmentName::new("demo").expect("a name"), NoteKey::SecretKey)
        .await;
    assert_eq!(note.expect("reads"), None, "the key goes with the environment");
}

#[tokio::test]
async fn what_was_secret_once_is_not_shown_in_clones_trees_and_after_a_release() {
    let memory = Memory::new();
    let base = "sandbox \"one\" { image \"debian/12\"; state \"stopped\"; file \"/srv/t/tok\" secret=\"TOKEN\"; \
                file \"/etc/group\" secret=\"TOKEN\"; snapshot \"ready\"; }\n";
    let leaf = |holds: &str| format!("{base}sandbox \"leaf\" {{ clone-from \"one\" snapshot=\"ready\"; {holds} }}");
    assert_eq!(with(&memory, APPLY, &leaf(""), Some(ONE)).await.code, 0);
    let plain = sbx_apply::model::Digest::of(ONE.as_bytes());
    let hidden = async |spec: &str| {
        for command in [PLAN, &["plan", "-", "--json"], &["check", "-", "--markdown"]] {
            for value in [None, Some(ONE)] {
                let run = with(&memory, command, spec, value).await;
                let text = said(&run);
                assert!(!text.contains(ONE), "{text}");
                assert!(!text.contains(&plain.as_str()[..12]), "{text}");
            }
        }
    };
    for holds in [
        "file \"/srv/t/tok\" content=\"plain\\n\";",
        "tree \"/srv/t\" source=\"app\" delete=true;",
        "tree \"/srv/t\" source=\"app\";",
    ] {
        hidden(&leaf(holds)).await;
    }
    // Released: it was there before us, so its contents stay, and stay secret.
    let released = leaf("").replace("file \"/etc/group\" secret=\"TOKEN\";", "");
    let apply = with(&memory, &["apply", "-", "--allow-data-loss"], &released, Some(ONE)).await;
    assert_eq!(apply.code, 0, "{}{}", apply.stdout, apply.stderr);
    let public = released.replace(
        "state \"stopped\";",
        "state \"stopped\"; file \"/etc/group\" content=\"new\\n\";",
    );
    hidden(&public).await;
    let apply = with(&memory, &["apply", "-", "--allow-data-loss"], &public, Some(ONE)).await;
    assert_eq!(apply.code, 0, "{}{}", apply.stdout, apply.stderr);
    assert_eq!(with(&memory, PLAN, &public, Some(ONE)).await.code, 0);
}

#[tokio::test]
async fn a_secret_that_was_put_elsewhere_is_masked_where_that_is_shown() {
    let memory = Memory::new();
    let spec = spec(
        "env KEPT=\"1\"; file \"/etc/conf\" content=\"token=\\n\"; file \"/etc/copy\" content=\"x\"; \
         file \"/etc/link\" content=\"x\"; tree \"/srv/t\" source=\"app\"; \
         ignore \"env:OTHER\"; env OTHER=\"1\"",
    );
    assert_eq!(with(&memory, APPLY, &spec, Some(ONE)).await.code, 0);
    memory
        .edit("demo-one", |machine| {
            machine.env.insert("KEPT".to_owned(), format!("x{ONE}"));
            machine.env.insert("OTHER".to_owned(), format!("{ONE}y"));
            machine.write("/etc/copy", format!("{ONE}\n"))?;
            machine.write("/etc/conf", format!("token={ONE}\n"))?;
            machine.write("/srv/t/start", ONE)?;
            machine.symlink("/etc/link", &format!("/run/{ONE}"), Owner::ROOT)
        })
        .expect("edits");
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("plan.json");
    let out = out.to_str().expect("a path");
    let plain = [ONE.to_owned(), format!("{ONE}\n")].map(|text| sbx_apply::model::Digest::of(text.as_bytes()));
    let reading = [
        &["plan", "-"][..],
        &["plan", "-", "--json"],
        &["plan", "-", "--markdown"],
        &["plan", "-", "--out", out],
        &["check", "-"],
        &["check", "-", "--json"],
    ];
    // Who has another value, or none, does not see the one that is there either.
    let values = [Some(ONE), None, Some(TWO)].into_iter();
    let looks = values.flat_map(|value| reading.map(|command| (command, value)));
    for (command, value) in looks.chain([(&["apply", "-", "--json", "-vvv"][..], Some(ONE))]) {
        let text = said(&with(&memory, command, &spec, value).await);
        let text = text + &std::fs::read_to_string(out).unwrap_or_default();
        assert!(text.contains("***"), "{command:?}: {text}");
        for leak in [ONE, &plain[0].as_str()[..12], &plain[1].as_str()[..12]] {
            assert!(!text.contains(leak), "{command:?}: {leak} in {text}");
        }
    }
    // What is masked is repaired all the same.
    assert_eq!(with(&memory, PLAN, &spec, Some(ONE)).await.code, 0);
    let machine = memory.machine("demo-one").expect("is there");
    assert_eq!(machine.read("/etc/conf"), Some(b"token=\n".to_vec()));
    // What somebody else has put in its place hides nothing.
    memory
        .edit("demo-one", |machine| {
            machine.write(PATH, "curl evil\n")?;
            machine.write("/etc/conf", "curl evil\n")
        })
        .expect("edits");
    for value in [Some(ONE), None] {
        let text = said(&with(&memory, &["check", "-"], &spec, value).await);
        assert!(text.contains("-curl evil"), "{text}");
    }
}

#[tokio::test]
async fn an_inherited_secret_is_no_seed_where_it_is_exported() {
    let memory = Memory::new();
    let spec = spec("snapshot \"ready\"") + "\nsandbox \"leaf\" { clone-from \"one\" snapshot=\"ready\"; }";
    assert_eq!(with(&memory, APPLY, &spec, Some(ONE)).await.code, 0);
    let exported =
        crate::support::program::program(&memory, &["export", "--environment", "demo", "--backend", "local"]).await;
    let told = format!("the file {PATH} came with its source or has left the spec, and may be secret");
    assert!(exported.stdout.contains(&told), "{}", exported.stdout);
    assert!(!exported.stdout.contains("written once"), "{}", exported.stdout);
}
