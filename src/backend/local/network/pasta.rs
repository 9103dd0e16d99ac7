//! `pasta`, which passes on what a sandbox says as its user's own connections (passt(1)).

use std::fs;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::fs::{Access, access};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::process::Command;
use tokio::time::timeout;

use crate::backend::local::state::failed;
use crate::backend::{Error, ErrorKind, Result};

/// How long it may take until the network is there.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whether this user can make the devices that it works by.
pub(super) fn has_tunnels() -> bool {
    access("/dev/net/tun", Access::READ_OK | Access::WRITE_OK).is_ok()
}

/// Joins the network namespace of a process. It goes on by itself, until the namespace ends or [`end`].
pub(super) async fn start(program: &Path, record: &Path, pid: i32) -> Result<()> {
    end(record)?;
    let mut command = Command::new(program);
    command
        // No way in, and none to this machine: by default its gateway stands for 127.0.0.1.
        .args(["--config-net", "--no-map-gw", "--quiet"])
        .args(["-t", "none", "-u", "none", "-T", "none", "-U", "none"])
        .arg("--pid")
        .arg(record)
        .args(["--userns", &format!("/proc/{pid}/ns/user")])
        .args(["--netns", &format!("/proc/{pid}/ns/net")])
        .env_clear()
        .current_dir("/")
        // Ctrl-C is not meant for it.
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true);
    let log = tempfile::tempfile().map_err(|source| failed("cannot keep what pasta says", source))?;
    // A file, not a pipe: what goes on in the background would hold the latter open.
    let said = log
        .try_clone()
        .map_err(|source| failed("cannot keep what pasta says", source))?;
    command.stderr(said);
    let wrong = |why: String| Error::new(ErrorKind::Failed, format!("pasta gave it no network: {why}"));
    let ended = timeout(PATIENCE, command.status()).await;
    let status = ended
        .map_err(|_| wrong(format!("it was not done within {} s", PATIENCE.as_secs())))?
        .map_err(|source| failed(format!("cannot run {}", program.display()), source))?;
    // It may say that all is well where nothing is.
    if status.success() && has_device(pid) {
        return Ok(());
    }
    let said = read(log).unwrap_or_default();
    Err(wrong(
        said.lines().last().unwrap_or("there is no device").trim().to_owned(),
    ))
}

fn read(mut log: fs::File) -> io::Result<String> {
    use std::io::{Read as _, Seek as _};
    log.rewind()?;
    let mut text = String::new();
    log.take(4096).read_to_string(&mut text)?;
    Ok(text)
}

/// Whether there is a device besides the loopback one, two lines of heading aside.
fn has_device(pid: i32) -> bool {
    let text = fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default();
    text.lines().skip(2).any(|line| !line.trim_start().starts_with("lo:"))
}

/// Ends the one that is recorded in a file; nothing where there is none.
pub(super) fn end(record: &Path) -> Result<()> {
    let pid = match fs::read_to_string(record) {
        Ok(text) => text.trim().parse().ok().and_then(Pid::from_raw),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(format!("cannot read {}", record.display()), error)),
    };
    if let Some(pid) = pid
        && let Ok(process) = pidfd_open(pid, PidfdFlags::empty())
    {
        // Numbers are given again: ours is the one that was told this file.
        let command = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
        let own = record.as_os_str().as_encoded_bytes();
        if command.split(|byte| *byte == 0).any(|argument| argument == own) {
            let _ = pidfd_send_signal(&process, Signal::TERM);
        }
    }
    let _ = fs::remove_file(record);
    Ok(())
}
