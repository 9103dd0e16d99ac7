//! The other side: what happens in a process of its own, with one thread and an empty environment.
//!
//! The tool starts itself again for each task and sends a request over a socket. Everything in here may enter
//! namespaces, fork and change ids, which a program with threads must not. `unsafe` stands in `fork`, `sys` and
//! nowhere else.

mod bind;
mod change;
mod channel;
mod command;
mod confine;
mod copy;
mod failure;
mod fork;
mod forward;
mod init;
mod killing;
mod look;
mod overlay;
mod place;
mod ports;
mod probe;
mod program;
mod remove;
mod root;
mod serve;
mod start;
mod sys;
mod unpack;
mod users;
mod zstd;

use std::os::fd::AsFd as _;
use std::process::ExitCode;

use super::wire::{Disk, Reply, Request};
use channel::Channel;
use failure::{Failure, Result, Trying as _};

/// The argument that makes the program this side.
pub const ENTRY: &str = "local-sandbox-helper";

/// Does what the tool at the other end of standard input asks for. Failures are told there, and only there.
#[must_use]
pub fn main() -> ExitCode {
    // Whoever started the tool may have left descriptors open, and each leads out of a sandbox.
    sys::close_others(&[]);
    let Ok(mut channel) = Channel::take() else {
        return ExitCode::FAILURE;
    };
    let request = match channel.receive() {
        Ok(Some(request)) => request,
        // Somebody has typed the argument, or the tool is gone.
        _ => return ExitCode::FAILURE,
    };
    let told = match answer(request, &mut channel) {
        Ok(Some(reply)) => channel.send(&reply),
        Ok(None) => Ok(()),
        Err(failure) => channel.send(&failure.reply()),
    };
    match told {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn answer(request: Request, channel: &mut Channel) -> Result<Option<Reply>> {
    sys::default_signals();
    match request {
        Request::Start(start) => start::start(start, channel).map(|()| Some(Reply::Done)),
        Request::Exec(exec) => command::run(&exec, channel).map(|code| Some(Reply::Code(code))),
        Request::Files(view) => serve::serve(&view, channel).map(|()| None),
        Request::Disk(ids, disk) => {
            users::become_inner(ids)?;
            match disk {
                Disk::Copy { from, to } => copy::copy(&from, &to)?,
                Disk::Remove(folders) => folders.iter().try_for_each(|folder| {
                    remove::remove(folder).trying(format_args!("cannot remove {}", folder.display()))
                })?,
            }
            Ok(Some(Reply::Done))
        }
        Request::Unpack(ids, unpack) => unpack::unpack(ids, &unpack).map(|()| Some(Reply::Done)),
        Request::Ports(ports) => ports::open(&ports).map(|()| Some(Reply::Done)),
        Request::Program => {
            let program = program::read_only()?;
            channel.send(&Reply::Ready).trying("the tool is gone")?;
            channel.send_descriptor(program.as_fd()).trying("the tool is gone")?;
            Ok(None)
        }
        Request::Probe(ids) => probe::probe(ids).map(|()| Some(Reply::Done)),
    }
}

/// A failure that is not the system's.
fn invalid(message: impl Into<String>) -> Failure {
    Failure::new(super::wire::Kind::Invalid, message)
}
