//! The program, run inside the test with a simulated backend.

use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use sbx_apply::apply::{Claim, Clock, Process, scope_of_environment};
use sbx_apply::backend::memory::Memory;
use sbx_apply::backend::{Opener, Registry, Result, Sandboxes, Settings};
use sbx_apply::cli::{self, Host, Terminals};
use sbx_apply::model::EnvironmentName;
use tokio::time::Instant;

/// The moment at which every test runs.
pub(crate) const NOW: u64 = 1_800_000_000;

/// What a run said and how it ended.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) stdout: String,
    /// The same as it came.
    pub(crate) bytes: Vec<u8>,
    pub(crate) stderr: String,
    pub(crate) code: u8,
}

#[derive(Debug)]
struct Simulated(Arc<dyn Sandboxes>);

#[async_trait]
impl Opener for Simulated {
    fn name(&self) -> &'static str {
        "local"
    }

    fn settings(&self) -> &'static [(&'static str, &'static str)] {
        &[("pool", "nothing, for tests of settings")]
    }

    async fn open(&self, _: &Settings) -> Result<Arc<dyn Sandboxes>> {
        Ok(self.0.clone())
    }
}

#[derive(Debug, Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Buffer {
    fn bytes(&self) -> Vec<u8> {
        self.0.lock().expect("no panic").clone()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }
}

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The number of a process that does not live.
pub(crate) const DEAD: u32 = 404;

/// A process; each call gives another one.
pub(crate) fn process(user: &str, pid: u32) -> Process {
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    Process {
        id: format!("{} {}", std::process::id(), RUNS.fetch_add(1, Ordering::Relaxed)),
        user: user.to_owned(),
        host: "here".to_owned(),
        realm: Some("here".to_owned()),
        pid,
        started: None,
    }
}

/// Somebody else works on an environment, and goes on doing so.
pub(crate) async fn hold(memory: &Memory, environment: &str) {
    let environment = EnvironmentName::new(environment).expect("a name");
    let keeper: Arc<dyn Sandboxes> = Arc::new(memory.clone());
    let claim = Claim {
        process: &process("alice", 7),
        is_alive: &|_| true,
        clock: Clock::new(|| u64::MAX / 2),
        doing: "apply",
        patience: std::time::Duration::ZERO,
        by_force: false,
        on_wait: &|_, _| {},
    };
    let lock = claim
        .lock(&keeper, &environment, &scope_of_environment(&environment))
        .await;
    std::mem::forget(lock.expect("is free"));
}

/// Runs the program: no terminal, no variables, and `memory` as its only backend.
pub(crate) async fn program(memory: &Memory, arguments: &[&str]) -> Run {
    program_at(memory, arguments, NOW).await
}

/// The same at another moment.
pub(crate) async fn program_at(memory: &Memory, arguments: &[&str], now: u64) -> Run {
    program_on(Arc::new(memory.clone()), arguments, now).await
}

/// The same with any backend.
pub(crate) async fn program_on(backend: Arc<dyn Sandboxes>, arguments: &[&str], now: u64) -> Run {
    run_on(Registry::empty().with(Simulated(backend)), arguments, &[], now).await
}

/// The same with variables in the caller's environment.
pub(crate) async fn program_as(memory: &Memory, arguments: &[&str], variables: &[(&str, &str)], now: u64) -> Run {
    let registry = Registry::empty().with(Simulated(Arc::new(memory.clone())));
    run_on(registry, arguments, variables, now).await
}

/// The same with the backends of the program, for a real daemon.
pub(crate) async fn real_program(arguments: &[&str], variables: &[(&str, &str)]) -> Run {
    run_on(Registry::standard(), arguments, variables, NOW).await
}

/// The same at another moment.
pub(crate) async fn real_program_at(arguments: &[&str], now: u64) -> Run {
    run_on(Registry::standard(), arguments, &[], now).await
}

/// The same with something to read on standard input; what comes out need not be text.
pub(crate) async fn program_reading(
    memory: &Memory,
    arguments: &[&str],
    variables: &[(&str, &str)],
    stdin: &[u8],
) -> Run {
    let registry = Registry::empty().with(Simulated(Arc::new(memory.clone())));
    run_with(registry, arguments, variables, stdin, NOW).await
}

async fn run_on(registry: Registry, arguments: &[&str], variables: &[(&str, &str)], now: u64) -> Run {
    run_with(registry, arguments, variables, b"", now).await
}

async fn run_with(registry: Registry, arguments: &[&str], variables: &[(&str, &str)], stdin: &[u8], now: u64) -> Run {
    let begun = Instant::now();
    let (stdout, stderr) = (Buffer::default(), Buffer::default());
    let host = Host {
        arguments: std::iter::once("sbx-apply")
            .chain(arguments.iter().copied())
            .map(Into::into)
            .collect(),
        variables: variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        terminals: Terminals::default(),
        stdin: Box::new(io::Cursor::new(stdin.to_vec())),
        stdout: Box::new(stdout.clone()),
        stderr: Box::new(stderr.clone()),
        registry,
        now,
        clock: Clock::new(move || now + begun.elapsed().as_secs()),
        process: process("bob", 1),
        is_alive: |process| process.pid != DEAD,
    };
    let code = cli::main(host).await.number();
    Run {
        bytes: stdout.bytes(),
        stdout: stdout.text(),
        stderr: stderr.text(),
        code,
    }
}
