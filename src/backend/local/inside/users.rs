//! User namespaces.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{Gid, Pid, Uid, setgroups, setresgid, setresuid};

use super::failure::{Failure, Result, Trying as _};
use super::{fork, sys};
use crate::backend::local::ids::Ids;
use crate::backend::local::wire::Kind;

/// Makes a user namespace with these ids, and gives a descriptor of it.
pub(super) fn make(ids: Ids) -> Result<OwnedFd> {
    let (mut made, mut tell) = pipe()?;
    let (mut wait, end) = pipe()?;
    // The map of a namespace is written from outside it, so somebody must be inside for that long.
    let holder = fork::spawn(|| {
        if unshare(CloneFlags::CLONE_NEWUSER).is_err() || tell.write_all(&[1]).is_err() {
            return 1;
        }
        let _ = wait.read(&mut [0]);
        0
    })?;
    drop(tell);
    let result = match made.read(&mut [0]) {
        Ok(1) => map(ids, holder)
            .and_then(|()| File::open(format!("/proc/{holder}/ns/user")).trying("cannot open the user namespace")),
        _ => Err(Failure::new(Kind::Unsupported, "this machine makes no user namespaces")),
    };
    let _ = kill(holder, Signal::SIGKILL);
    let _ = waitpid(holder, None);
    drop(end);
    result.map(OwnedFd::from)
}

fn map(ids: Ids, holder: Pid) -> Result<()> {
    let maps = ids.maps();
    if let Ids::Range { .. } = ids {
        for (program, map) in ["newuidmap", "newgidmap"].into_iter().zip(maps) {
            let mut command = Command::new(program);
            command
                .arg(holder.to_string())
                .args(map.iter().flatten().map(u32::to_string));
            command.env("PATH", "/usr/bin:/bin:/usr/local/bin").stdin(Stdio::null());
            let output = command.output().trying(format_args!("cannot start {program}"))?;
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr);
                return Err(Failure::new(Kind::Failed, format!("{program}: {}", said.trim())));
            }
        }
        return Ok(());
    }
    if ids.is_single() {
        // A user may map its group only where groups cannot be dropped any more (user_namespaces(7)).
        write(holder, "setgroups", "deny")?;
    }
    for (file, map) in ["uid_map", "gid_map"].into_iter().zip(maps) {
        let lines: String = map
            .iter()
            .map(|[inner, outer, count]| format!("{inner} {outer} {count}\n"))
            .collect();
        write(holder, file, &lines)?;
    }
    Ok(())
}

fn write(holder: Pid, file: &str, text: &str) -> Result<()> {
    fs::write(format!("/proc/{holder}/{file}"), text).trying(format_args!("cannot write {file}"))
}

/// Enters a user namespace as its root.
pub(super) fn enter(users: &OwnedFd) -> Result<()> {
    setns(users, CloneFlags::CLONE_NEWUSER).trying("cannot enter the user namespace")?;
    become_root()
}

/// Becomes root of the user namespace that this process has entered.
pub(super) fn become_root() -> Result<()> {
    setresgid(Gid::from_raw(0), Gid::from_raw(0), Gid::from_raw(0)).trying("cannot become root's group")?;
    // Not allowed where there is one id only; there, no group of the user gives more than the user has.
    let _ = setgroups(&[]);
    setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0)).trying("cannot become root")?;
    // Changing ids closes a process to the user whose sandbox it is.
    sys::set_open(true);
    Ok(())
}

/// Becomes somebody to whom the files of layers belong: root itself, or root inside.
pub(super) fn become_inner(ids: Ids) -> Result<()> {
    match ids {
        Ids::Root { .. } => Ok(()),
        Ids::Range { .. } | Ids::Single { .. } => enter(&make(ids)?),
    }
}

/// Both ends of a pipe, the reading one first.
pub(super) fn pipe() -> Result<(File, File)> {
    let (from, to) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).trying("cannot make a pipe")?;
    Ok((from.into(), to.into()))
}
