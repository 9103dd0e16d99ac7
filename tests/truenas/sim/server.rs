//! What all connections share.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::{Value, json};
use tokio::sync::watch;

use super::daemon::Daemon;
use super::failure::{Failure, Fault};
use super::jobs::Jobs;
use super::knobs::Knobs;
use super::listen::{self, Ports};
use super::methods::{self, Method};
use super::session::Session;
use super::shell::Shells;
use super::tree::Tree;
use super::{Dialect, Request};

/// The account that the key belongs to.
pub(super) const USER: &str = "sbx";

/// A simulated server.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) dialect: Dialect,
    pub(super) ports: Ports,
    pub(super) certificate: String,
    pub(super) key: String,
    pub(super) daemon: Daemon,
    pub(super) jobs: Jobs,
    pub(super) shells: Shells,
    methods: BTreeMap<&'static str, Method>,
    knobs: Mutex<Knobs>,
    record: Mutex<Record>,
    tree: tokio::sync::Mutex<Tree>,
    rows: Mutex<BTreeMap<i64, Row>>,
    sessions: Mutex<BTreeMap<u64, Arc<Session>>>,
    revoked: Mutex<bool>,
    number: AtomicU64,
    ended: watch::Sender<bool>,
}

/// A container of 26: what the product keeps in its own database.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) dataset: String,
    /// Everything else, as it is told.
    pub(super) fields: Value,
    /// Its devices, as they are told.
    pub(super) devices: Vec<Value>,
}

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Record {
    pub(super) requests: Vec<Request>,
    pub(super) violations: Vec<String>,
    pub(super) connections: usize,
}

impl Server {
    /// Starts listening.
    pub(super) async fn start(dialect: Dialect, knobs: Knobs) -> Arc<Self> {
        let (doors, certificate) = listen::open().await;
        let server = Arc::new(Self {
            dialect,
            ports: doors.ports(),
            certificate,
            key: format!("1-{}", secret(64)),
            daemon: Daemon::find(),
            jobs: Jobs::default(),
            shells: Shells::default(),
            methods: methods::of(dialect),
            knobs: Mutex::new(knobs),
            record: Mutex::default(),
            tree: tokio::sync::Mutex::new(Tree::new(dialect)),
            rows: Mutex::default(),
            sessions: Mutex::default(),
            revoked: Mutex::new(false),
            number: AtomicU64::new(1),
            ended: watch::Sender::new(false),
        });
        doors.serve(&server);
        server
    }

    /// Ends everything, and removes what was made in the daemon.
    pub(super) async fn remove(&self) {
        self.ended.send_replace(true);
        self.cut_all();
        self.daemon.remove().await;
        // Clones of which no container was made.
        for disk in self
            .tree()
            .await
            .datasets
            .values()
            .filter_map(|dataset| dataset.disk.as_deref())
        {
            if disk.exists() {
                let _ = super::disks::remove(disk).await;
            }
        }
    }

    pub(super) fn ending(&self) -> watch::Receiver<bool> {
        self.ended.subscribe()
    }

    pub(super) fn knobs(&self) -> MutexGuard<'_, Knobs> {
        self.knobs.lock().expect("no panic")
    }

    /// Takes one of a number of faults, if any is left.
    pub(super) fn take(&self, which: impl FnOnce(&mut Knobs) -> &mut usize) -> bool {
        let mut knobs = self.knobs();
        let left = which(&mut knobs);
        let some = *left > 0;
        *left = left.saturating_sub(1);
        some
    }

    /// Whether ZFS does not delete a dataset this time.
    pub(super) fn stays(&self, dataset: &str) -> bool {
        let staying = &mut self.knobs().staying;
        let found = staying.iter().position(|part| dataset.contains(part));
        found.map(|index| staying.remove(index)).is_some()
    }

    /// Refuses the parameters of a method that is to do so.
    pub(super) fn refuse(&self, method: &Method) -> Result<(), Failure> {
        let knobs = self.knobs();
        match knobs.refusing.iter().find(|(name, _)| *name == method.name) {
            Some((_, faults)) => Err(Failure::Invalid(
                faults.iter().map(|(at, text)| Fault::new(*at, *text)).collect(),
            )),
            None => Ok(()),
        }
    }

    pub(super) fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().expect("no panic")
    }

    pub(super) async fn tree(&self) -> tokio::sync::MutexGuard<'_, Tree> {
        self.tree.lock().await
    }

    /// The containers of 26, by number.
    pub(super) fn rows(&self) -> MutexGuard<'_, BTreeMap<i64, Row>> {
        self.rows.lock().expect("no panic")
    }

    pub(super) fn method(&self, name: &str) -> Option<Method> {
        self.methods.get(name).copied()
    }

    /// The names of all methods.
    pub(super) fn method_names(&self) -> Vec<&'static str> {
        self.methods.keys().copied().collect()
    }

    pub(super) fn next_number(&self) -> u64 {
        self.number.fetch_add(1, Ordering::Relaxed)
    }

    /// A new id in the form of a UUID.
    pub(super) fn unique(&self) -> String {
        let number = self.next_number();
        format!("00000000-0000-4000-8000-{number:012x}")
    }

    /// Writes down what was asked.
    pub(super) fn note(&self, method: &str, params: &[Value]) {
        self.record().requests.push(Request {
            method: method.to_owned(),
            params: redacted(method, params),
        });
    }

    /// Writes down that a caller did what would have hurt.
    pub(super) fn violation(&self, what: impl Into<String>) {
        self.record().violations.push(what.into());
    }

    /// Whether the key was revoked; it stays so.
    pub(super) fn revoked(&self) -> MutexGuard<'_, bool> {
        self.revoked.lock().expect("no panic")
    }

    pub(super) fn enter(&self, session: &Arc<Session>) {
        self.record().connections += 1;
        self.sessions().insert(session.id, session.clone());
    }

    pub(super) fn leave(&self, session: &Session) {
        self.sessions().remove(&session.id);
    }

    fn sessions(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Session>>> {
        self.sessions.lock().expect("no panic")
    }

    /// Cuts every connection.
    pub(super) fn cut_all(&self) {
        for session in self.sessions().values() {
            session.cut();
        }
    }

    /// Forgets what a process forgets.
    pub(super) fn restart(&self) {
        self.cut_all();
        self.jobs.clear();
        self.shells.clear();
    }

    /// Sends an event to all who subscribed to its collection.
    pub(super) fn event(&self, collection: &str, what: &str, id: &Value, fields: Option<Value>) {
        let (none, double) = {
            let knobs = self.knobs();
            (knobs.no_events, knobs.double_events)
        };
        if none {
            return;
        }
        let mut params = json!({ "msg": what, "collection": collection, "id": id });
        if let Some(fields) = fields {
            params["fields"] = fields;
        }
        for session in self.sessions().values() {
            let subscribed = {
                let state = session.state();
                let mut names = state.subscriptions.values();
                state.authenticated && names.any(|name| name == collection || name == "*")
            };
            for _ in 0..usize::from(subscribed) * (1 + usize::from(double)) {
                session.notify("collection_update", &params);
            }
        }
    }
}

/// So many random characters.
pub(super) fn secret(length: usize) -> String {
    const ALPHABET: &[u8] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while filled < length {
        let random = rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty());
        filled += random.expect("the kernel has random numbers");
    }
    let characters = bytes
        .iter()
        .map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()]));
    characters.collect()
}

/// Parameters without what nobody may read: keys, tokens, the contents of files, long values.
pub(super) fn redacted(method: &str, params: &[Value]) -> Value {
    let mut params = Value::from(params.to_vec());
    match method {
        "auth.login_with_api_key" | "auth.login_with_token" => hide(params.get_mut(0)),
        "filesystem.file_receive" => hide(params.get_mut(1)),
        _ => {}
    }
    hide_secrets(&mut params);
    params
}

fn hide(value: Option<&mut Value>) {
    if let Some(value) = value {
        let length = value.as_str().map_or(0, str::len);
        *value = Value::from(format!("({length} characters)"));
    }
}

fn hide_secrets(value: &mut Value) {
    const SECRET: [&str; 5] = ["api_key", "password", "token", "otp_token", "reconnect_token"];
    match value {
        Value::Array(items) => items.iter_mut().for_each(hide_secrets),
        Value::Object(map) => {
            for (key, value) in map {
                // The values of user properties are the notes of an environment, keys among them.
                let long = key == "value" && value.as_str().is_some_and(|text| text.len() > 40);
                if value.is_string() && (SECRET.contains(&key.as_str()) || long) {
                    hide(Some(value));
                }
                hide_secrets(value);
            }
        }
        _ => {}
    }
}

/// The same for the result of a job.
pub(super) fn redact_result(result: &mut Value) {
    if let Some(password) = result.get_mut("vnc_password").filter(|password| !password.is_null()) {
        *password = Value::from("********");
    }
    if let Some(raw) = result.get_mut("raw") {
        *raw = Value::from("********");
    }
}

/// Each method, how often it was asked, and the different parameters' first few.
pub(super) fn summary(requests: &[Request]) -> String {
    let mut methods: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for request in requests {
        methods
            .entry(&request.method)
            .or_default()
            .push(request.params.to_string());
    }
    let mut text = String::new();
    for (method, all) in methods {
        let count = all.len();
        let mut different = all;
        different.sort_unstable();
        different.dedup();
        writeln!(text, "{method} × {count}").expect("a text");
        for params in different.iter().take(4) {
            let short: String = params.chars().take(300).collect();
            writeln!(text, "    {short}").expect("a text");
        }
        if different.len() > 4 {
            writeln!(text, "    … {} more", different.len() - 4).expect("a text");
        }
    }
    text
}
