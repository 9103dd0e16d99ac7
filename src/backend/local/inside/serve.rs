//! Files of a sandbox, one question after the other.

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use rustix::fs::{Mode, OFlags, open};

use super::channel::Channel;
use super::failure::{Failure, Result, Trying as _};
use super::place::Root;
use super::{change, look, overlay, sys, users};
use crate::backend::local::wire::{FileRequest, Kind, Reply, View, Where};

/// Goes where the files are and answers until the tool has no more questions.
pub(super) fn serve(view: &View, channel: &mut Channel) -> Result<()> {
    let (_in_use, root) = match super::start::hold(&view.in_use).and_then(|held| Ok((held, enter(view)?))) {
        Ok(entered) => entered,
        Err(failure) => {
            return channel.send(&failure.reply()).trying("the tool is gone");
        }
    };
    channel.send(&Reply::Ready).trying("the tool is gone")?;
    while let Some(request) = channel.receive().trying("the tool is gone")? {
        answer(&root, request, channel).or_else(|failure| channel.send(&failure.reply()).trying("the tool is gone"))?;
    }
    Ok(())
}

fn enter(view: &View) -> Result<Root> {
    // Modes and owners are as they are asked for.
    rustix::process::umask(Mode::empty());
    let root = || {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        open(".", flags, Mode::empty())
            .map(Root)
            .trying("cannot open the root folder")
    };
    let unshare = || unshare(CloneFlags::CLONE_NEWNS).trying("cannot make a mount namespace");
    let root = match &view.disk {
        Where::Running(process) => {
            let gone = || Failure::new(Kind::Busy, "it was stopped just now");
            let process = process.open().ok_or_else(gone)?;
            sys::set_open(false);
            let entered = setns(process, CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS);
            // One that ends has left its namespaces before it is gone.
            if entered == Err(Errno::ESRCH) {
                return Err(gone());
            }
            entered.trying("cannot enter the sandbox")?;
            users::become_root()?;
            nix::unistd::chdir("/").trying("cannot enter the root folder")?;
            root()?
        }
        Where::Stopped(tree) => {
            let namespace = users::make(view.ids)?;
            if view.ids.is_root() {
                unshare()?;
                overlay::assemble(tree, Some(&namespace))?;
                let root = root()?;
                users::enter(&namespace)?;
                root
            } else {
                users::enter(&namespace)?;
                unshare()?;
                overlay::assemble(tree, None)?;
                root()?
            }
        }
    };
    sys::set_open(false);
    Ok(root)
}

fn answer(root: &Root, request: FileRequest, channel: &mut Channel) -> Result<()> {
    let reply = match request {
        FileRequest::Inspect {
            paths,
            opaque,
            below,
            bound,
        } => {
            let (entries, contents) = look::inspect(root, &paths, &opaque, &below, bound)?;
            channel.send(&Reply::Found(entries)).trying("the tool is gone")?;
            return channel.send_bytes(&contents).trying("the tool is gone");
        }
        FileRequest::Read { path, most } => {
            let (bytes, truncated) = look::read(root, &path, most)?;
            channel.send(&Reply::Read { truncated }).trying("the tool is gone")?;
            return channel.send_bytes(&bytes).trying("the tool is gone");
        }
        FileRequest::List { path, recursive } => {
            channel
                .send(&Reply::Found(look::list(root, &path, recursive)?))
                .trying("the tool is gone")?;
            return channel.send_bytes(&[]).trying("the tool is gone");
        }
        FileRequest::Write { path, mode, owner } => change::write(root, &path, mode, owner, channel)?,
        FileRequest::Directory { path, mode, owner } => change::directory(root, &path, mode, owner)?,
        FileRequest::Symlink { path, target, owner } => change::symlink(root, &path, &target, owner)?,
        FileRequest::Attributes { path, mode, owner } => change::attributes(root, &path, mode, owner)?,
        FileRequest::Remove { path } => change::remove(root, &path)?,
    };
    channel.send(&Reply::There(reply)).trying("the tool is gone")
}
