//! A DNS server that answers as this machine resolves names, and keeps what it was asked (RFC 1035).
//!
//! It asks this machine's resolver for addresses alone, as a plan does when it pins them: nothing else that a question may
//! hold gets out by it, and what works with it works with the pinned names.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::UdpSocket;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::backend::{Error, ErrorKind, Result, resolve};
use crate::model::Lookup;

/// So many names are kept, and no more are answered: whoever asks for more is up to something.
const NAMES: usize = 4_096;
/// So many questions are looked into at once.
const AT_ONCE: usize = 32;
/// So many addresses fit into an answer that every client takes: 512 bytes.
const ADDRESSES: usize = 14;
/// Type A, class IN.
const ADDRESS: [u8; 4] = [0, 1, 0, 1];

type Names = Arc<Mutex<BTreeMap<String, Lookup>>>;

/// Names that this machine need not resolve: those of other sandboxes, which a policy opens.
pub(super) type Known = BTreeMap<String, BTreeSet<Ipv4Addr>>;

/// It answers as long as this is there.
#[derive(Debug)]
pub(super) struct Server {
    port: u16,
    names: Names,
    task: JoinHandle<()>,
}

impl Server {
    /// Starts at an address, on a port of the kernel's choice.
    pub(super) async fn start(at: Ipv4Addr, known: Known) -> Result<Self> {
        let cannot =
            |source: io::Error| Error::new(ErrorKind::Failed, format!("cannot answer DNS at {at}")).with_source(source);
        let socket = UdpSocket::bind((at, 0)).await.map_err(cannot)?;
        let port = socket.local_addr().map_err(cannot)?.port();
        let names = Names::default();
        let task = tokio::spawn(serve(Arc::new(socket), names.clone(), Arc::new(known)));
        Ok(Self { port, names, task })
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Stops, and gives what it was asked.
    pub(super) fn end(&self) -> BTreeMap<String, Lookup> {
        self.task.abort();
        self.names.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(socket: Arc<UdpSocket>, names: Names, known: Arc<Known>) {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut buffer = [0; 1_500];
    loop {
        // A client that has gone away is told here, too.
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        let Some(question) = buffer.get(..length).and_then(Question::read) else {
            continue;
        };
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        let (socket, names, known) = (socket.clone(), names.clone(), known.clone());
        tokio::spawn(async move {
            let found = match (question.wants_addresses, known.get(&question.name)) {
                (true, Some(known)) => Some(known.clone()),
                (true, None) => look_up(&question.name, &names).await,
                // There may be such a name; there is nothing else of it.
                (false, _) => Some(BTreeSet::new()),
            };
            let _ = socket.send_to(&question.answer(found.as_ref()), from).await;
            drop(place);
        });
    }
}

/// The addresses of a name; none where there is no such name.
async fn look_up(name: &str, names: &Names) -> Option<BTreeSet<Ipv4Addr>> {
    {
        let mut names = names.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = names.len() >= NAMES && !names.contains_key(name);
        if is_full {
            return None;
        }
        names.entry(name.to_owned()).or_default().times += 1;
    }
    let four = |address: IpAddr| match address {
        IpAddr::V4(four) => Some(four),
        IpAddr::V6(_) => None,
    };
    let found: BTreeSet<_> = resolve(name)
        .await
        .ok()?
        .into_iter()
        .filter_map(four)
        .take(ADDRESSES)
        .collect();
    let mut names = names.lock().unwrap_or_else(PoisonError::into_inner);
    names.entry(name.to_owned()).or_default().addresses.extend(&found);
    Some(found)
}

struct Question {
    name: String,
    wants_addresses: bool,
    /// Header and question, as they came.
    bytes: Vec<u8>,
}

impl Question {
    /// Reads one; none where it is none, or asks for what can be no host name.
    fn read(message: &[u8]) -> Option<Self> {
        let is_question = message.get(2)? & 0xF8 == 0 && message.get(4..6)? == [0, 1];
        let mut labels = Vec::new();
        let mut at = 12;
        loop {
            let length = usize::from(*message.get(at)?);
            at += 1;
            if length == 0 {
                break;
            }
            let label = message.get(at..at + length).filter(|_| length <= 63)?;
            let good = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            if !label.iter().all(good) {
                return None;
            }
            labels.push(String::from_utf8_lossy(label).to_lowercase());
            at += length;
        }
        let kind = message.get(at..at + 4)?;
        let name = labels.join(".");
        (is_question && !name.is_empty() && name.len() <= 253).then(|| Self {
            name,
            wants_addresses: kind == ADDRESS,
            bytes: message.get(..at + 4).unwrap_or_default().to_vec(),
        })
    }

    fn answer(&self, found: Option<&BTreeSet<Ipv4Addr>>) -> Vec<u8> {
        let count = u8::try_from(found.map_or(0, BTreeSet::len)).unwrap_or_default();
        // An answer, recursion available; 3: there is no such name.
        let code = if found.is_some() { 0x80 } else { 0x83 };
        let mut bytes = self.bytes.clone();
        if let Some(header) = bytes.get_mut(2..12) {
            header.copy_from_slice(&[0x81, code, 0, 1, 0, count, 0, 0, 0, 0]);
        }
        for address in found.into_iter().flatten() {
            // The name of the question; it holds for a second.
            bytes.extend([0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
            bytes.extend(address.octets());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(name: &str, kind: u8) -> Vec<u8> {
        let mut bytes = vec![7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
        for label in name.split('.') {
            bytes.push(u8::try_from(label.len()).expect("short"));
            bytes.extend(label.as_bytes());
        }
        // And what else clients send (RFC 6891).
        bytes.extend([0, 0, kind, 0, 1, 0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
        bytes
    }

    #[test]
    fn questions_are_read_and_answered() {
        let asked = Question::read(&question("Some.Name.test", 1)).expect("a question");
        assert!(asked.wants_addresses);
        assert_eq!(asked.name, "some.name.test");
        let answer = asked.answer(Some(&BTreeSet::from([Ipv4Addr::new(198, 51, 100, 10)])));
        assert_eq!(answer[..12], [7, 7, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
        assert!(answer.ends_with(&[0, 4, 198, 51, 100, 10]));
        assert_eq!(asked.answer(None)[3] & 15, 3);
        assert!(
            !Question::read(&question("name.test", 28))
                .expect("a question")
                .wants_addresses
        );
    }

    #[test]
    fn nonsense_is_not_answered() {
        let good = question("name.test", 1);
        for length in 0..good.len() - 11 {
            assert!(Question::read(&good[..length]).is_none(), "{length}");
        }
        for name in ["", "a b.test", "a\".test", "\n", "a/b"] {
            assert!(Question::read(&question(name, 1)).is_none(), "{name:?}");
        }
        let mut answer = good.clone();
        answer[2] |= 0x80;
        assert!(Question::read(&answer).is_none());
        let mut looped = good;
        looped[12] = 0xC0;
        assert!(Question::read(&looped).is_none());
    }
}
