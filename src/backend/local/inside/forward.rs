//! Joining what comes to sockets of this machine with what listens in a sandbox.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::model::{GuestPort, Protocol};

/// Connections at once, and as many peers that send datagrams. More wait, or are lost.
const MOST: usize = 512;

/// Descriptors that takes: two for each connection, one for each peer, and the sockets that listen.
pub(super) const DESCRIPTORS: u64 = 4096;

/// A peer that has neither sent nor been sent anything for that long is forgotten.
const IDLE: Duration = Duration::from_secs(60);

/// After a connection that could not be accepted, as for want of descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// The longest datagram.
const DATAGRAM: usize = 1 << 16;

/// A socket of this machine that listens, and where it leads.
#[derive(Debug)]
pub(super) struct Door {
    /// It does not block.
    pub(super) socket: OwnedFd,
    pub(super) guest: GuestPort,
}

/// Serves until the process that a descriptor stands for has ended. Sockets that are made here are the sandbox's.
pub(super) fn serve(doors: Vec<Door>, sandbox: OwnedFd) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()?;
    runtime.block_on(async {
        #[allow(
            deprecated,
            reason = "unsound for what may give different numbers; this owns its one"
        )]
        let sandbox = AsyncFd::with_interest(sandbox, Interest::READABLE)?;
        let connections = Arc::new(Semaphore::new(MOST));
        let peers = Arc::new(Semaphore::new(MOST));
        for Door { socket, guest } in doors {
            match guest.protocol {
                Protocol::Tcp => {
                    let listener = TcpListener::from_std(socket.into())?;
                    drop(tokio::spawn(accept(listener, guest.number, Arc::clone(&connections))));
                }
                Protocol::Udp => {
                    let socket = UdpSocket::from_std(socket.into())?;
                    drop(tokio::spawn(pass(Arc::new(socket), guest.number, Arc::clone(&peers))));
                }
            }
        }
        sandbox.readable().await.map(drop)
    })
}

/// Where something in the sandbox may listen.
fn inside(port: u16) -> [SocketAddr; 2] {
    [
        SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        SocketAddr::from((Ipv6Addr::LOCALHOST, port)),
    ]
}

async fn accept(listener: TcpListener, port: u16, room: Arc<Semaphore>) {
    loop {
        let Ok((outer, _)) = listener.accept().await else {
            sleep(PAUSE).await;
            continue;
        };
        let Ok(place) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        drop(tokio::spawn(join(outer, port, place)));
    }
}

/// Joins a connection with one inside, until both ends have closed it. Where nobody listens, it is closed at once.
async fn join(mut outer: TcpStream, port: u16, _place: OwnedSemaphorePermit) {
    for address in inside(port) {
        if let Ok(mut inner) = TcpStream::connect(address).await {
            let _ = outer.set_nodelay(true);
            let _ = inner.set_nodelay(true);
            let _ = copy_bidirectional(&mut outer, &mut inner).await;
            return;
        }
    }
}

/// Somebody out here who sends datagrams.
struct Peer {
    /// Inside, connected.
    inner: UdpSocket,
    /// Whether anything was sent in since that was last looked at.
    busy: AtomicBool,
}

/// Passes datagrams on. Each peer has a socket inside, by which the answers come back to it.
async fn pass(outer: Arc<UdpSocket>, port: u16, room: Arc<Semaphore>) {
    let mut peers: HashMap<SocketAddr, (Arc<Peer>, JoinHandle<()>)> = HashMap::new();
    let mut datagram = vec![0; DATAGRAM];
    loop {
        let Ok((size, from)) = outer.recv_from(&mut datagram).await else {
            sleep(PAUSE).await;
            continue;
        };
        let datagram = &datagram[..size];
        if let Some((peer, task)) = peers.get(&from)
            && !task.is_finished()
            && !is_refused(&peer.inner.try_send(datagram))
        {
            peer.busy.store(true, Ordering::Relaxed);
            continue;
        }
        if let Some((_, task)) = peers.remove(&from) {
            task.abort();
        }
        peers.retain(|_, (_, task)| !task.is_finished());
        let Ok(place) = Arc::clone(&room).try_acquire_owned() else {
            continue;
        };
        let Some(inner) = reach(port, datagram).await else {
            continue;
        };
        let busy = AtomicBool::new(true);
        let peer = Arc::new(Peer { inner, busy });
        let task = tokio::spawn(answer(Arc::clone(&peer), Arc::clone(&outer), from, place));
        peers.insert(from, (peer, task));
    }
}

/// Sends a first datagram to whoever listens inside.
async fn reach(port: u16, datagram: &[u8]) -> Option<UdpSocket> {
    for address in inside(port) {
        let any = SocketAddr::new(address.ip(), 0);
        let Ok(inner) = UdpSocket::bind(any).await else {
            continue;
        };
        let sent = inner.connect(address).await.is_ok() && inner.send(datagram).await.is_ok();
        // Over a loopback device, the answer that nobody is there has come by then.
        if sent && matches!(inner.take_error(), Ok(None)) {
            return Some(inner);
        }
    }
    None
}

/// Passes answers back to a peer, until it is idle, or nobody listens any more.
async fn answer(peer: Arc<Peer>, outer: Arc<UdpSocket>, to: SocketAddr, _place: OwnedSemaphorePermit) {
    let mut datagram = vec![0; DATAGRAM];
    loop {
        match timeout(IDLE, peer.inner.recv(&mut datagram)).await {
            Ok(Ok(size)) => drop(outer.send_to(&datagram[..size], to).await),
            Err(_) if peer.busy.swap(false, Ordering::Relaxed) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}

fn is_refused<T>(sent: &io::Result<T>) -> bool {
    sent.as_ref()
        .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}
