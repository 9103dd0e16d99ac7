//! Local sandboxes: what one of each operation takes, and many of them beside the Incus backend, in one run.
//!
//! ```sh
//! cargo bench --bench local            # 1, 10 and 50 sandboxes
//! cargo bench --bench local -- 10      # these
//! ```
//!
//! With `INCUS_SOCKET` set, as `tests/incus/daemon start` says, Incus does the same. Ratios within one run mean
//! something; times are this machine's.

#![allow(clippy::print_stdout, reason = "what it measures is its output")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sbx_apply::backend::local::Local;
use sbx_apply::backend::{
    Account, Backend as _, CreateOpts, Exec as _, ExecOpts, FileChange, Files as _, Settings, Stop,
};
use sbx_apply::model::{Content, GuestPath, InstanceName, Mode};

/// How often each single operation is done; the median counts.
const ROUNDS: usize = 21;

fn main() {
    let counts: Vec<usize> = std::env::args()
        .skip(1)
        .filter_map(|argument| argument.parse().ok())
        .collect();
    let counts = if counts.is_empty() { vec![1, 10, 50] } else { counts };
    let folder = tempfile::tempdir_in(
        std::env::var_os("SBX_BENCH_FOLDER")
            .map_or_else(|| Path::new(env!("CARGO_TARGET_TMPDIR")).to_owned(), PathBuf::from),
    )
    .expect("a folder");
    let state = folder.path().join("state");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    floor();
    runtime.block_on(single(&state));
    quickstart(&state);
    println!(
        "\n{:>4}  {:>16}  {:>10}  {:>10}  {:>10}  {:>10}",
        "", "seconds", "create", "clone", "exec", "no-op plan"
    );
    for count in counts {
        let here = many(&Side::Local(&state), count);
        row(count, "local", &here.map(|time| format!("{:.3}", time.as_secs_f64())));
        if let Ok(socket) = std::env::var("INCUS_SOCKET") {
            let there = many(&Side::Incus(&socket), count);
            row(count, "incus", &there.map(|time| format!("{:.3}", time.as_secs_f64())));
            let ratios = [0, 1, 2, 3].map(|at| there[at].as_secs_f64() / here[at].as_secs_f64());
            row(count, "incus / local", &ratios.map(|ratio| format!("{ratio:.1} x")));
        }
    }
}

fn row(count: usize, what: &str, cells: &[String; 4]) {
    println!(
        "{count:>4}  {what:>16}  {:>10}  {:>10}  {:>10}  {:>10}",
        cells[0], cells[1], cells[2], cells[3]
    );
}

/// What the kernel takes for what a start and a stop cannot do without: programs of others, each its own process.
fn floor() {
    let table = "table inet sbx-bench {\n  chain c {\n    type filter hook forward priority filter;\n  }\n}\n";
    let steps: [(&str, &[&str], &str); 3] = [
        ("floor: new namespaces", &["unshare", "-mpuinC", "--fork", "true"], ""),
        ("floor: a table of nftables", &["nft", "-f", "-"], table),
        (
            "floor: and without it",
            &["nft", "delete", "table", "inet", "sbx-bench"],
            "",
        ),
    ];
    let mut times = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        for ((_, words, input), times) in steps.iter().zip(&mut times) {
            let begun = Instant::now();
            let child = Command::new(words[0])
                .args(&words[1..])
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn();
            // Only for root, and where the programs are.
            let Ok(mut child) = child else { return };
            let mut stdin = child.stdin.take().expect("a pipe");
            let _ = stdin.write_all(input.as_bytes());
            drop(stdin);
            if !child.wait().expect("waits").success() {
                return;
            }
            times.push(begun.elapsed());
        }
    }
    for ((what, ..), times) in steps.iter().zip(times) {
        tell(what, times);
    }
}

/// One of each, by the backend itself.
async fn single(state: &Path) {
    let settings = Settings::from([("state".to_owned(), state.display().to_string())]);
    let backend = Local::open(&settings, Path::new(env!("CARGO_BIN_EXE_sbx-apply"))).expect("opens");
    let name = |text: &str| InstanceName::observed(text);
    let opts = |text: &str| CreateOpts {
        name: text.to_owned(),
        image: Some("host".to_owned()),
        bare: true,
        ..CreateOpts::default()
    };
    let command = ExecOpts {
        command: vec!["/bin/true".to_owned()],
        account: Account::root(),
        env: [].into(),
        timeout: None,
    };
    let megabytes = FileChange::Write {
        path: GuestPath::new("/root/data").expect("a path"),
        content: Content::inline(vec![7; 50 << 20]),
        mode: Mode::FILE,
        owner: None,
    };
    let one = name("one");
    let first = timed(async || backend.create(&opts("first")).await.expect("creates")).await;
    println!(
        "the first sandbox of all: {:.1} ms, most of it this machine's folders",
        millis(first)
    );
    let mut times: Vec<(&str, Vec<Duration>)> = Vec::new();
    let mut took = |what: &'static str, time: Duration| match times.iter_mut().find(|(known, _)| *known == what) {
        Some((_, all)) => all.push(time),
        None => times.push((what, vec![time])),
    };
    for _ in 0..ROUNDS {
        took(
            "create",
            timed(async || backend.create(&opts("one")).await.expect("creates")).await,
        );
        took(
            "start",
            timed(async || backend.start(&one).await.expect("starts")).await,
        );
        let run = async || backend.output(&one, &command).await.expect("runs").code;
        took("exec", timed(async || assert_eq!(run().await, 0)).await);
        backend
            .change_files(&one, std::slice::from_ref(&megabytes))
            .await
            .expect("writes");
        let snapshot = async |label: &'static str| backend.create_snapshot(&one, label).await.expect("snapshots");
        took(
            "snapshot, running, 50 MB",
            timed(async || snapshot("running").await).await,
        );
        took(
            "stop",
            timed(async || backend.stop(&one, Stop::Force).await.expect("stops")).await,
        );
        took(
            "snapshot, stopped, 50 MB",
            timed(async || snapshot("stopped").await).await,
        );
        let copy = opts("two");
        let clone = async || backend.clone_from(&one, Some("stopped"), &copy).await.expect("clones");
        took("clone, 50 MB", timed(clone).await);
        let two = name("two");
        took(
            "start of a clone",
            timed(async || backend.start(&two).await.expect("starts")).await,
        );
        took(
            "delete, running",
            timed(async || backend.delete(&two).await.expect("deletes")).await,
        );
        backend.delete(&one).await.expect("deletes");
    }
    backend.delete(&name("first")).await.expect("deletes");
    for (what, all) in times {
        tell(what, all);
    }
}

fn tell(what: &str, mut all: Vec<Duration>) {
    all.sort();
    let (median, most) = (all[all.len() / 2], all[all.len() - 1]);
    println!("{what:<26} {:>8.1} ms, at most {:.1} ms", millis(median), millis(most));
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

async fn timed(work: impl AsyncFnOnce()) -> Duration {
    let begun = Instant::now();
    work().await;
    begun.elapsed()
}

/// The README's first command, and a plan after it.
fn quickstart(state: &Path) {
    let side = Side::Local(state);
    let spec = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/quickstart.kdl");
    for _ in 0..3 {
        let apply = side.run(&["apply", spec, "--yes"], "");
        let plan = side.run(&["plan", spec, "--detailed-exitcode"], "");
        let exec = side.run(&["exec", spec, "task-1", "--", "true"], "");
        let destroy = side.run(&["destroy", spec, "--allow-data-loss"], "");
        println!(
            "quickstart: apply {:.0} ms, no-op plan {:.0} ms, exec {:.0} ms, destroy {:.0} ms",
            millis(apply),
            millis(plan),
            millis(exec),
            millis(destroy)
        );
    }
}

/// Where many are made.
enum Side<'a> {
    Local(&'a Path),
    Incus(&'a str),
}

impl Side<'_> {
    /// Runs the tool, with a spec on standard input where it reads one there.
    fn run(&self, arguments: &[&str], spec: &str) -> Duration {
        let begun = Instant::now();
        let mut command = Command::new(env!("CARGO_BIN_EXE_sbx-apply"));
        match self {
            Self::Local(state) => command.env("SBX_LOCAL_STATE", state),
            Self::Incus(socket) => command.env("INCUS_SOCKET", socket),
        };
        let mut child = command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("the tool starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        // One that reads none may be gone.
        let _ = stdin.write_all(spec.as_bytes());
        drop(stdin);
        let ended = child.wait().expect("waits");
        assert!(ended.success(), "`sbx-apply {}` failed: {ended}", arguments.join(" "));
        begun.elapsed()
    }
}

/// Creates many from an image, clones as many, runs a command in each clone, and plans once more.
fn many(side: &Side<'_>, count: usize) -> [Duration; 4] {
    let (backend, image) = match side {
        Side::Local(_) => ("local", "host"),
        Side::Incus(_) => ("incus", "busybox"),
    };
    let file = "file \"/etc/bench.conf\" content=\"a = 1\\n\" mode=\"0600\"";
    let head = format!("environment \"many\"\nbackend \"{backend}\"\n");
    let made = format!("{head}sandbox \"made\" count={count} {{ image \"{image}\"; {file}; }}\n");
    let base =
        format!("{head}sandbox \"base\" {{ image \"{image}\"; {file}; state \"stopped\"; snapshot \"ready\"; }}\n");
    let clones =
        format!("{base}sandbox \"task\" count={count} {{ clone-from \"base\" snapshot=\"ready\"; {file}; }}\n");
    let destroy = || side.run(&["destroy", "-", "--allow-data-loss"], &head);
    let create = side.run(&["apply", "-", "--yes"], &made);
    destroy();
    side.run(&["apply", "-", "--yes"], &base);
    let clone = side.run(&["apply", "-", "--yes"], &clones);
    let plan = side.run(&["plan", "-", "--detailed-exitcode"], &clones);
    let begun = Instant::now();
    for number in 1..=count {
        let name = format!("task-{number}");
        side.run(&["exec", "-", &name, "--", "true"], &clones);
    }
    let exec = begun.elapsed();
    destroy();
    [create, clone, exec, plan]
}
