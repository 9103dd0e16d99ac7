//! From a request to a running pid 1.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::wait::waitpid;
use nix::unistd::{sethostname, setsid};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Signal, kill_process};

use super::channel::Channel;
use super::failure::{Failure, Result, Trying as _};
use super::{bind, confine, fork, init, overlay, root, sys, users};
use crate::backend::local::network::{Device, Netlink};
use crate::backend::local::running::Process;
use crate::backend::local::wire::{Join, Kind, Membership, Reply, Start};

/// Everything that a sandbox has for itself, but its users, which come first.
pub(super) const OWN: CloneFlags = CloneFlags::CLONE_NEWNS
    .union(CloneFlags::CLONE_NEWPID)
    .union(CloneFlags::CLONE_NEWNET)
    .union(CloneFlags::CLONE_NEWUTS)
    .union(CloneFlags::CLONE_NEWIPC)
    .union(CloneFlags::CLONE_NEWCGROUP);

/// Starts a sandbox. When it returns, its pid 1 runs and is recorded; on failure there is none.
pub(super) fn start(start: Start, channel: &mut Channel) -> Result<()> {
    let _in_use = hold(&start.in_use)?;
    join(&start.groups)?;
    let (mut number, tell) = users::pipe()?;
    let (mut said, say) = users::pipe()?;
    let (hear, mut go) = users::pipe()?;
    let namespace = users::make(start.ids)?;
    let builder = fork::spawn(|| build(&start, &namespace, tell, say, hear))?;
    let _ = waitpid(builder, None);
    let mut pid = [0; 4];
    let pid = number.read_exact(&mut pid).ok().map(|()| i32::from_le_bytes(pid));
    // One byte, 1, when all is well; else what is wrong.
    let mut ready = [0];
    let started = match said.read(&mut ready) {
        Ok(1) if ready == [1] => match pid {
            Some(pid) => finish(&start, pid, &mut go, channel),
            None => Err(gone()),
        },
        Ok(1) => {
            let mut text = String::new();
            let _ = said.read_to_string(&mut text);
            Err(Failure::new(Kind::Failed, text))
        }
        _ => Err(gone()),
    };
    if started.is_err()
        && let Some(pid) = pid.and_then(rustix::process::Pid::from_raw)
    {
        // It waits for our word, so the number is still its own.
        let _ = kill_process(pid, Signal::KILL);
    }
    started
}

fn gone() -> Failure {
    Failure::new(Kind::Failed, "its first process ended at once")
}

/// Records the process, lets the tool put a network in, and lets it go.
fn finish(start: &Start, pid: i32, go: &mut File, channel: &mut Channel) -> Result<()> {
    if start.network {
        channel.send(&Reply::Ready).trying("the tool is gone")?;
        channel.send(&pid).trying("the tool is gone")?;
        match channel.receive::<Join>() {
            Ok(Some(Join::Done)) => {}
            Ok(Some(Join::Device(device))) => set_up(pid, &device)?,
            _ => return Err(Failure::new(Kind::Failed, "it has no network")),
        }
    }
    let process = Process::find(pid).ok_or_else(gone)?;
    crate::backend::local::state::write(&start.record, &process).trying("cannot record the process")?;
    go.write_all(&[1]).trying("its first process ended at once")
}

/// Puts a device up, in the network namespace of a process.
fn set_up(pid: i32, device: &Device) -> Result<()> {
    let namespace = File::open(format!("/proc/{pid}/ns/net")).trying("cannot reach its network")?;
    // This process needs none of its own any more.
    setns(namespace, CloneFlags::CLONE_NEWNET).trying("cannot enter its network")?;
    let set_up = Netlink::open().and_then(|kernel| {
        device.ends.iter().try_for_each(|end| {
            kernel.put_up(&device.name, end.address, end.prefix)?;
            kernel.route_all(end.gateway)
        })
    });
    set_up.trying(format_args!("cannot put {} up", device.name))
}

/// Says that a helper is in a sandbox, for as long as this process and its children keep the file.
pub(super) fn hold(in_use: &std::path::Path) -> Result<File> {
    let file = File::options().write(true).create(true).truncate(false).open(in_use);
    let file = file.trying("cannot lock the sandbox")?;
    flock(&file, FlockOperation::LockShared).trying("cannot lock the sandbox")?;
    Ok(file)
}

/// Enters control groups, for itself and all that comes of it.
pub(super) fn join(groups: &Membership) -> Result<()> {
    groups.unified.iter().try_for_each(|group| fork::go_on_in(group))?;
    // One thread, and this process has one: moving a process (`cgroup.procs`) holds up all forks of the machine.
    groups.split.iter().try_for_each(|group| {
        fs::write(group.join("tasks"), "0").trying(format_args!("cannot join {}", group.display()))
    })
}

/// The process that makes the namespaces: its child is the first in them, and tells through `say` how it goes.
fn build(start: &Start, namespace: &OwnedFd, mut tell: File, mut say: File, hear: File) -> i32 {
    let child = enter(start, namespace).and_then(|()| {
        sethostname(&start.name).trying("cannot set the host name")?;
        sys::loopback_up().trying("cannot use the loopback device")?;
        let say = say.try_clone().trying("cannot go on")?;
        fork::spawn(|| first(start, say, hear))
    });
    match child {
        Ok(pid) => i32::from(tell.write_all(&pid.as_raw().to_le_bytes()).is_err()),
        Err(failure) => complain(&mut say, &failure),
    }
}

fn complain(say: &mut File, failure: &Failure) -> i32 {
    let _ = say.write_all(&[0]);
    let _ = say.write_all(failure.message.as_bytes());
    1
}

/// Mounts the disk and makes the namespaces.
fn enter(start: &Start, namespace: &OwnedFd) -> Result<()> {
    let (ids, tree) = (start.ids, &start.tree);
    if ids.is_root() {
        // As root itself: owners are shifted, and layers keep what root inside cannot touch.
        unshare(CloneFlags::CLONE_NEWNS).trying("cannot make a mount namespace")?;
        overlay::assemble(tree, Some(namespace))?;
        bind::bind_all(&start.binds, ids, Some(namespace))?;
        users::enter(namespace)?;
        unshare(OWN).trying("cannot make namespaces")
    } else {
        users::enter(namespace)?;
        unshare(OWN).trying("cannot make namespaces")?;
        overlay::assemble(tree, None)?;
        bind::bind_all(&start.binds, ids, None)
    }
}

/// The first process of a sandbox.
fn first(start: &Start, mut say: File, mut hear: File) -> i32 {
    init::listen();
    let confined = root::enter().and_then(|()| {
        setsid().trying("cannot make a session")?;
        let null = File::options()
            .read(true)
            .write(true)
            .open("/dev/null")
            .trying("no /dev/null")?;
        (0..3)
            .try_for_each(|number| sys::place(null.as_fd(), number))
            .trying("cannot let go of streams")?;
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
        confine::drop_capabilities(true)?;
        confine::shed(true, true)?;
        confine::filter(start.ids.is_single())
    });
    if let Err(failure) = confined {
        return complain(&mut say, &failure);
    }
    let told = say.write_all(&[1]);
    drop(say);
    let mut word = [0];
    if told.is_err() || !matches!(hear.read(&mut word), Ok(1)) {
        // Whoever started us is gone before it could record us.
        return 1;
    }
    sys::close_others(&[]);
    init::serve()
}
