//! What root inside a sandbox cannot do, each tried from there; and what it cannot make the tool do.

use std::fmt::Write as _;
use std::fs;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use sbx_apply::backend::{Account, ErrorKind, ExecOpts, FileChange};
use sbx_apply::model::{Content, GuestPath, Mode, Owner};

use super::attempts::{ATTEMPTS, Attempt, NOTHING, PRELUDE, Python, Shell};
use crate::support::daemon::skipped;
use crate::support::namespaces::{self, Sandbox};

#[tokio::test]
async fn what_root_inside_tries_is_denied() {
    let host = Host::new();
    let sandbox = Sandbox::start().await;
    assert_eq!(sandbox.says("id -u").await, "0\n", "it is root that tries");
    let has_python = sandbox.shell("python3 -c ''").await.code == 0;
    let mut table = String::from("| root inside tries to | by | and gets |\n| --- | --- | --- |\n");
    let mut wrong = String::new();
    for (topic, attempts) in ATTEMPTS {
        for Attempt { by, does, gets } in *attempts {
            let _ = writeln!(table, "| {topic} | {by} | {} |", gets.trim_matches('\n'));
            let does = match does {
                Shell(script) => (*script).to_owned(),
                Python(_) if !has_python => {
                    skipped(&format!("{topic}, by {by}: this machine has no Python"));
                    continue;
                }
                Python(script) => format!("python3 - <<'END'\n{PRELUDE}{script}\nEND\n"),
            };
            let output = sandbox.shell(&host.fill(&does)).await;
            let said = [&output.stdout[..], &output.stderr[..]].concat();
            let said = String::from_utf8_lossy(&said).into_owned();
            if said.contains(": not found") || said.contains("command not found") {
                skipped(&format!("{topic}, by {by}: {said}"));
                continue;
            }
            let as_told = match *gets {
                NOTHING => said.is_empty(),
                gets => said.contains(gets),
            };
            if output.code == 0 || !as_told {
                let _ = writeln!(wrong, "{topic}, by {by}: {} {said:?}, and not {gets}", output.code);
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    host.assert_unharmed();
    let status = sandbox
        .says("grep -E '^(NoNewPrivs|Seccomp|CapEff|CapBnd):' /proc/self/status | tr -d '\\t'")
        .await;
    assert_eq!(
        status,
        "CapEff:00000000000405fb\nCapBnd:00000000000405fb\nNoNewPrivs:1\nSeccomp:2\n"
    );
    sandbox.end().await;
    let told = include_str!("../../src/docs/local.md");
    assert!(
        told.contains(&table),
        "the table in src/docs/local.md should be\n{table}"
    );
}

/// Waits for a process that runs the tool's program, and tries to write to that as soon as nobody runs it any more.
const OVERWRITE: &str = r#"
import errno, os, time
def find():
    while True:
        for number in filter(str.isdigit, os.listdir('/proc')):
            try:
                if os.stat(f'/proc/{number}/exe').st_size == SIZE:
                    return os.open(f'/proc/{number}/exe', os.O_PATH)
            except OSError:
                pass
held = find()
end = time.time() + 20
while time.time() < end:
    try:
        os.open(f'/proc/self/fd/{held}', os.O_WRONLY)
        print('written')
        break
    except OSError as error:
        if error.errno != errno.ETXTBSY:
            print(error.strerror)
            break
    time.sleep(0.01)
"#;

#[tokio::test]
async fn nobody_inside_writes_to_the_tools_own_program() {
    // Its owner is who runs the tool, as of a program that a user has built.
    let folder = tempfile::tempdir_in(namespaces::folder()).expect("a folder");
    let program = folder.path().join("program");
    fs::copy(env!("CARGO_BIN_EXE_sbx-apply"), &program).expect("copies");
    let size = fs::metadata(&program).expect("looks").len();
    let sandbox = Sandbox::start().await;
    // A file that runs cannot be written to, and pid 1 runs: but perhaps another one, of the tool before an update.
    let updated = namespaces::backend_by(&program);
    if sandbox.shell("python3 -c ''").await.code != 0 {
        skipped("writing to the tool's program: this machine has no Python");
        return sandbox.end().await;
    }
    let script = OVERWRITE.replace("SIZE", &size.to_string());
    let begin = format!(
        "cat > /tmp/overwrite <<'END'\n{script}\nEND\n\
                         printf '#!/proc/self/exe\\n' > /tmp/again; chmod 755 /tmp/again; mkdir /tmp/library; mkfifo /tmp/library/libc.so.6; \
                         setsid python3 /tmp/overwrite > /tmp/said 2>&1 < /dev/null &"
    );
    sandbox.shell(&begin).await;
    // The tool's program, as the interpreter of a script, waits for a library of the sandbox's that never comes.
    let opts = ExecOpts {
        command: vec!["/tmp/again".to_owned()],
        account: Account::root(),
        env: [("LD_LIBRARY_PATH".to_owned(), "/tmp/library".to_owned())].into(),
        timeout: Some(Duration::from_secs(2)),
    };
    let ran = updated.output(&sandbox.name, &opts).await;
    assert_eq!(ran.map_err(|error| error.kind()), Err(ErrorKind::Timeout));
    let mut said = String::new();
    for _ in 0..100 {
        said = sandbox.says("cat /tmp/said").await;
        if !said.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let expected = match rustix::process::geteuid().is_root() {
        true => "Permission denied\n",
        false => "Read-only file system\n",
    };
    assert_eq!(said, expected);
    sandbox.end().await;
}

/// What of this machine a sandbox shall not reach, made for the test.
struct Host {
    process: Child,
    folder: tempfile::TempDir,
    _listeners: (UnixListener, UnixListener),
    port: TcpListener,
}

impl Host {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("secret"), "of the host").expect("writes");
        let at = UnixListener::bind(folder.path().join("socket")).expect("listens");
        let name = SocketAddr::from_abstract_name(format!("sbx-{}", std::process::id())).expect("a name");
        Self {
            process: Command::new("sleep").arg("424").spawn().expect("starts"),
            folder,
            _listeners: (at, UnixListener::bind_addr(&name).expect("listens")),
            port: TcpListener::bind("0.0.0.0:0").expect("listens"),
        }
    }

    /// A script with the places of this host.
    fn fill(&self, script: &str) -> String {
        let port = self.port.local_addr().expect("has one").port();
        script
            .replace("FOLDER", &self.folder.path().display().to_string())
            .replace("PID", &self.process.id().to_string())
            .replace("ABSTRACT", &format!("sbx-{}", std::process::id()))
            .replace("PORT", &port.to_string())
    }

    fn assert_unharmed(mut self) {
        assert_eq!(self.process.try_wait().expect("looks"), None, "it runs on");
        assert_eq!(
            fs::read_to_string(self.folder.path().join("secret")).expect("reads"),
            "of the host"
        );
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test]
async fn nothing_of_the_tool_is_seen_inside() {
    let sandbox = Sandbox::start().await;
    let env = sandbox
        .says("env; cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'")
        .await;
    for line in env.lines() {
        let name = line.split('=').next().unwrap_or_default();
        assert!(
            ["HOME", "USER", "PATH", "PWD", "SHLVL", "_", "OLDPWD"].contains(&name),
            "{line}"
        );
    }
    let commands = sandbox.says("cat /proc/[0-9]*/cmdline | tr '\\0' ' '").await;
    assert!(
        !commands.contains("cargo") && !commands.contains("hostile"),
        "{commands}"
    );
    let open = sandbox
        .says("ls -l /proc/self/fd /proc/1/fd 2>/dev/null | grep -o ' -> .*' | sort -u")
        .await;
    for line in open.lines() {
        let known = [" -> /dev/null", " -> /proc/"]
            .iter()
            .any(|known| line.starts_with(known))
            || line.contains("pipe:");
        assert!(known, "{line}");
    }
    sandbox.end().await;
}

/// Everything below `/etc` that not everybody may read.
fn private(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(metadata) = entry.metadata() else { continue };
        let mode = metadata.permissions().mode();
        let needed = if metadata.is_dir() { 0o005 } else { 0o004 };
        if !metadata.is_symlink() && mode & needed != needed {
            found.push(entry.path());
        } else if metadata.is_dir() {
            private(&entry.path(), found);
        }
    }
}

#[tokio::test]
async fn private_files_of_the_host_are_not_there() {
    let sandbox = Sandbox::start().await;
    let mut found = Vec::new();
    private(Path::new("/etc"), &mut found);
    for path in found {
        let script = format!("cat '{}'", path.display());
        assert_ne!(sandbox.shell(&script).await.code, 0, "{}", path.display());
    }
    sandbox.end().await;
}

#[tokio::test]
async fn links_do_not_lead_the_tool_out() {
    let sandbox = Sandbox::start().await;
    let outside = tempfile::tempdir().expect("a folder");
    fs::write(outside.path().join("secret"), "of the host").expect("writes");
    let out = outside.path().display();
    let script = format!(
        "ln -s {out} /absolute; ln -s ../../../../../../../..{out} /relative; ln -s /proc/1/root{out} /magic; \
         mkdir -p /tmp/inside; ln -s /proc/self/root /self"
    );
    sandbox.shell(&script).await;
    for stopped in [false, true] {
        if stopped {
            let stop = sandbox
                .backend
                .stop(&sandbox.name, sbx_apply::backend::Stop::Force)
                .await;
            stop.expect("stops");
        }
        for link in ["/absolute", "/relative", "/magic", &format!("/self{out}")] {
            let at = |name: &str| GuestPath::new(format!("{link}/{name}")).expect("a path");
            let read = sandbox.backend.read(&sandbox.name, &at("secret"), 100).await;
            assert!(read.is_err(), "{link}: {read:?}");
            let write = FileChange::Write {
                path: at("written"),
                content: Content::inline(&b"x"[..]),
                mode: Mode::FILE,
                owner: Some(Owner::ROOT),
            };
            // Inside it may be made, if it can: a folder of that name is the sandbox's own.
            let _ = sandbox.backend.change_files(&sandbox.name, &[write]).await;
            let _ = sandbox.backend.delete_file(&sandbox.name, &at("secret")).await;
        }
    }
    let left: Vec<_> = fs::read_dir(outside.path())
        .expect("reads")
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert_eq!(left, ["secret"]);
    sandbox.end().await;
}

#[tokio::test]
async fn nothing_runs_on_after_a_delete() {
    let sandbox = Sandbox::start().await;
    let mark = format!("{}{}", std::process::id(), 424_242);
    sandbox
        .shell(&format!("setsid sleep {mark} >/dev/null 2>&1 </dev/null & sleep 0.1"))
        .await;
    let runs = || {
        fs::read_dir("/proc")
            .expect("reads")
            .flatten()
            .any(|entry| fs::read_to_string(entry.path().join("cmdline")).is_ok_and(|command| command.contains(&mark)))
    };
    assert!(runs(), "it ran");
    sandbox.end().await;
    assert!(!runs());
}

#[tokio::test]
async fn what_the_caller_has_open_is_not_open_inside() {
    let sandbox = Sandbox::start().await;
    let file = fs::File::open("/etc/passwd").expect("is there");
    let folder = fs::File::open("/").expect("is there");
    for open in [&file, &folder] {
        // As a shell leaves them, or an editor.
        rustix::io::fcntl_setfd(open, rustix::io::FdFlags::empty()).expect("set");
    }
    let said = sandbox
        .says("ls -l /proc/self/fd | sed -n 's/.*-> //p'; echo done")
        .await;
    assert!(said.contains("done"), "{said}");
    let kept = said
        .lines()
        .filter(|line| line.starts_with('/') && !line.starts_with("/proc/") && *line != "/dev/null");
    assert_eq!(kept.collect::<Vec<_>>(), Vec::<&str>::new(), "{said}");
    sandbox.end().await;
}
