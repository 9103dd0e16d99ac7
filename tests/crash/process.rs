//! The program as a child process that can be ended at a chosen moment.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::Value;

use crate::support::place::Place;

/// When a run is killed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Moment {
    /// When it tells its nth event, from 1.
    Event(usize),
    /// So long after its start.
    After(Duration),
    /// Never.
    Never,
}

/// What a run gave.
pub(super) struct Ran {
    /// Its exit code; none for one that was killed.
    pub(super) code: Option<i32>,
    pub(super) events: Vec<Value>,
    pub(super) stderr: String,
    pub(super) took: Duration,
}

impl std::fmt::Debug for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{:?} after {:?}", self.code, self.took)?;
        for event in self.events.iter().filter(|event| event["event"] != "plan") {
            writeln!(f, "{event}")?;
        }
        f.write_str(&self.stderr)
    }
}

impl Ran {
    /// Asserts how it ended.
    #[track_caller]
    pub(super) fn ended(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }
}

/// A run that goes on.
pub(super) struct Running {
    child: Child,
    begun: Instant,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
    events: Vec<Value>,
    stderr: thread::JoinHandle<String>,
}

/// Starts the program; its events come by `--json`.
pub(super) fn start(place: &Place, arguments: &[&str]) -> Running {
    let mut child = Command::new(env!("CARGO_BIN_EXE_sbx-apply"))
        .args(arguments)
        .env_clear()
        .envs(place.variables())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // As a shell starts it: what is typed on its terminal goes to it and all that it has started.
        .process_group(0)
        .spawn()
        .expect("the program starts");
    let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let mut stderr = child.stderr.take().expect("a pipe");
    let stderr = thread::spawn(move || {
        let mut text = String::new();
        let _ = stderr.read_to_string(&mut text);
        text
    });
    Running {
        child,
        begun: Instant::now(),
        lines,
        events: Vec::new(),
        stderr,
    }
}

impl Running {
    /// Reads on until an event that is meant, or the end.
    pub(super) fn until(&mut self, is_meant: impl Fn(&Value) -> bool) -> bool {
        for line in self.lines.by_ref() {
            let Ok(line) = line else { break };
            let event = serde_json::from_str(&line).unwrap_or(Value::String(line));
            let meant = is_meant(&event);
            self.events.push(event);
            if meant {
                return true;
            }
        }
        false
    }

    /// Types Ctrl-C.
    pub(super) fn interrupt(&self) {
        let group = Pid::from_child(&self.child);
        kill_process_group(group, Signal::INT).expect("a process that nobody has waited for can be sent signals");
    }

    /// Sends it a signal.
    pub(super) fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("a process that nobody has waited for can be sent signals");
    }

    /// Reads to the end and waits.
    pub(super) fn finish(mut self) -> Ran {
        self.until(|_| false);
        let status = self.child.wait().expect("ends");
        Ran {
            code: status.code(),
            events: self.events,
            stderr: self.stderr.join().expect("no panic"),
            took: self.begun.elapsed(),
        }
    }
}

/// Runs the program, and kills it at a moment. One that has ended before lives on in its result.
pub(super) fn run(place: &Place, arguments: &[&str], moment: Moment) -> Ran {
    let mut running = start(place, arguments);
    match moment {
        Moment::Never => {}
        Moment::Event(nth) => {
            for _ in 0..nth {
                if !running.until(|_| true) {
                    break;
                }
            }
            running.signal(Signal::KILL);
        }
        Moment::After(instant) => {
            thread::sleep(instant);
            running.signal(Signal::KILL);
        }
    }
    running.finish()
}
