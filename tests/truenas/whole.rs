//! The whole program at simulated systems: one spec planned and applied on all three, and on the other backends, and nothing left
//! of it.

use std::process::{Command, Stdio};

use super::sim::{Dialect, Knobs, Sim};
use crate::support::place::Place;

/// What every dialect can do.
const SPEC: &str = r#"
environment "NAME"

backend "truenas"

sandbox "base" {
    image "debian/bookworm"
    user "dev" uid=1001
    state "stopped"
    env GREETING="it's $HOME"
    file "/etc/motd" content="hello\n" mode="0640"
    file "/home/dev/.token" secret="TOKEN"
    run "prepare" command="mkdir -p /var/lib/demo && printf %s \"$GREETING\" > /var/lib/demo/greeting"
    snapshot "ready"
}

sandbox "task" count=2 {
    clone-from "base" snapshot="ready"
    file "/etc/task" content="one of two\n"
    run "check" command="grep -q HOME /var/lib/demo/greeting && test \"$(stat -c %U:%a /home/dev/.token)\" = dev:600"
}
"#;

/// Where the program makes its sandboxes.
enum Whereabouts<'a> {
    System(&'a Sim),
    Elsewhere(&'a Place),
}

/// The program with a spec, as somebody runs it.
pub(super) struct Program<'a> {
    whereabouts: Whereabouts<'a>,
    environment: String,
    spec: std::path::PathBuf,
    /// What this machine's names are to it, where it has its own.
    hosts: Option<std::path::PathBuf>,
    folder: tempfile::TempDir,
}

impl<'a> Program<'a> {
    /// `NAME` in a spec becomes the name of an environment of its own.
    pub(super) fn new(sim: &'a Sim, spec: &str) -> Self {
        Self::made(Whereabouts::System(sim), sim.port(), spec)
    }

    /// The same on another backend.
    fn elsewhere(place: &'a Place, spec: &str) -> Self {
        Self::made(Whereabouts::Elsewhere(place), 0, spec)
    }

    fn made(whereabouts: Whereabouts<'a>, number: u16, spec: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let program = Self {
            whereabouts,
            environment: format!("w{}-{number}", std::process::id()),
            spec: folder.path().join("sbx.kdl"),
            hosts: None,
            folder,
        };
        program.write(spec);
        program
    }

    /// Puts another spec in its place.
    pub(super) fn write(&self, spec: &str) {
        std::fs::write(&self.spec, spec.replace("NAME", &self.environment)).expect("writes");
    }

    /// The same with names of its own, which only it sees.
    pub(super) fn with_hosts(mut self) -> Self {
        let path = self.folder.path().join("hosts");
        std::fs::write(&path, "127.0.0.1 localhost\n").expect("writes");
        self.hosts = Some(path);
        self
    }

    /// Gives an address a name.
    pub(super) fn name(&self, address: &str, name: &str) {
        let path = self.hosts.as_ref().expect("has names of its own");
        std::fs::write(path, format!("127.0.0.1 localhost\n{address} {name}\n")).expect("writes");
    }

    /// The name of its environment.
    pub(super) fn environment(&self) -> &str {
        &self.environment
    }

    /// The instance of a sandbox.
    pub(super) fn instance(&self, sandbox: &str) -> String {
        format!("{}-{sandbox}", self.environment)
    }

    /// Gives the exit code and all that it said.
    pub(super) async fn run(&self, arguments: &[&str]) -> (i32, String) {
        // The spec comes after the words of the command.
        let words = match arguments[0] {
            "egress" | "file" | "snapshot" => 2,
            _ => 1,
        };
        let spec = self.spec.display().to_string();
        let all = [&arguments[..words], &[spec.as_str()], &arguments[words..]].concat();
        self.run_as_is(&all).await
    }

    /// The same with nothing added to what is typed.
    async fn run_as_is(&self, arguments: &[&str]) -> (i32, String) {
        let program = env!("CARGO_BIN_EXE_sbx-apply");
        let mut command = match &self.hosts {
            None => Command::new(program),
            Some(hosts) => {
                let mut command = Command::new("/usr/bin/unshare");
                let script = "/usr/bin/mount --bind \"$0\" /etc/hosts && exec \"$@\"";
                command
                    .args(["--mount", "/bin/sh", "-c", script])
                    .arg(hosts)
                    .arg(program);
                command
            }
        };
        command
            .args(arguments)
            .env_clear()
            .envs(self.variables())
            .env("TOKEN", "a-token-of-the-callers")
            .stdin(Stdio::null());
        let output = tokio::task::spawn_blocking(move || command.output())
            .await
            .expect("ends");
        let output = output.expect("the program starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
        if let Whereabouts::System(sim) = self.whereabouts {
            assert!(!said.contains(sim.key()), "the key is told nowhere: {said}");
        }
        assert!(
            !said.contains("a-token-of-the-callers"),
            "the secret is told nowhere: {said}"
        );
        (output.status.code().unwrap_or(255), said)
    }

    /// The same where it has to end so.
    pub(super) async fn does(&self, arguments: &[&str], code: i32) -> String {
        let (found, said) = self.run(arguments).await;
        assert_eq!(found, code, "{} {arguments:?}: {said}", self.backend());
        said
    }

    /// The variables by which the program finds its backend.
    fn variables(&self) -> Vec<(&'static str, String)> {
        match self.whereabouts {
            Whereabouts::System(sim) => vec![
                ("SBX_HOST", sim.host().to_string()),
                ("SBX_PORT", sim.port().to_string()),
                ("SBX_PLAIN", "true".to_owned()),
                ("SBX_USERNAME", sim.username().to_owned()),
                ("SBX_TRUENAS_API_KEY", sim.key().to_owned()),
            ],
            Whereabouts::Elsewhere(place) => place.variables(),
        }
    }

    fn backend(&self) -> String {
        match self.whereabouts {
            Whereabouts::System(sim) => format!("{:?}", sim.dialect()),
            Whereabouts::Elsewhere(place) => place.name().to_owned(),
        }
    }
}

/// Applies, finds nothing to do, drifts, mends, and leaves nothing.
async fn story(program: &Program<'_>) {
    program.does(&["apply", "--yes"], 0).await;
    program.does(&["plan", "--detailed-exitcode"], 0).await;
    program.does(&["check"], 0).await;
    program
        .does(
            &["exec", "task-1", "--root", "--", "sh", "-c", "echo moved > /etc/task"],
            0,
        )
        .await;
    let drift = program.does(&["check"], 3).await;
    assert!(drift.contains("/etc/task"), "{drift}");
    program.does(&["apply", "--yes"], 0).await;
    program.does(&["check"], 0).await;
    let read = program
        .does(&["exec", "task-2", "--root", "--", "cat", "/etc/task"], 0)
        .await;
    assert_eq!(read, "one of two\n");
    program.does(&["exec", "task-2", "--", "sh", "-c", "exit 7"], 7).await;
    program.does(&["snapshot", "create", "task-1", "before"], 0).await;
    program
        .does(
            &["exec", "task-1", "--root", "--", "sh", "-c", "echo lost > /srv/lost"],
            0,
        )
        .await;
    program
        .does(&["snapshot", "restore", "task-1", "before", "--allow-data-loss"], 0)
        .await;
    let listed = program.does(&["file", "list", "task-1", "/srv"], 0).await;
    assert!(!listed.contains("lost"), "{listed}");
    let read = program.does(&["file", "read", "task-1", "/etc/task"], 0).await;
    assert_eq!(read, "one of two\n");
    program
        .does(&["snapshot", "delete", "task-1", "before", "--yes"], 0)
        .await;
    program.does(&["check"], 0).await;
    program.does(&["doctor"], 0).await;
    program.does(&["destroy", "--yes", "--allow-data-loss"], 0).await;
}

/// The story at a system, and what is asked of it meanwhile.
async fn round(dialect: Dialect) {
    if !Sim::has_containers().await {
        return;
    }
    let sim = Sim::start(dialect, Knobs::default()).await;
    let program = Program::new(&sim, SPEC);
    program.does(&["plan", "--detailed-exitcode"], 2).await;
    let changing = |method: &str| {
        let reading = [
            "query",
            "query_registry",
            "get_instance",
            "config",
            "stat",
            "device_list",
            "summary",
            "get_jobs",
            "version",
        ];
        !reading.iter().any(|word| method.ends_with(word)) && !method.starts_with("auth.") && method != "core.subscribe"
    };
    let changes = |sim: &Sim| {
        let changes = sim.requests().into_iter().filter(|request| changing(&request.method));
        changes.map(|request| request.method).collect::<Vec<_>>()
    };
    assert_eq!(changes(&sim), Vec::<String>::new(), "a plan changes nothing");
    story(&program).await;
    assert_eq!(sim.violations(), Vec::<String>::new());
    super::requests::check(&sim, program.environment());
    sim.forget();
    assert!(program.does(&["show"], 0).await.contains("base"));
}

#[tokio::test]
async fn one_spec_on_25_04() {
    round(Dialect::V25_04).await;
}

#[tokio::test]
async fn one_spec_on_25_10() {
    round(Dialect::V25_10).await;
}

#[tokio::test]
async fn one_spec_on_26() {
    round(Dialect::V26).await;
}

/// The same spec, but for the words that name the backend and one of its images.
async fn elsewhere(place: Option<Place>) {
    let Some(place) = place else { return };
    let backend = format!("backend \"{}\"", place.name());
    let spec = SPEC
        .replace("backend \"truenas\"", &backend)
        .replace("debian/bookworm", place.image());
    let program = Program::elsewhere(&place, &spec);
    program.does(&["plan", "--detailed-exitcode"], 2).await;
    story(&program).await;
    assert!(program.does(&["show"], 0).await.contains("missing"));
}

#[tokio::test]
async fn one_spec_on_incus() {
    elsewhere(Place::incus()).await;
}

#[tokio::test]
async fn one_spec_on_local() {
    // Its user takes a second id, which not every ordinary user has.
    let is_root = rustix::process::geteuid().is_root();
    elsewhere(Place::local().filter(|_| is_root)).await;
}

/// What a version cannot do is told at the spec's line, and nothing is sent but what reads.
#[tokio::test]
async fn what_a_version_cannot_do_is_told_where_the_spec_says_it() {
    if !Sim::has_containers().await {
        return;
    }
    for (dialect, line, words) in [
        (Dialect::V25_04, "memory \"50%\"", "share"),
        (Dialect::V25_10, "memory \"100MB\"", "whole 1MiB"),
        (Dialect::V25_10, "disk \"10GiB\"", "disk"),
        (Dialect::V25_10, "mount \"/work\" source=\".\"", "mounts"),
        (Dialect::V25_10, "volume \"data\" path=\"/data\"", "volumes"),
        (Dialect::V25_04, "port 8080 host=18080", "ports"),
        (Dialect::V26, "memory \"1GiB\"", "memory"),
        (Dialect::V26, "cpu 1", "CPU"),
        (Dialect::V26, "egress { mode \"none\"; enforce \"host\"; }", "egress"),
    ] {
        let sim = Sim::start(dialect, Knobs::default()).await;
        let spec = format!(
            "environment \"NAME\"\nbackend \"truenas\"\nsandbox \"base\" {{\n    image \"debian/bookworm\"\n    {line}\n}}\n"
        );
        let program = Program::new(&sim, &spec);
        let said = program.does(&["plan"], 1).await;
        assert!(said.contains("sbx.kdl:5"), "{said}");
        assert!(said.contains(words), "{words}: {said}");
    }
}

/// Where Incus calls a pool otherwise than ZFS does, files go where Incus has them.
#[tokio::test]
async fn a_pool_may_have_two_names() {
    if !Sim::has_containers().await {
        return;
    }
    let knobs = Knobs {
        legacy_pool: true,
        ..Knobs::default()
    };
    let sim = Sim::start(Dialect::V25_04, knobs).await;
    let spec = "environment \"NAME\"\nbackend \"truenas\"\nsandbox \"base\" {\n    image \"debian/bookworm\"\n    run \"a\" command=\"true\"\n}\n";
    let program = Program::new(&sim, spec);
    program.does(&["apply", "--yes"], 0).await;
    program.does(&["destroy", "--yes", "--allow-data-loss"], 0).await;
    assert_eq!(sim.violations(), Vec::<String>::new());
    let written = sim
        .requests()
        .into_iter()
        .find(|request| request.method == "filesystem.file_receive");
    let path = written.expect("a key was put in").params[0].to_string();
    assert!(path.contains("/storage-pools/default/containers/"), "{path}");
}

/// A pool that is not the system's choice is where everything of a sandbox is.
#[tokio::test]
async fn another_pool_holds_all_of_a_sandbox() {
    if !Sim::has_containers().await {
        return;
    }
    for dialect in Dialect::ALL {
        let sim = Sim::start(dialect, Knobs::default()).await;
        let pool = sim.other_pool();
        let spec = format!(
            r#"environment "NAME"
backend "truenas" {{ pool "{pool}"; }}
sandbox "base" {{ image "debian/bookworm"; file "/etc/motd" content="hello\n"; snapshot "ready"; }}
sandbox "task" {{ clone-from "base" snapshot="ready"; }}
"#
        );
        let program = Program::new(&sim, &spec);
        program.does(&["apply", "--yes"], 0).await;
        program.does(&["check"], 0).await;
        let made = sim.requests().into_iter();
        let made = made.filter(|request| request.method.ends_with("snapshot.create"));
        let datasets: Vec<_> = made.map(|request| request.params[0]["dataset"].to_string()).collect();
        assert!(!datasets.is_empty());
        assert!(
            datasets
                .iter()
                .all(|dataset| dataset.starts_with(&format!("\"{pool}/"))),
            "{datasets:?}"
        );
        program.does(&["destroy", "--yes", "--allow-data-loss"], 0).await;
        assert_eq!(sim.violations(), Vec::<String>::new());
    }
}
