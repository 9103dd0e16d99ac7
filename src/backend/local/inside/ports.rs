//! Ports of this machine that lead into a sandbox: a process beside it, which listens out here and connects in there.
//!
//! Its sockets that listen are made before it enters the sandbox's network, and stay this machine's; those that it makes
//! afterwards are the sandbox's, so they reach what listens on its loopback device. It ends with the first process.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd as _, OwnedFd};

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::setsid;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::failure::{Failure, Result, Trying as _};
use super::forward::{self, Door};
use super::{confine, fork, start, sys, users};
use crate::backend::attachable::{ROOTS, has_ipv6};
use crate::backend::local::ports::Forwarder;
use crate::backend::local::running::Process;
use crate::backend::local::wire::{Kind, Ports};
use crate::model::{GuestPort, Protocol};

/// Opens ports. When it returns, the process that forwards them runs and is recorded; on failure there is none.
pub(super) fn open(ports: &Ports) -> Result<()> {
    let gone = || Failure::new(Kind::Failed, "it does not run any more");
    let in_use = start::hold(&ports.in_use)?;
    let doors = listen(&ports.ports)?;
    let sandbox = ports.process.open().ok_or_else(gone)?;
    start::join(&ports.groups)?;
    let (mut said, say) = users::pipe()?;
    let (hear, mut go) = users::pipe()?;
    let beside = fork::spawn(|| beside(ports, doors, sandbox, in_use, say, hear))?;
    let mut ready = [0];
    match said.read(&mut ready) {
        Ok(1) if ready == [1] => {}
        Ok(1) => {
            let mut text = String::new();
            let _ = said.read_to_string(&mut text);
            return Err(Failure::new(Kind::Failed, text));
        }
        _ => return Err(gone()),
    }
    // Where anything fails from here on, nobody tells it to go on, and it ends.
    let forwarder = Forwarder {
        process: Process::find(beside.as_raw()).ok_or_else(gone)?,
        ports: ports.ports.clone(),
    };
    crate::backend::local::state::write(&ports.record, &forwarder).trying("cannot record what forwards ports")?;
    go.write_all(&[1]).trying("what forwards ports ended at once")
}

/// Listens on this machine's loopback addresses.
fn listen(ports: &BTreeMap<String, u16>) -> Result<Vec<Door>> {
    let addresses = |port| {
        let six = has_ipv6().then(|| SocketAddr::from((Ipv6Addr::LOCALHOST, port)));
        std::iter::once(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).chain(six)
    };
    let mut doors = Vec::new();
    for (guest, host) in ports {
        let guest: GuestPort = guest
            .parse()
            .map_err(|_| super::invalid(format!("{guest} is no port")))?;
        for address in addresses(*host) {
            let socket = bind(address, guest.protocol).map_err(|error| told(&error, address, guest.protocol))?;
            doors.push(Door { socket, guest });
        }
    }
    Ok(doors)
}

fn bind(address: SocketAddr, protocol: Protocol) -> io::Result<OwnedFd> {
    match protocol {
        Protocol::Tcp => {
            let socket = TcpListener::bind(address)?;
            socket.set_nonblocking(true)?;
            Ok(socket.into())
        }
        Protocol::Udp => {
            let socket = UdpSocket::bind(address)?;
            socket.set_nonblocking(true)?;
            Ok(socket.into())
        }
    }
}

fn told(error: &io::Error, address: SocketAddr, protocol: Protocol) -> Failure {
    let port = address.port();
    let message = match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("port {port} of this machine is taken: somebody listens on {address} ({protocol})")
        }
        io::ErrorKind::PermissionDenied => {
            format!("port {port} of this machine {ROOTS}")
        }
        _ => format!("cannot open port {port} of this machine on {address} ({protocol}): {error}"),
    };
    Failure::new(Kind::Invalid, message)
}

/// The process that forwards.
fn beside(ports: &Ports, doors: Vec<Door>, sandbox: OwnedFd, in_use: File, mut say: File, mut hear: File) -> i32 {
    if let Err(failure) = enter(ports, &sandbox) {
        let _ = say.write_all(&[0]);
        let _ = say.write_all(failure.message.as_bytes());
        return 1;
    }
    let told = say.write_all(&[1]);
    drop(say);
    if told.is_err() || !matches!(hear.read(&mut [0]), Ok(1)) {
        return 1;
    }
    drop(hear);
    let (sockets, guests): (Vec<OwnedFd>, Vec<GuestPort>) =
        doors.into_iter().map(|door| (door.socket, door.guest)).unzip();
    let mut kept = vec![sandbox, OwnedFd::from(in_use)];
    kept.extend(sockets);
    sys::close_others(&kept);
    let mut kept = kept.into_iter();
    let (Some(sandbox), Some(_in_use)) = (kept.next(), kept.next()) else {
        return 1;
    };
    let doors = kept.zip(guests).map(|(socket, guest)| Door { socket, guest });
    i32::from(forward::serve(doors.collect(), sandbox).is_err())
}

/// Enters the sandbox's network as root inside who may do nothing, and lets go of all that is the tool's.
fn enter(ports: &Ports, sandbox: &OwnedFd) -> Result<()> {
    sys::set_open(false);
    setns(sandbox, CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET).trying("cannot enter the sandbox")?;
    users::become_root()?;
    sys::set_open(false);
    setsid().trying("cannot make a session")?;
    let null = File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .trying("no /dev/null")?;
    (0..3)
        .try_for_each(|number| sys::place(null.as_fd(), number))
        .trying("cannot let go of streams")?;
    // A connection that somebody has closed is an error of its own, and not the end of all.
    let mut broken = SigSet::empty();
    broken.add(Signal::SIGPIPE);
    broken.thread_block().trying("cannot block a signal")?;
    let most = getrlimit(Resource::Nofile).maximum;
    let descriptors = most.map_or(forward::DESCRIPTORS, |most| most.min(forward::DESCRIPTORS));
    let limit = Rlimit {
        current: Some(descriptors),
        maximum: most,
    };
    let _ = setrlimit(Resource::Nofile, limit);
    confine::drop_capabilities(false)?;
    confine::shed(false, false)?;
    confine::filter(ports.ids.is_single())
}
