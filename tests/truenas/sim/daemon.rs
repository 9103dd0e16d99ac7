//! The daemon that the containers are really in.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::support::daemon;

/// A project in the private daemon, made when it is first needed, with a network of its own.
///
/// The project keeps the names of containers as they are, and the network keeps simulations apart that have
/// containers of the same names.
#[derive(Debug)]
pub(super) struct Daemon {
    socket: Option<PathBuf>,
    project: String,
    network: String,
    ready: OnceCell<Result<(), String>>,
}

/// The daemon's image that stands for all images.
pub(super) const IMAGE: &str = "ssh";

type Answer = Result<Value, String>;

impl Daemon {
    /// The daemon that the tests may use, if there is one.
    pub(super) fn find() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        Self {
            socket: daemon::find().map(|daemon| daemon.socket),
            project: format!("nas-{process}-{number}"),
            // At most 15 characters, the kernel's bound.
            network: format!("nas{process:x}-{number}"),
            ready: OnceCell::new(),
        }
    }

    /// Whether containers can be made. What is missing is said aloud.
    ///
    /// # Panics
    /// When `CI` is set and something is missing.
    pub(super) async fn usable(&self) -> bool {
        if self.socket.is_none() {
            return false;
        }
        let image = self
            .request(Method::GET, &format!("/images/aliases/{IMAGE}"), None)
            .await;
        let missing = match image {
            // Their disks are changed as the machine's root changes them.
            _ if !rustix::process::geteuid().is_root() => "not root".to_owned(),
            Err(_) => format!("no image, tests/incus/daemon image {IMAGE}"),
            Ok(_) => return true,
        };
        let what = format!("every check with simulated containers: {missing}");
        assert!(std::env::var_os("CI").is_none(), "{what}");
        daemon::skipped(&what);
        false
    }

    pub(super) fn project(&self) -> &str {
        &self.project
    }

    /// The folder of the daemon's one pool.
    pub(super) fn pool(&self) -> Option<PathBuf> {
        Some(self.socket.as_deref()?.parent()?.join("storage-pools/default"))
    }

    /// Where the disk of a container is.
    pub(super) fn disk(&self, name: &str) -> Option<PathBuf> {
        Some(self.pool()?.join(format!("containers/{}_{name}", self.project)))
    }

    /// A folder for this simulation's snapshots, on the same disk.
    pub(super) fn snapshots(&self) -> Option<PathBuf> {
        Some(self.pool()?.join(format!("{}-snapshots", self.project)))
    }

    /// The name of the network, for the devices of containers.
    pub(super) fn network(&self) -> &str {
        &self.network
    }

    /// One request in the simulation's project, and what it starts, to the end. Gives the metadata.
    pub(super) async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        self.ready.get_or_init(|| self.prepare()).await.clone()?;
        let joint = if path.contains('?') { '&' } else { '?' };
        self.request(method, &format!("{path}{joint}project={}", self.project), body)
            .await
    }

    async fn prepare(&self) -> Result<(), String> {
        let config = json!({
            "features.images": "false",
            "features.profiles": "false",
            "features.networks": "false",
            "features.storage.volumes": "false",
        });
        let project = json!({ "name": self.project, "config": config });
        self.request(Method::POST, "/projects", Some(project)).await?;
        let mut outcome = Ok(Value::Null);
        // Another simulation may take the same addresses at the same moment.
        for attempt in 0..5 {
            let network = json!({
                "name": self.network,
                "type": "bridge",
                "config": {
                    "ipv4.address": free_subnet(u64::from(std::process::id()) * 7 + attempt),
                    "ipv4.nat": "true",
                    "ipv6.address": "none",
                },
            });
            outcome = self.request(Method::POST, "/networks", Some(network)).await;
            if outcome.is_ok() {
                break;
            }
        }
        outcome.map(drop)
    }

    async fn request(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        // The daemon looks at all devices of this machine, and stumbles over those of others that go meanwhile.
        for _ in 0..50 {
            match self.request_once(method.clone(), path, body.clone()).await {
                Err(error) if error.contains("-j link show") => tokio::time::sleep(Duration::from_millis(100)).await,
                answer => return answer,
            }
        }
        self.request_once(method, path, body).await
    }

    async fn request_once(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        let socket = self.socket.as_deref().ok_or("no daemon for the tests")?;
        let client = client(socket);
        let text = |error: reqwest::Error| format!("{error:?}");
        let mut request = client.request(method, format!("http://incus/1.0{path}"));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let mut answer: Value = request.send().await.map_err(text)?.json().await.map_err(text)?;
        if let Some(operation) = answer["operation"].as_str().filter(|operation| !operation.is_empty()) {
            let wait = client
                .get(format!("http://incus{operation}/wait"))
                .send()
                .await
                .map_err(text)?;
            answer = wait.json().await.map_err(text)?;
            let error = answer["metadata"]["err"].as_str().unwrap_or_default();
            if !error.is_empty() {
                return Err(error.to_owned());
            }
        }
        match answer["error"].as_str().filter(|error| !error.is_empty()) {
            Some(error) => Err(error.to_owned()),
            None => Ok(answer["metadata"].take()),
        }
    }

    /// Begins a command with a terminal. Gives the socket and the operation, whose websockets are the terminal's.
    pub(super) async fn exec(&self, name: &str, command: &[String]) -> Option<(PathBuf, Value)> {
        let socket = self.socket.clone()?;
        let body = json!({
            "command": command,
            "interactive": true,
            "wait-for-websocket": true,
            "width": 80,
            "height": 24,
            "environment": { "TERM": "xterm", "HOME": "/root", "LANG": "en_US.UTF-8" },
        });
        let url = format!("http://incus/1.0/instances/{name}/exec?project={}", self.project);
        let answer = client(&socket).post(url).json(&body).send().await.ok()?;
        let mut answer: Value = answer.json().await.ok()?;
        Some((socket, answer["metadata"].take()))
    }

    /// Deletes something, and says so when it does not go.
    async fn delete(&self, path: &str) {
        let mut last = String::new();
        for pause in [0, 100, 500, 2000] {
            tokio::time::sleep(Duration::from_millis(pause)).await;
            match self.request(Method::DELETE, path, None).await {
                Ok(_) => return,
                Err(error) => last = error,
            }
        }
        daemon::tell(&format!("{path} of a simulation is left behind: {last}"));
    }

    /// Removes all that is in the project, and the project.
    pub(super) async fn remove(&self) {
        if self.ready.get().is_none() {
            return;
        }
        let instances = self.call(Method::GET, "/instances?recursion=1", None).await;
        for instance in instances.unwrap_or_default().as_array().into_iter().flatten() {
            let path = format!("/instances/{}", instance["name"].as_str().unwrap_or_default());
            let stop = json!({ "action": "stop", "force": true, "timeout": -1 });
            let _ = self.call(Method::PUT, &format!("{path}/state"), Some(stop)).await;
            let _ = self.call(Method::DELETE, &path, None).await;
        }
        if let Some(folder) = self.snapshots() {
            let _ = super::disks::remove_folder(&folder).await;
        }
        for path in [
            format!("/networks/{}", self.network),
            format!("/projects/{}", self.project),
        ] {
            self.delete(&path).await;
        }
    }
}

fn client(socket: &Path) -> reqwest::Client {
    // The client wants a provider, though nothing is encrypted here. Another test may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .unix_socket(socket)
        // A connection on which nothing is said freezes the daemon.
        .pool_max_idle_per_host(0)
        // Reading all authorities of the machine takes longer than most requests.
        .tls_certs_only([])
        .timeout(Duration::from_secs(300))
        .build()
        .expect("a client")
}

/// A private /24 that no route of this machine leads into, the first of those that a seed gives.
fn free_subnet(seed: u64) -> String {
    let routes = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
    let taken: Vec<u32> = routes
        .lines()
        .skip(1)
        .filter_map(|line| u32::from_str_radix(line.split_whitespace().nth(1)?, 16).ok())
        .map(|address| u32::from_be(address) >> 8)
        .collect();
    let mut number = u32::try_from(seed % 50_000).expect("is small");
    loop {
        // 10.64.0.0 to 10.254.255.0.
        let third = number % 256;
        let second = 64 + (number / 256) % 190;
        if !taken.contains(&((10 << 16) | (second << 8) | third)) {
            return format!("10.{second}.{third}.1/24");
        }
        number += 1;
    }
}
