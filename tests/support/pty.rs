//! A terminal with the real program on it.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(40);

/// A terminal, and the process that has it.
pub(crate) struct Pty {
    ours: File,
    child: Child,
    output: Receiver<Vec<u8>>,
    said: String,
}

impl Pty {
    /// Starts a program on a new terminal of that many columns and rows, which is its controlling one.
    pub(crate) fn start(arguments: &[&str], variables: &[(&str, &str)], size: (u16, u16)) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let ours = openpt(flags).expect("a terminal");
        grantpt(&ours).expect("granted");
        unlockpt(&ours).expect("unlocked");
        let theirs = ioctl_tiocgptpeer(&ours, flags).expect("its other end");
        let ours = File::from(ours);
        resize(&ours, size);
        let end = |end: &OwnedFd| Stdio::from(end.try_clone().expect("once more"));
        let child = Command::new("setsid")
            .args(["--ctty", "--wait", env!("CARGO_BIN_EXE_sbx-apply")])
            .args(arguments)
            .envs(variables.iter().copied())
            .env_remove("CI")
            .env("NO_COLOR", "1")
            .stdin(end(&theirs))
            .stdout(end(&theirs))
            .stderr(end(&theirs))
            .spawn()
            .expect("starts");
        let (send, output) = channel();
        let mut reader = ours.try_clone().expect("once more");
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // The end of a terminal is a failure to read.
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                if send.send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        // One end stays here, so that the terminal can be looked at when the program has gone.
        std::mem::forget(theirs);
        Self {
            ours,
            child,
            output,
            said: String::new(),
        }
    }

    /// Types something.
    pub(crate) fn types(&mut self, text: &str) {
        self.ours.write_all(text.as_bytes()).expect("types");
    }

    /// Waits until it has said something, and forgets what came up to that.
    pub(crate) fn sees(&mut self, text: &str) {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.said.find(text) {
                self.said.drain(..at + text.len());
                return;
            }
            match self.output.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.said.push_str(&String::from_utf8_lossy(&bytes)),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("no {text:?} in {:?}", self.said)
                }
            }
        }
    }

    /// Makes it another size.
    pub(crate) fn resize(&self, size: (u16, u16)) {
        resize(&self.ours, size);
    }

    /// Whether keys go through as they are.
    pub(crate) fn is_raw(&self) -> bool {
        let modes = tcgetattr(&self.ours).expect("a terminal").local_modes;
        !modes.intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }

    /// Sends the program a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a number");
        kill_process(Pid::from_raw(pid).expect("a process"), signal).expect("is there");
    }

    /// Waits for its end: its code, and what it said last.
    pub(crate) fn ends(mut self) -> (Option<i32>, String, bool) {
        let end = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("is waited for") {
                break status;
            }
            assert!(Instant::now() < end, "it does not end: {:?}", self.said);
            std::thread::sleep(Duration::from_millis(20));
        };
        while let Ok(bytes) = self.output.recv_timeout(Duration::from_millis(200)) {
            self.said.push_str(&String::from_utf8_lossy(&bytes));
        }
        let raw = self.is_raw();
        (status.code(), std::mem::take(&mut self.said), raw)
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        // Only where a test has failed does it still run.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn resize(terminal: &File, (columns, rows): (u16, u16)) {
    let size = Winsize {
        ws_col: columns,
        ws_row: rows,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(terminal, size).expect("takes a size");
}
