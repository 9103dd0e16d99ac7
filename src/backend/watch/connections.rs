//! The kernel's record of connections (ctnetlink; the numbers are those of `linux/netfilter/nfnetlink_conntrack.h`).

use std::io;

use rustix::net::netlink::NETFILTER;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

use crate::backend::{Error, ErrorKind, Result};

/// Deleting, of the subsystem of connections.
const DELETE: u16 = (1 << 8) | 2;
const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
const MARK: u16 = 8;
const MASK: u16 = 21;
/// `struct nlmsghdr`.
const HEADER: usize = 16;

/// Forgets the connections that carry a mark: what they send next is new, and judged as such.
pub(super) fn forget(mark: u32) -> Result<()> {
    ask(mark).map_err(|source| {
        Error::new(
            ErrorKind::Failed,
            "connections that were begun meanwhile could not be cut off",
        )
        .with_source(source)
        .with_hint("they last until one of their ends lets go; restart the sandbox to be sure")
    })
}

fn ask(mark: u32) -> io::Result<()> {
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(NETFILTER),
    )?;
    // `struct nfgenmsg`: of every family, version 0, no resource.
    let mut body = vec![0; 4];
    for (kind, value) in [(MARK, mark), (MASK, u32::MAX)] {
        body.extend(8_u16.to_ne_bytes());
        body.extend(kind.to_ne_bytes());
        body.extend(value.to_be_bytes());
    }
    let length = u32::try_from(HEADER + body.len()).map_err(io::Error::other)?;
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(DELETE.to_ne_bytes());
    message.extend((REQUEST | ACKNOWLEDGE).to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    send(&socket, &message, SendFlags::empty())?;
    let mut answer = [0; 1024];
    let (length, _) = recv(&socket, &mut answer[..], RecvFlags::empty())?;
    let code = answer.get(HEADER..HEADER + 4).filter(|_| length >= HEADER + 4);
    let code = code.and_then(|code| Some(i32::from_ne_bytes(code.try_into().ok()?)));
    match code {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(-code)),
        None => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the kernel's answer makes no sense",
        )),
    }
}
