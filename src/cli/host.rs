//! The process that the program runs in, as data: a test is a host as well.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{IsTerminal as _, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::io::AsyncRead;

use super::process;
use crate::apply::{Clock, Process};
use crate::backend::Registry;

/// Which of the standard streams are terminals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Terminals {
    /// Standard input.
    pub stdin: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
}

/// All that the program takes from outside.
pub struct Host {
    /// The arguments, the program's own name first.
    pub arguments: Vec<OsString>,
    /// The environment variables whose names and values are UTF-8.
    pub variables: BTreeMap<String, String>,
    /// Which streams are terminals.
    pub terminals: Terminals,
    /// What commands in sandboxes, and files that are written there, are given to read.
    pub stdin: Box<dyn AsyncRead + Send + Unpin>,
    /// Where results go.
    pub stdout: Box<dyn Write + Send>,
    /// Where everything else goes.
    pub stderr: Box<dyn Write + Send>,
    /// The backends.
    pub registry: Registry,
    /// The moment, in seconds since 1970-01-01T00:00:00Z.
    pub now: u64,
    /// Tells later moments, in the same way.
    pub clock: Clock,
    /// The process itself, as others see it.
    pub process: Process,
    /// Whether a process of the same realm lives.
    pub is_alive: fn(&Process) -> bool,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Variables hold secrets.
        f.debug_struct("Host")
            .field("arguments", &self.arguments)
            .field("terminals", &self.terminals)
            .finish_non_exhaustive()
    }
}

impl Host {
    /// This process.
    #[must_use]
    pub fn of_process() -> Self {
        let variables = std::env::vars_os().filter_map(|(name, value)| {
            let name = name.into_string().ok()?;
            Some((name, value.into_string().ok()?))
        });
        let variables: BTreeMap<String, String> = variables.collect();
        Self {
            process: process::this(&variables),
            is_alive: process::is_alive,
            clock: Clock::new(now),
            arguments: std::env::args_os().collect(),
            variables,
            terminals: Terminals {
                stdin: std::io::stdin().is_terminal(),
                stdout: std::io::stdout().is_terminal(),
                stderr: std::io::stderr().is_terminal(),
            },
            stdin: Box::new(tokio::io::stdin()),
            stdout: Box::new(std::io::stdout()),
            stderr: Box::new(std::io::stderr()),
            registry: Registry::standard(),
            now: now(),
        }
    }
}

/// The moment. A clock before 1970 is as good as one that stands there.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}
