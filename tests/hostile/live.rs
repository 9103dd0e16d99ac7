//! Live systems whose every text is chosen by somebody else.

use sbx_apply::backend::memory::Memory;
use sbx_apply::model::{Labels, Mode, Owner};

use crate::support::program::program;

const ODD: &str = "\u{1b}[2J\u{1b}]0;x\u{7}\u{202e}\r\n\u{9b}31m<img>`|x";

const SPEC: &str = "environment \"demo\"\n\
    sandbox \"one\" { image \"debian/12\"; env A=\"a\"; cpu 1; ttl \"24h\"; user \"dev\"; file \"/etc/motd\" content=\"hello\\n\"; \
    tree \"/srv\" source=\"app\" delete=true; snapshot \"ready\"; }\n\
    sandbox \"two\" { clone-from \"one\" snapshot=\"ready\"; }\n";

/// Every text of an instance that somebody with a hand on the backend, or root inside, can choose.
fn spoil(memory: &Memory) {
    memory
        .edit("demo-one", |machine| {
            machine.env.insert("A".to_owned(), ODD.to_owned());
            machine.cpu = Some(ODD.to_owned());
            machine.config.insert("user.x".to_owned(), ODD.to_owned());
            machine.location = Some(ODD.to_owned());
            machine.labels.0.insert(Labels::TTL.to_owned(), ODD.to_owned());
            machine.labels.0.insert("odd".to_owned(), ODD.to_owned());
            machine.write("/etc/motd", ODD)?;
            machine.write_as(&format!("/srv/{}", "\u{202e}txt.exe"), ODD, Mode::FILE, Owner::ROOT)?;
            let kept = machine.snapshots.get("ready").cloned();
            machine.snapshots.extend(kept.map(|kept| ("by hand".to_owned(), kept)));
            Ok(())
        })
        .expect("edits");
    memory
        .edit("demo-two", |machine| {
            machine.labels.0.insert(Labels::APPLIED.to_owned(), ODD.to_owned());
            machine.labels.0.insert(Labels::COMPLETE.to_owned(), ODD.to_owned());
            Ok(())
        })
        .expect("edits");
}

#[tokio::test]
async fn nothing_of_a_live_system_reaches_the_terminal_as_more_than_text() {
    let memory = Memory::new();
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("app")).expect("makes");
    std::fs::write(folder.path().join("app/a"), "a").expect("writes");
    let spec = folder.path().join("sbx.kdl");
    let spec = spec.to_str().expect("a path");
    std::fs::write(spec, SPEC).expect("writes");
    let made = program(&memory, &["apply", spec]).await;
    assert_eq!(made.code, 0, "{}", made.stderr);
    let commands: &[&[&str]] = &[
        &["plan", spec],
        &["plan", spec, "--json"],
        &["plan", spec, "--markdown"],
        &["check", spec],
        &["check", spec, "--json"],
        &["show", spec],
        &["show", spec, "--json"],
        &["gc", spec],
        &["gc", spec, "--json"],
        &["graph", spec],
        &["graph", spec, "--format", "mermaid"],
        &["graph", spec, "--format", "svg"],
        &["apply", spec, "--allow-data-loss"],
        &["plan", spec, "--detailed-exitcode"],
        &["destroy", spec, "--allow-data-loss"],
    ];
    spoil(&memory);
    for command in commands {
        let run = program(&memory, command).await;
        for (stream, text) in [("stdout", &run.stdout), ("stderr", &run.stderr)] {
            let odd = |sign: char| (sign.is_control() && sign != '\n') || ('\u{202a}'..='\u{202e}').contains(&sign);
            let at = text.find(odd);
            assert_eq!(at, None, "{command:?} {stream}: {:?}", text.get(at.unwrap_or(0)..));
        }
        let expected: &[u8] = match command[0] {
            "check" => &[3],
            _ => &[0],
        };
        assert!(
            expected.contains(&run.code),
            "{command:?}: {}\n{}\n{}",
            run.code,
            run.stdout,
            run.stderr
        );
    }
    assert!(memory.names().is_empty());
}
