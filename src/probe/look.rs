//! What can be reached from here: TCP and DNS, by the standard library alone. Part of this program, and of the small
//! static one that is put into sandboxes.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// What came of a look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    /// A connection, or these addresses.
    Answer(Vec<IpAddr>),
    /// Somebody said no.
    Refused,
    /// Nobody said anything.
    Silence,
    /// There is no way from here.
    NoWay,
    /// It could not be tried.
    Failed(String),
}

impl fmt::Display for Seen {
    /// One word, and what belongs to it: `answer 192.0.2.1,192.0.2.2`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answer(addresses) => {
                let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                write!(f, "answer {}", addresses.join(","))
            }
            Self::Refused => f.write_str("refused"),
            Self::Silence => f.write_str("silence"),
            Self::NoWay => f.write_str("no-way"),
            Self::Failed(why) => write!(f, "failed {}", why.replace(char::is_control, " ")),
        }
    }
}

fn failed(error: &io::Error) -> Seen {
    use io::ErrorKind as Kind;
    match error.kind() {
        Kind::ConnectionRefused | Kind::ConnectionReset => Seen::Refused,
        Kind::TimedOut | Kind::WouldBlock => Seen::Silence,
        Kind::HostUnreachable | Kind::NetworkUnreachable | Kind::AddrNotAvailable | Kind::NetworkDown => Seen::NoWay,
        // Filters that forbid say so (EACCES, EPERM).
        Kind::PermissionDenied => Seen::Refused,
        _ => Seen::Failed(error.to_string()),
    }
}

/// Whether a TCP connection can be made.
pub(crate) fn tcp(to: SocketAddr) -> Seen {
    match TcpStream::connect_timeout(&to, PATIENCE) {
        Ok(_) => Seen::Answer(Vec::new()),
        Err(error) => failed(&error),
    }
}

/// Kinds of addresses, as DNS numbers them (RFC 1035, RFC 3596).
const FOUR: u8 = 1;
const SIX: u8 = 28;

/// What a DNS server says to a question for a name's IPv4 addresses, and, where it has none, for those of IPv6. Any answer
/// with an address counts; anything else that comes back is a refusal.
pub(crate) fn dns(server: SocketAddr, name: &str) -> Seen {
    let said = |kind| ask(server, name, kind).unwrap_or_else(|error| failed(&error));
    match said(FOUR) {
        Seen::Refused => said(SIX),
        seen => seen,
    }
}

fn ask(server: SocketAddr, name: &str, kind: u8) -> io::Result<Seen> {
    let here: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(here)?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(PATIENCE / 2))?;
    let question = question(name, kind);
    let mut answer = [0; 1_500];
    // A datagram may get lost.
    for _ in 0..2 {
        socket.send(&question)?;
        match socket.recv(&mut answer) {
            Ok(length) => return Ok(addresses(&answer[..length], question.len())),
            Err(error) if matches!(failed(&error), Seen::Silence) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Seen::Silence)
}

fn question(name: &str, kind: u8) -> Vec<u8> {
    let mut bytes = vec![0x5B, 0x78, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.trim_end_matches('.').split('.') {
        bytes.push(u8::try_from(label.len()).unwrap_or(0));
        bytes.extend(label.as_bytes());
    }
    bytes.extend([0, 0, kind, 0, 1]);
    bytes
}

/// The addresses in an answer whose question takes so many bytes, header included.
fn addresses(answer: &[u8], question: usize) -> Seen {
    let number = |at: usize| -> Option<usize> {
        let bytes = answer.get(at..at + 2)?;
        Some(usize::from(bytes[0]) << 8 | usize::from(bytes[1]))
    };
    let mut found = Vec::new();
    let mut at = question;
    for _ in 0..number(6).unwrap_or_default() {
        // A name: labels to an empty one, or a pointer.
        loop {
            match answer.get(at) {
                Some(0) => at += 1,
                Some(length) if length & 0xC0 == 0xC0 => at += 2,
                Some(length) => {
                    at += usize::from(*length) + 1;
                    continue;
                }
                None => {}
            }
            break;
        }
        let (Some(kind), Some(length)) = (number(at), number(at + 8)) else {
            break;
        };
        let bytes = answer.get(at + 10..at + 10 + length).unwrap_or_default();
        found.extend(match u8::try_from(kind) {
            Ok(FOUR) => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
            Ok(SIX) => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
            _ => None,
        });
        at += 10 + length;
    }
    match found.is_empty() {
        true => Seen::Refused,
        false => Seen::Answer(found),
    }
}
