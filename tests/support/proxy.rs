//! A proxy in front of the daemon's unix socket that writes down what is asked of it: each request's method and path,
//! and, on a connection that becomes a file session, each SFTP packet.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

/// Something that was asked of the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asked {
    /// A request.
    Request { method: String, path: String },
    /// A packet of a file session: its kind, and, of OPEN, its flags (draft-ietf-secsh-filexfer-02, sections 3 and 6.3).
    Packet { kind: u8, flags: Option<u32> },
    /// Bytes that are neither; the rest of that connection is not read.
    Unknown(String),
}

impl Asked {
    /// Whether it can change nothing.
    pub(crate) fn is_read(&self) -> bool {
        match self {
            Self::Request { method, .. } => method == "GET",
            Self::Packet { kind: 3, flags } => *flags == Some(1),
            // INIT, CLOSE, READ, LSTAT, FSTAT, OPENDIR, READDIR, REALPATH, STAT, READLINK.
            Self::Packet { kind, .. } => matches!(kind, 1 | 4 | 5 | 7 | 8 | 11 | 12 | 16 | 17 | 19),
            Self::Unknown(_) => false,
        }
    }
}

/// The proxy, as long as it is kept.
#[derive(Debug)]
pub(crate) struct Proxy {
    folder: tempfile::TempDir,
    asked: Arc<Mutex<Vec<Asked>>>,
    gate: Arc<Mutex<Option<Gate>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    /// Starts one in front of a socket.
    pub(crate) fn start(upstream: &Path) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let listener = UnixListener::bind(folder.path().join("unix.socket")).expect("listens");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (upstream, kept) = (upstream.to_owned(), asked.clone());
        let gate = Arc::new(Mutex::new(None));
        let gates = gate.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(connection(client, upstream.clone(), kept.clone(), gates.clone()));
            }
        });
        Self {
            folder,
            asked,
            gate,
            task,
        }
    }

    /// Where it listens.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("unix.socket")
    }

    /// Sets up a gate; there is one at a time.
    pub(crate) fn gate(&self, meant: fn(&Asked) -> bool) -> Gate {
        let gate = Gate {
            meant,
            state: watch::Sender::new((false, false)),
        };
        *self.gate.lock().expect("no panic") = Some(gate.clone());
        gate
    }

    /// What was asked since the last time.
    pub(crate) fn take(&self) -> Vec<Asked> {
        std::mem::take(&mut self.asked.lock().expect("no panic"))
    }
}

/// Holds back the first thing of a kind that is asked, until it is opened.
#[derive(Clone)]
pub(crate) struct Gate {
    meant: fn(&Asked) -> bool,
    /// Whether it was reached, and whether it was opened.
    state: watch::Sender<(bool, bool)>,
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Gate").field(&self.state).finish()
    }
}

impl Gate {
    /// Comes back when something is held back.
    pub(crate) async fn reached(&self) {
        let reached = self.state.subscribe().wait_for(|(reached, _)| *reached).await.map(drop);
        reached.expect("the sender is here");
    }

    /// Lets it through, and all that comes after it.
    pub(crate) fn open(&self) {
        self.state.send_modify(|(_, open)| *open = true);
    }

    async fn pass(&self) {
        self.state.send_modify(|(reached, _)| *reached = true);
        let opened = self.state.subscribe().wait_for(|(_, open)| *open).await.map(drop);
        opened.expect("the sender is here");
    }
}

async fn connection(
    client: UnixStream,
    upstream: PathBuf,
    asked: Arc<Mutex<Vec<Asked>>>,
    gate: Arc<Mutex<Option<Gate>>>,
) -> io::Result<()> {
    // A connection that sends nothing freezes the daemon: there is none before there is something to send.
    let (mut from_client, mut to_client) = client.into_split();
    let mut reading = Reading::default();
    let mut buffer = vec![0; 64 << 10];
    let mut count = from_client.read(&mut buffer).await?;
    pass(reading.take(&buffer[..count]), &asked, &gate).await;
    let daemon = UnixStream::connect(upstream).await?;
    let (mut from_daemon, mut to_daemon) = daemon.into_split();
    let answers = tokio::spawn(async move {
        let _ = tokio::io::copy(&mut from_daemon, &mut to_client).await;
        let _ = to_client.shutdown().await;
    });
    while count > 0 {
        to_daemon.write_all(&buffer[..count]).await?;
        count = from_client.read(&mut buffer).await?;
        pass(reading.take(&buffer[..count]), &asked, &gate).await;
    }
    let _ = to_daemon.shutdown().await;
    let _ = answers.await;
    Ok(())
}

/// Writes down what is asked before the daemon hears it, and holds back what the gate means.
async fn pass(new: Vec<Asked>, asked: &Mutex<Vec<Asked>>, gate: &Mutex<Option<Gate>>) {
    let gate = gate.lock().expect("no panic").clone();
    let gate = gate.filter(|gate| new.iter().any(gate.meant));
    asked.lock().expect("no panic").extend(new);
    if let Some(gate) = gate {
        gate.pass().await;
    }
}

/// What a connection's bytes are.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The head of a request.
    #[default]
    Head,
    /// So many bytes of its body.
    Body(usize),
    /// Packets of SFTP.
    Packets,
    /// So many bytes of a packet, which are of no interest.
    Packet(usize),
    /// A websocket, or what nobody understands.
    Rest,
}

/// One connection, read as it comes.
#[derive(Debug, Default)]
struct Reading {
    state: State,
    left: Vec<u8>,
}

impl Reading {
    fn take(&mut self, bytes: &[u8]) -> Vec<Asked> {
        self.left.extend(bytes);
        let mut asked = Vec::new();
        while self.step(&mut asked) {}
        asked
    }

    /// Reads one thing; whether there may be another.
    fn step(&mut self, asked: &mut Vec<Asked>) -> bool {
        match self.state {
            State::Rest => {
                self.left.clear();
                false
            }
            State::Body(length) => self.skip(length, State::Body, State::Head),
            State::Packet(length) => self.skip(length, State::Packet, State::Packets),
            State::Head => self.head(asked),
            State::Packets => self.packet(asked),
        }
    }

    fn skip(&mut self, length: usize, more: fn(usize) -> State, then: State) -> bool {
        let count = length.min(self.left.len());
        self.left.drain(..count);
        self.state = if count == length { then } else { more(length - count) };
        count == length
    }

    /// RFC 9112, sections 3 and 6.
    fn head(&mut self, asked: &mut Vec<Asked>) -> bool {
        let Some(end) = self.left.windows(4).position(|four| four == b"\r\n\r\n") else {
            return false;
        };
        let head = String::from_utf8_lossy(&self.left[..end]).into_owned();
        self.left.drain(..end + 4);
        let mut lines = head.split("\r\n");
        let mut words = lines.next().unwrap_or_default().split(' ');
        let (Some(method), Some(path), Some("HTTP/1.1")) = (words.next(), words.next(), words.next()) else {
            asked.push(Asked::Unknown(head));
            self.state = State::Rest;
            return true;
        };
        asked.push(Asked::Request {
            method: method.to_owned(),
            path: path.to_owned(),
        });
        let header = |name: &str| {
            head.split("\r\n").skip(1).find_map(|line| {
                let (key, value) = line.split_once(':')?;
                key.eq_ignore_ascii_case(name).then(|| value.trim().to_lowercase())
            })
        };
        self.state = match (header("upgrade").as_deref(), header("content-length")) {
            (Some("sftp"), _) => State::Packets,
            (Some(_), _) => State::Rest,
            (None, Some(length)) => State::Body(length.parse().unwrap_or(usize::MAX)),
            (None, None) if header("transfer-encoding").is_some() => State::Rest,
            (None, None) => State::Head,
        };
        true
    }

    /// A length, a kind, and what the kind says.
    fn packet(&mut self, asked: &mut Vec<Asked>) -> bool {
        let number =
            |at: usize| -> Option<u32> { Some(u32::from_be_bytes(self.left.get(at..at + 4)?.try_into().ok()?)) };
        let (Some(length), Some(kind)) = (number(0), self.left.get(4).copied()) else {
            return false;
        };
        let mut flags = None;
        if kind == 3 {
            // Length, kind, request's number, the path with its length before it, flags.
            let Some(found) = number(9).and_then(|path| number(13 + path as usize)) else {
                return false;
            };
            flags = Some(found);
        }
        asked.push(Asked::Packet { kind, flags });
        self.state = State::Packet(length as usize + 4);
        true
    }
}

mod tests {
    use super::*;

    fn packet(kind: u8, rest: &[u8]) -> Vec<u8> {
        let length = u32::try_from(rest.len() + 1).expect("short");
        [&length.to_be_bytes()[..], &[kind], rest].concat()
    }

    fn open(flags: u32) -> Vec<u8> {
        let rest = [
            &7_u32.to_be_bytes()[..],
            &2_u32.to_be_bytes(),
            b"/a",
            &flags.to_be_bytes(),
            &[0; 4],
        ]
        .concat();
        packet(3, &rest)
    }

    #[test]
    fn requests_and_packets_are_read_however_they_are_cut() {
        let bytes = [
            b"POST /1.0/x HTTP/1.1\r\nContent-Length: 5\r\n\r\nGET /".as_slice(),
            b"GET /1.0/y/sftp HTTP/1.1\r\nUpgrade: sftp\r\n\r\n",
            &packet(1, &3_u32.to_be_bytes()),
            &open(1),
            &open(0x2a),
            &packet(6, b"GET / HTTP/1.1\r\n\r\n"),
            &packet(4, b"handle"),
        ]
        .concat();
        for size in [1, 3, 7, bytes.len()] {
            let mut reading = Reading::default();
            let asked: Vec<Asked> = bytes.chunks(size).flat_map(|chunk| reading.take(chunk)).collect();
            let reads: Vec<bool> = asked.iter().map(Asked::is_read).collect();
            assert_eq!(
                reads,
                [false, true, true, true, false, false, true],
                "{size}: {asked:?}"
            );
        }
    }
}
