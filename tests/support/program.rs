//! The program, run inside the test with a simulated backend.

use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use sbx_apply::apply::{Clock, Process};
use sbx_apply::backend::memory::Memory;
use sbx_apply::backend::{Opener, Registry, Result, Sandboxes, Settings};
use sbx_apply::cli::{self, Host, Terminals};
use tokio::time::Instant;

/// The moment at which every test runs.
pub(crate) const NOW: u64 = 1_800_000_000;

/// What a run said and how it ended.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) stdout: String,
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
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("no panic").clone()).expect("UTF-8")
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

async fn run_on(registry: Registry, arguments: &[&str], variables: &[(&str, &str)], now: u64) -> Run {
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
        stdin: Box::new(tokio::io::empty()),
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
        stdout: stdout.text(),
        stderr: stderr.text(),
        code,
    }
}
