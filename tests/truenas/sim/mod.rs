//! A **simulation** of TrueNAS SCALE's API, built from the contract that the appliance's own sources state, and
//! from nothing else: no appliance was at hand, and nobody should take a test that passes here for one that passed
//! on one. It speaks JSON-RPC 2.0 over WebSocket as 25.04, 25.10 or 26 does, and is as strict as they are: unknown
//! methods, unknown fields, wrong types, oversize messages and too many calls are refused in the same words. Where
//! a call would break something that the appliance does not guard (a file written through a guest's link, a disk
//! put back under a guest that runs), it refuses and writes it down in [`Sim::violations`], so that a test can fail.
//!
//! Its containers are real: they live in a project of their own in the private Incus daemon of the tests. Its
//! datasets and snapshots are a tree in memory, and the disks of containers in it are those of the daemon.

mod check;
mod containers;
mod daemon;
mod disks;
mod failure;
mod filter;
mod hostfiles;
mod jobs;
mod knobs;
mod listen;
mod methods;
mod rpc;
mod server;
mod session;
mod shell;
mod tree;

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use serde_json::Value;
use tokio::sync::oneshot;

pub(crate) use knobs::{Cut, Knobs, Login, Peer};
use server::Server;

/// Which of the product's API generations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Dialect {
    /// 25.04: `virt.*` and `zfs.snapshot.*`.
    V25_04,
    /// 25.10: `virt.*` and `pool.snapshot.*`.
    V25_10,
    /// 26: `container.*` and `pool.snapshot.*`.
    V26,
}

impl Dialect {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::V25_04, Self::V25_10, Self::V26];

    /// What `system.version` says.
    pub(crate) fn version(self) -> &'static str {
        match self {
            Self::V25_04 => "TrueNAS-25.04.2.6",
            Self::V25_10 => "TrueNAS-25.10.6",
            Self::V26 => "TrueNAS-26.0.0-BETA.3",
        }
    }
}

/// One request that was understood as one, in the order of arrival, secrets redacted.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Request {
    /// The method.
    pub(crate) method: String,
    /// Its parameters.
    pub(crate) params: Value,
}

/// A running simulation. Dropped, it removes its containers, snapshots and project.
///
/// It runs on a thread of its own, so that tests with runtimes of their own can share one.
#[derive(Debug)]
pub(crate) struct Sim {
    server: Arc<Server>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Sim {
    /// Starts one on free ports of 127.0.0.1. Containers need the daemon of the tests; without one, every call that
    /// needs a container fails.
    pub(crate) async fn start(dialect: Dialect, knobs: Knobs) -> Self {
        let (ready, started) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async move {
                let server = Server::start(dialect, knobs).await;
                let _ = ready.send(server.clone());
                let _ = ended.await;
                server.remove().await;
            });
            runtime.shutdown_background();
        });
        Self {
            server: started.await.expect("the simulation starts"),
            end: Some(end),
            thread: Some(thread),
        }
    }

    /// Whether a simulation could make containers here. When not, that is said, and is a failure in CI.
    pub(crate) async fn has_containers() -> bool {
        daemon::Daemon::find().usable().await
    }

    /// The dialect.
    pub(crate) fn dialect(&self) -> Dialect {
        self.server.dialect
    }

    /// The host of all ports.
    pub(crate) fn host(&self) -> &'static str {
        "127.0.0.1"
    }

    /// The port for ws.
    pub(crate) fn port(&self) -> u16 {
        self.server.ports.plain
    }

    /// The port for wss.
    pub(crate) fn tls_port(&self) -> u16 {
        self.server.ports.tls
    }

    /// The certificate of the TLS port, self-signed, for `localhost` and `127.0.0.1`, in PEM.
    pub(crate) fn certificate(&self) -> &str {
        &self.server.certificate
    }

    /// The account that the key belongs to.
    pub(crate) fn username(&self) -> &'static str {
        server::USER
    }

    /// The one API key.
    pub(crate) fn key(&self) -> &str {
        &self.server.key
    }

    /// The pool that containers are in unless told otherwise.
    pub(crate) fn pool(&self) -> &'static str {
        tree::POOLS[0]
    }

    /// Another pool that containers may be in.
    pub(crate) fn other_pool(&self) -> &'static str {
        tree::POOLS[1]
    }

    /// The address of a container, which 26 does not tell by its API.
    pub(crate) async fn address(&self, name: &str) -> Option<String> {
        containers::address(&self.server, name).await
    }

    /// This machine's address in the containers' network.
    pub(crate) async fn gateway(&self) -> Option<std::net::Ipv4Addr> {
        containers::gateway(&self.server).await
    }

    /// Starts a container again from within the system, as after a crash of it: nobody is asked, and nothing is recorded.
    pub(crate) async fn reboot(&self, name: &str) {
        containers::restart(&self.server, name).await.expect("restarts");
    }

    /// Whether a container runs.
    pub(crate) async fn runs(&self, name: &str) -> bool {
        containers::runs(&self.server, name).await.expect("can be asked")
    }

    /// Where a container's files are on this machine, to plant something.
    pub(crate) fn root(&self, name: &str) -> Option<PathBuf> {
        Some(self.server.daemon.disk(name)?.join("rootfs"))
    }

    /// Takes a snapshot of everything in all pools, as systems do by the clock. Nobody is asked, and nothing is recorded.
    pub(crate) async fn snapshot_all(&self, label: &str) {
        let mut tree = self.server.tree().await;
        let all: Vec<String> = tree.datasets.keys().cloned().collect();
        for dataset in all {
            // Nobody goes back to these: without the disks.
            tree.snapshot(&dataset, label, Default::default(), None)
                .await
                .expect("takes");
        }
    }

    /// The snapshots of datasets whose names have a word in them.
    pub(crate) async fn snapshots_with(&self, word: &str) -> Vec<String> {
        let tree = self.server.tree().await;
        let names = tree.snapshots.keys();
        names
            .filter(|name| name.split('@').next().is_some_and(|dataset| dataset.contains(word)))
            .cloned()
            .collect()
    }

    /// The datasets whose names have a word in them.
    pub(crate) async fn datasets_with(&self, word: &str) -> Vec<String> {
        let tree = self.server.tree().await;
        tree.datasets
            .keys()
            .filter(|name| name.contains(word))
            .cloned()
            .collect()
    }

    /// Changes the knobs from now on.
    pub(crate) fn turn(&self, change: impl FnOnce(&mut Knobs)) {
        change(&mut self.server.knobs());
    }

    /// What was asked so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.server.record().requests.clone()
    }

    /// Forgets what was asked so far.
    pub(crate) fn forget(&self) {
        self.server.record().requests.clear();
    }

    /// What a caller did that would have hurt an appliance or a guest.
    pub(crate) fn violations(&self) -> Vec<String> {
        self.server.record().violations.clone()
    }

    /// Each method that was asked, how often, and with which shapes of parameters, for people.
    pub(crate) fn summary(&self) -> String {
        server::summary(&self.requests())
    }

    /// How many connections there were.
    pub(crate) fn connections(&self) -> usize {
        self.server.record().connections
    }

    /// Restarts the server's process: connections are cut, sessions and jobs are forgotten, and jobs are counted
    /// from 1 again. What jobs had started in the daemon goes on.
    pub(crate) fn restart(&self) {
        self.server.restart();
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            if !thread::panicking() {
                ended.expect("the simulation removes what it made");
            }
        }
    }
}
