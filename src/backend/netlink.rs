//! Devices, addresses and routes: the kernel's messages for them (rtnetlink(7)), as few as are needed here.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

// Kinds of messages, their flags and attributes, as `linux/rtnetlink.h`, `linux/if_link.h` and `linux/veth.h` number
// them.
const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
const GET_LINK: u16 = 18;
const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;
const ANSWER: u16 = 2;
const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
const EXCLUSIVE: u16 = 0x200;
const CREATE: u16 = 0x400;
const LINK_NAME: u16 = 3;
const LINK_INFO: u16 = 18;
const LINK_NAMESPACE: u16 = 19;
const LINK_ALIAS: u16 = 20;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const VETH_PEER: u16 = 1;
const ADDRESS: u16 = 1;
const ADDRESS_LOCAL: u16 = 2;
const ROUTE_GATEWAY: u16 = 5;
const INET: u8 = 2;
const INET6: u8 = 10;
/// Without waiting whether somebody else has the address: IPv6 would.
const NOT_DOUBTED: u8 = 2;
const MAIN_TABLE: u8 = 254;
const BY_BOOT: u8 = 3;
const UNICAST: u8 = 1;
const UP: u32 = 1;
const HEADER: usize = 16;

/// A socket to the network namespace that this thread was in when it was opened.
#[derive(Debug)]
pub(super) struct Netlink(OwnedFd);

impl Netlink {
    pub(super) fn open() -> io::Result<Self> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            // Protocol 0, which is also none: `NETLINK_ROUTE`.
            None,
        )?;
        Ok(Self(socket))
    }

    /// Makes a pair of devices, one here, one in the network namespace of a process.
    pub(super) fn make_pair(&self, name: &str, peer: &str, pid: i32) -> io::Result<()> {
        let mut other = link(0, 0, 0);
        attribute(&mut other, LINK_NAME, &text(peer));
        attribute(&mut other, LINK_NAMESPACE, &pid.to_ne_bytes());
        let (mut data, mut info, mut body) = (Vec::new(), Vec::new(), link(0, 0, 0));
        attribute(&mut data, VETH_PEER, &other);
        attribute(&mut info, INFO_KIND, b"veth");
        attribute(&mut info, INFO_DATA, &data);
        attribute(&mut body, LINK_NAME, &text(name));
        attribute(&mut body, LINK_INFO, &info);
        self.ask(NEW_LINK, CREATE | EXCLUSIVE, &body).map(drop)
    }

    /// Says what a device is for, to whoever lists them.
    pub(super) fn describe(&self, name: &str, words: &str) -> io::Result<()> {
        let mut body = link(0, 0, 0);
        attribute(&mut body, LINK_NAME, &text(name));
        attribute(&mut body, LINK_ALIAS, words.as_bytes());
        self.ask(NEW_LINK, 0, &body).map(drop)
    }

    /// Removes a device, and with it the other of its pair; nothing where there is none.
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        let mut body = link(0, 0, 0);
        attribute(&mut body, LINK_NAME, &text(name));
        match self.ask(DELETE_LINK, 0, &body) {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
            answer => answer.map(drop),
        }
    }

    /// Gives a device an address and puts it up.
    pub(super) fn put_up(&self, name: &str, address: IpAddr, prefix: u8) -> io::Result<()> {
        let index = self.index(name)?;
        let (family, bytes) = octets(address);
        let mut body = vec![family, prefix, NOT_DOUBTED, 0];
        body.extend(index.to_ne_bytes());
        attribute(&mut body, ADDRESS_LOCAL, &bytes);
        attribute(&mut body, ADDRESS, &bytes);
        self.ask(NEW_ADDRESS, CREATE | EXCLUSIVE, &body)?;
        self.ask(NEW_LINK, 0, &link(index, UP, UP)).map(drop)
    }

    /// Sends what no other route of its family takes to a gateway.
    pub(super) fn route_all(&self, gateway: IpAddr) -> io::Result<()> {
        let (family, bytes) = octets(gateway);
        let mut body = vec![family, 0, 0, 0, MAIN_TABLE, BY_BOOT, 0, UNICAST, 0, 0, 0, 0];
        attribute(&mut body, ROUTE_GATEWAY, &bytes);
        self.ask(NEW_ROUTE, CREATE | EXCLUSIVE, &body).map(drop)
    }

    fn index(&self, name: &str) -> io::Result<u32> {
        let mut body = link(0, 0, 0);
        attribute(&mut body, LINK_NAME, &text(name));
        let answer = self.ask(GET_LINK, 0, &body)?;
        number(&answer, 4).ok_or_else(garbled)
    }

    /// Sends a request and gives what the kernel tells, besides that it is done.
    fn ask(&self, kind: u16, flags: u16, body: &[u8]) -> io::Result<Vec<u8>> {
        let length = u32::try_from(HEADER + body.len()).map_err(|_| garbled())?;
        let mut message = length.to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend((REQUEST | ACKNOWLEDGE | flags).to_ne_bytes());
        message.extend([0; 8]);
        message.extend(body);
        send(&self.0, &message, SendFlags::empty())?;
        let mut told = Vec::new();
        loop {
            let mut buffer = vec![0; 64 << 10];
            let (count, _) = recv(&self.0, &mut buffer[..], RecvFlags::empty())?;
            let mut rest = buffer.get(..count).ok_or_else(garbled)?;
            while let Some(length) = number(rest, 0) {
                let length = length as usize;
                let message = rest.get(HEADER..length).ok_or_else(garbled)?;
                if rest.get(4..6) == Some(&ANSWER.to_ne_bytes()) {
                    return match number(message, 0).map(u32::cast_signed) {
                        Some(0) => Ok(told),
                        Some(error) => Err(io::Error::from_raw_os_error(-error)),
                        None => Err(garbled()),
                    };
                }
                told = message.to_vec();
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }
}

/// A family of addresses, and an address of it.
fn octets(address: IpAddr) -> (u8, Vec<u8>) {
    match address {
        IpAddr::V4(four) => (INET, four.octets().to_vec()),
        IpAddr::V6(six) => (INET6, six.octets().to_vec()),
    }
}

/// `struct ifinfomsg`.
fn link(index: u32, flags: u32, change: u32) -> Vec<u8> {
    [0, index, flags, change]
        .into_iter()
        .flat_map(u32::to_ne_bytes)
        .collect()
}

/// Adds an attribute: length, kind, content, and zeros up to a multiple of four.
fn attribute(to: &mut Vec<u8>, kind: u16, content: &[u8]) {
    let length = u16::try_from(4 + content.len()).unwrap_or(u16::MAX);
    to.extend(length.to_ne_bytes());
    to.extend(kind.to_ne_bytes());
    to.extend(content);
    to.resize(to.len().next_multiple_of(4), 0);
}

fn text(text: &str) -> Vec<u8> {
    text.bytes().chain([0]).collect()
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

fn garbled() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the kernel's answer makes no sense")
}
