//! The caller's terminal, raw for as long as a session lasts.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Mutex, Once, PoisonError};

use rustix::process::{Signal, getpid, kill_process};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::error::Error;

/// What has to be put back, whichever way the program ends.
static BEFORE: Mutex<Option<(OwnedFd, Termios)>> = Mutex::new(None);

/// The terminal on standard input, raw until this goes.
#[derive(Debug)]
pub(super) struct Raw {
    raw: Termios,
}

impl Raw {
    /// Makes it raw: every key is the session's, Ctrl-C too.
    ///
    /// # Errors
    /// Where standard input is no terminal.
    pub(super) fn enter() -> Result<Self, Error> {
        let cannot = |error: rustix::io::Errno| Error::io("cannot use the terminal", error.into());
        let terminal = std::io::stdin().as_fd().try_clone_to_owned();
        let terminal = terminal.map_err(|error| Error::io("cannot use the terminal", error))?;
        let before = tcgetattr(&terminal).map_err(cannot)?;
        let mut raw = before.clone();
        raw.make_raw();
        // A panic is told before anything is let go of, and on a raw terminal nobody could read it.
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let told = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                restore();
                told(panic);
            }));
        });
        let set = tcsetattr(&terminal, OptionalActions::Now, &raw);
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some((terminal, before));
        let entered = Self { raw };
        set.map_err(cannot)?;
        Ok(entered)
    }

    /// Follows the terminal's size, and lets go of it while the program is stopped. For as long as the session lasts.
    pub(super) async fn watch(&self, size: &watch::Sender<(u16, u16)>) -> Result<(), Error> {
        let cannot = |error| Error::io("cannot follow the terminal", error);
        let mut resized = signal(SignalKind::window_change()).map_err(cannot)?;
        let mut stopped = signal(SignalKind::from_raw(Signal::TSTP.as_raw())).map_err(cannot)?;
        loop {
            tokio::select! {
                _ = resized.recv() => {}
                _ = stopped.recv() => {
                    restore();
                    // Comes back when somebody lets it go on.
                    let _ = kill_process(getpid(), Signal::STOP);
                    let mut before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Some((terminal, _)) = before.as_mut() {
                        let _ = tcsetattr(&terminal, OptionalActions::Now, &self.raw);
                    }
                }
            }
            size.send_replace(current());
        }
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Puts the terminal back.
fn restore() {
    if let Some((terminal, before)) = &*BEFORE.lock().unwrap_or_else(PoisonError::into_inner) {
        let _ = tcsetattr(terminal, OptionalActions::Now, before);
    }
}

/// How the terminal is, to be put back where a question is broken off.
#[derive(Debug)]
pub(super) struct AsItIs(Option<Termios>);

impl AsItIs {
    /// How it is now.
    pub(super) fn now() -> Self {
        Self(tcgetattr(std::io::stdin()).ok())
    }

    /// Puts it back: whoever waits for a key has made it raw, and hidden its cursor.
    pub(super) fn put_back(&self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, before);
        }
        let _ = dialoguer::console::Term::stderr().show_cursor();
    }
}

/// Columns and rows; what terminals once had where that cannot be said.
pub(super) fn current() -> (u16, u16) {
    match tcgetwinsize(std::io::stdin()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col, size.ws_row),
        _ => (80, 24),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read as _;
    use std::process::Command;

    use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
    use rustix::termios::LocalModes;

    use super::*;

    #[test]
    #[ignore = "what the test below runs, on a terminal of its own"]
    fn panics_while_raw() {
        let _raw = Raw::enter().expect("a terminal");
        let modes = tcgetattr(std::io::stdin()).expect("a terminal").local_modes;
        assert!(!modes.contains(LocalModes::ICANON));
        panic!("on purpose");
    }

    #[test]
    fn a_panic_is_told_on_a_terminal_that_is_as_it_was() {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let ours = openpt(flags).expect("a terminal");
        grantpt(&ours).expect("granted");
        unlockpt(&ours).expect("unlocked");
        let theirs = ioctl_tiocgptpeer(&ours, flags).expect("its other end");
        let end = || theirs.try_clone().expect("once more");
        let status = Command::new(std::env::current_exe().expect("this program"))
            .args([
                "--exact",
                "cli::terminal::tests::panics_while_raw",
                "--ignored",
                "--nocapture",
            ])
            .env("RUST_BACKTRACE", "0")
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .status();
        assert!(!status.expect("runs").success());
        let modes = tcgetattr(&theirs).expect("a terminal").local_modes;
        assert!(modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG));
        drop(theirs);
        let mut said = Vec::new();
        // The end of a terminal is a failure to read.
        let _ = File::from(ours).read_to_end(&mut said);
        let said = String::from_utf8_lossy(&said);
        // A raw terminal would not have put in the carriage return.
        assert!(said.contains("on purpose\r\n"), "{said:?}");
    }
}
