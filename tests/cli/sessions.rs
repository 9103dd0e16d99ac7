//! The everyday commands with real sandboxes; `console` and prompts on a real terminal.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::Signal;

use crate::support::daemon;
use crate::support::namespaces;
use crate::support::pty::Pty;

/// An environment with a running sandbox `on` and a stopped one `off`, that goes with this.
struct Environment {
    _folder: tempfile::TempDir,
    spec: PathBuf,
    variables: Vec<(&'static str, String)>,
}

impl Environment {
    fn local() -> Option<Self> {
        let (_, image) = namespaces::open()?;
        // Images lie beside their spec.
        let folder = tempfile::tempdir_in(namespaces::folder()).expect("a folder");
        let image = PathBuf::from(image);
        let name = image.file_name()?.to_str()?.to_owned();
        let state = folder.path().join("state").display().to_string();
        let spec = namespaces::folder().join(format!("{}.kdl", unique()));
        Some(Self::applied(folder, spec, "", &name, vec![("SBX_LOCAL_STATE", state)]))
    }

    fn incus() -> Option<Self> {
        let daemon = daemon::find()?;
        let folder = tempfile::tempdir().expect("a folder");
        let spec = folder.path().join("sbx.kdl");
        let socket = daemon.socket.display().to_string();
        let backend = "backend \"incus\"\n";
        Some(Self::applied(
            folder,
            spec,
            backend,
            "busybox",
            vec![("INCUS_SOCKET", socket)],
        ))
    }

    fn applied(
        folder: tempfile::TempDir,
        spec: PathBuf,
        backend: &str,
        image: &str,
        variables: Vec<(&'static str, String)>,
    ) -> Self {
        let text = format!(
            "environment \"{}\"\n{backend}sandbox \"on\" {{ image \"{image}\"; }}\n\
             sandbox \"off\" {{ image \"{image}\"; state \"stopped\"; }}\n",
            unique()
        );
        fs::write(&spec, text).expect("writes");
        let environment = Self {
            _folder: folder,
            spec,
            variables,
        };
        environment.run(&["apply"]);
        environment
    }

    /// The words with the spec where the command wants it.
    fn words(&self, words: &[&str]) -> Vec<String> {
        let mut all: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
        let at = match words[0] {
            "snapshot" | "file" => 2,
            "doctor" => return all,
            _ => 1,
        };
        all.insert(at, self.spec.display().to_string());
        all
    }

    /// The program with something to read.
    fn output(&self, words: &[&str], stdin: &[u8]) -> Output {
        let mut child = Command::new(env!("CARGO_BIN_EXE_sbx-apply"))
            .args(self.words(words))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .spawn()
            .expect("runs");
        let mut to = child.stdin.take().expect("a pipe");
        std::thread::scope(|scope| {
            scope.spawn(move || {
                // Not every command reads.
                let _ = to.write_all(stdin);
            });
            child.wait_with_output().expect("ends")
        })
    }

    fn run(&self, words: &[&str]) -> String {
        let output = self.output(words, b"");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{words:?}: {said}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The program on a terminal of 100 columns and 30 rows.
    fn pty(&self, words: &[&str]) -> Pty {
        let words = self.words(words);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut variables: Vec<(&str, &str)> = self.variables.iter().map(|(n, v)| (*n, v.as_str())).collect();
        variables.push(("TERM", "vt100"));
        Pty::start(&words, &variables, (100, 30))
    }
}

impl Drop for Environment {
    fn drop(&mut self) {
        // Also after a failed assertion: what runs goes on.
        let destroyed = self.output(&["destroy", "--allow-data-loss"], b"").status.success();
        assert!(destroyed || std::thread::panicking(), "something is left");
        let _ = fs::remove_file(&self.spec);
    }
}

fn unique() -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    format!("pty{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

fn a_session_from_its_beginning_to_its_end(environment: &Environment) {
    let mut pty = environment.pty(&["console", "on"]);
    assert!(!pty.is_raw());
    pty.types("stty size; echo $TERM; echo \"is $((40 + 2))\"\n");
    pty.sees("30 100");
    pty.sees("vt100");
    pty.sees("is 42");
    assert!(pty.is_raw());
    pty.resize((90, 20));
    pty.types("while [ \"$(stty size)\" != '20 90' ]; do sleep 1; done; echo fol\"lo\"wed\n");
    pty.sees("followed");
    pty.types("sh -c 'echo sta\"r\"ted; exec sleep 1011'\n");
    pty.sees("started");
    pty.types("\u{3}");
    // What is typed before that is dropped with what was interrupted (termios(3), NOFLSH).
    pty.sees("^C");
    pty.types("exit 9\n");
    let (code, said, raw) = pty.ends();
    assert_eq!((code, raw), (Some(9), false), "{said}");
}

fn signals_end_a_session_and_the_terminal_is_as_it_was(environment: &Environment) {
    for (signal, code) in [
        (Signal::TERM, 143),
        (Signal::HUP, 129),
        (Signal::INT, 130),
        (Signal::QUIT, 131),
    ] {
        let mut pty = environment.pty(&["console", "on", "--", "sh", "-c", "echo rea\"d\"y; sleep 1012"]);
        pty.sees("ready");
        assert!(pty.is_raw());
        pty.signal(signal);
        let (ended, said, raw) = pty.ends();
        assert_eq!((ended, raw), (Some(code), false), "{signal:?} {said}");
    }
    let left = environment.run(&["exec", "on", "--", "sh", "-c", "ps | grep '[s]leep 1012' || true"]);
    assert_eq!(left, "");
}

fn a_session_can_be_stopped_and_goes_on(environment: &Environment) {
    let mut pty = environment.pty(&[
        "console",
        "on",
        "--",
        "sh",
        "-c",
        "echo rea\"d\"y; read line; echo go\"t\" $line",
    ]);
    pty.sees("ready");
    pty.signal(Signal::TSTP);
    for _ in 0..100 {
        if !pty.is_raw() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert!(!pty.is_raw(), "let go of while it is stopped");
    pty.signal(Signal::CONT);
    for _ in 0..100 {
        if pty.is_raw() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    pty.types("more\n");
    pty.sees("got more");
    let (code, _, raw) = pty.ends();
    assert_eq!((code, raw), (Some(0), false));
}

fn where_there_is_no_session_the_terminal_stays_as_it_is(environment: &Environment) {
    for (words, told) in [
        (&["console", "off"][..], "`off` does not run: it is stopped"),
        (&["console", "onn"], "did you mean `on`?"),
        (&["console", "on", "--", "/no/such/program"], ""),
    ] {
        let (code, said, raw) = environment.pty(words).ends();
        let expected = if told.is_empty() { 127 } else { 125 };
        assert_eq!((code, raw), (Some(expected), false), "{words:?} {said}");
        assert!(said.contains(told), "{words:?} {said}");
    }
}

fn losing_data_needs_a_typed_yes(environment: &Environment) {
    environment.run(&["exec", "on", "--", "sh", "-c", "echo then > /kept"]);
    let (code, said, _) = environment.pty(&["snapshot", "create", "on", "before"]).ends();
    assert_eq!(code, Some(0), "{said}");
    environment.run(&["exec", "on", "--", "sh", "-c", "echo now > /kept"]);
    for (typed, code, kept) in [("no\n", 4, "now\n"), ("yes\n", 0, "then\n")] {
        let mut pty = environment.pty(&["snapshot", "restore", "on", "before"]);
        pty.sees("loses what is on its disk now");
        pty.sees("Type yes to go on");
        pty.types(typed);
        let (ended, said, _) = pty.ends();
        assert_eq!(ended, Some(code), "{said}");
        assert_eq!(environment.run(&["exec", "on", "--", "cat", "/kept"]), kept);
    }
    let mut pty = environment.pty(&["snapshot", "delete", "on", "before"]);
    pty.sees("Delete the snapshot before of on?");
    pty.types("y");
    let (code, said, _) = pty.ends();
    assert_eq!(code, Some(0), "{said}");
    // Standard input is the terminal here, and no command's.
    let (code, said, _) = environment.pty(&["exec", "on", "--", "cat"]).ends();
    assert_eq!((code, said.as_str()), (Some(0), ""));
}

fn commands_and_files_and_snapshots(environment: &Environment) {
    // Codes, streams and variables of a command.
    let script = "cat; echo $WORD >&2; exit 7";
    let words = ["exec", "on", "--env", "WORD=out of band", "--", "sh", "-c", script];
    let ran = environment.output(&words, b"in\0and out");
    assert_eq!(
        (ran.status.code(), &ran.stdout[..], &ran.stderr[..]),
        (Some(7), &b"in\0and out"[..], &b"out of band\n"[..])
    );
    // Bytes in and out, of one that runs and one that does not.
    let bytes: Vec<u8> = (0..200_000_u32).map(|n| (n % 251) as u8).collect();
    for sandbox in ["on", "off"] {
        let write = ["file", "write", sandbox, "/srv/deep/bytes", "--mode", "0640"];
        assert!(environment.output(&write, &bytes).status.success(), "{sandbox}");
        let read = environment.output(&["file", "read", sandbox, "/srv/deep/bytes"], b"");
        assert!(read.stdout == bytes, "{sandbox}: {} bytes", read.stdout.len());
        let listed = environment.run(&["file", "list", sandbox, "/srv", "--recursive"]);
        assert!(
            listed.contains("0640  200000  /srv/deep/bytes\n"),
            "{sandbox}: {listed}"
        );
        environment.run(&["file", "delete", sandbox, "/srv/deep", "--recursive"]);
        let gone = environment.output(&["file", "read", sandbox, "/srv/deep/bytes"], b"");
        let said = String::from_utf8_lossy(&gone.stderr);
        assert_eq!(gone.status.code(), Some(1), "{said}");
        assert!(said.contains("/srv/deep/bytes"), "{said}");
    }
    assert_eq!(environment.run(&["exec", "on", "--", "ls", "/srv"]), "");
    // Moments of a disk.
    for sandbox in ["on", "off"] {
        environment.output(&["file", "write", sandbox, "/root/kept"], b"then");
        environment.run(&["snapshot", "create", sandbox, "moment"]);
        environment.output(&["file", "write", sandbox, "/root/kept"], b"now");
        let listed = environment.run(&["snapshot", "list", sandbox]);
        assert!(listed.contains("moment"), "{listed}");
        let refused = environment.output(&["snapshot", "restore", sandbox, "moment"], b"");
        assert_eq!(refused.status.code(), Some(4), "nobody has consented");
        environment.run(&["snapshot", "restore", sandbox, "moment", "--allow-data-loss"]);
        assert_eq!(environment.run(&["file", "read", sandbox, "/root/kept"]), "then");
        environment.run(&["snapshot", "delete", sandbox, "moment", "--allow-data-loss"]);
        let listed = environment.run(&["snapshot", "list", sandbox]);
        assert_eq!(listed, format!("{sandbox} has no snapshots.\n"));
    }
    // What there is.
    let shown = environment.run(&["show"]);
    let is = |sandbox: &str, status: &str| {
        let mut lines = shown.lines().filter(|line| line.starts_with(sandbox));
        lines.any(|line| line.contains(status))
    };
    assert!(is("on ", "running") && is("off ", "stopped"), "{shown}");
    let ran = environment.output(&["doctor"], b"");
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success() && said.contains("snapshots"), "{said}");
}

fn a_kept_plan_is_compared_again_after_the_yes(environment: &Environment) {
    let text = fs::read_to_string(&environment.spec).expect("reads");
    let more = text.replacen("\"on\" {", "\"on\" { env MORE=\"1\";", 1);
    fs::write(&environment.spec, more).expect("writes");
    let kept = environment.spec.with_extension("plan.json").display().to_string();
    for moves in [true, false] {
        environment.run(&["plan", "--out", &kept]);
        let mut variables: Vec<(&str, &str)> = environment.variables.iter().map(|(n, v)| (*n, v.as_str())).collect();
        variables.push(("TERM", "vt100"));
        let mut pty = Pty::start(&["apply", &kept], &variables, (100, 30));
        pty.sees("Apply this plan?");
        if moves {
            // Nothing that the plan does is about this; but the plan was made when it was otherwise.
            environment.run(&["snapshot", "create", "on", "meanwhile"]);
        }
        pty.types("y");
        let (code, said, _) = pty.ends();
        assert_eq!(code, Some(if moves { 4 } else { 0 }), "{said}");
        assert_eq!(said.contains("snapshot:meanwhile"), moves, "{said}");
    }
    fs::remove_file(kept).expect("removes");
}

fn a_question_that_is_broken_off_leaves_the_terminal_as_it_was(environment: &Environment) {
    let text = fs::read_to_string(&environment.spec).expect("reads");
    let more = text.replacen("\"on\" {", "\"on\" { env MORE=\"1\";", 1);
    fs::write(&environment.spec, more).expect("writes");
    environment.run(&["snapshot", "create", "on", "moment"]);
    let questions: [(&[&str], &str); 2] = [
        (&["apply"], "Apply this plan?"),
        (&["snapshot", "restore", "on", "moment"], "Type yes to go on"),
    ];
    for (words, question) in questions {
        for by_key in [true, false] {
            let mut pty = environment.pty(words);
            pty.sees(question);
            for _ in 0..500 {
                if pty.is_raw() {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            assert!(pty.is_raw(), "it waits for a key");
            match by_key {
                true => pty.types("\u{3}"),
                false => pty.signal(Signal::TERM),
            }
            let (code, said, raw) = pty.ends();
            assert_eq!((code, raw), (Some(130), false), "{words:?} {by_key}: {said}");
            // DECTCEM of a vt220 and all that came after: the cursor is shown or hidden.
            let cursor = said.rfind("\u{1b}[?25").map(|at| &said[at..at + 6]);
            assert!(cursor != Some("\u{1b}[?25l"), "{words:?} {by_key}: {said:?}");
            assert!(said.contains("nothing was changed"), "{said}");
        }
    }
}

macro_rules! on_both {
    ($($test:ident,)+) => {
        mod on_local {
            $(#[test]
            fn $test() {
                if let Some(environment) = super::Environment::local() {
                    super::$test(&environment);
                }
            })+
        }

        mod on_incus {
            $(#[test]
            fn $test() {
                if let Some(environment) = super::Environment::incus() {
                    super::$test(&environment);
                }
            })+
        }
    };
}

on_both! {
    a_kept_plan_is_compared_again_after_the_yes,
    a_question_that_is_broken_off_leaves_the_terminal_as_it_was,
    a_session_can_be_stopped_and_goes_on,
    a_session_from_its_beginning_to_its_end,
    commands_and_files_and_snapshots,
    losing_data_needs_a_typed_yes,
    signals_end_a_session_and_the_terminal_is_as_it_was,
    where_there_is_no_session_the_terminal_stays_as_it_is,
}
