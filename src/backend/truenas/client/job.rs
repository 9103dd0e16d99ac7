//! What runs in the background: awaiting its end, over lost connections.
//!
//! A call of such a method is answered with a number at once, and events tell how it goes on. The first of them may come
//! before the answer; the last mostly comes twice. Parameters that are wrong show only in the job, which then fails.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

use super::connection::Connection;
use super::frame::JOBS;
use super::{Client, failure};
use crate::backend::retry::retry;
use crate::backend::{Error, ErrorKind, Result, may_change};

/// How many jobs are remembered.
const REMEMBERED: usize = 1000;
/// How long an event is waited for before the system is asked: at first, and at most, as it doubles.
const QUIET: Duration = Duration::from_secs(1);
const QUIETEST: Duration = Duration::from_secs(15);
/// How long a new connection is tried for while a job runs, and how long between two tries.
const GONE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(500);

/// A job, as events and listings tell it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Job {
    pub(super) id: i64,
    #[serde(default)]
    method: String,
    #[serde(default)]
    arguments: Value,
    #[serde(default)]
    state: String,
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    exc_info: Option<Exception>,
    #[serde(default)]
    result: Value,
}

#[derive(Debug, Clone, Deserialize)]
struct Exception {
    #[serde(default)]
    errno: Option<i64>,
    #[serde(default)]
    extra: Value,
}

impl Job {
    /// How it ended; none while it has not. States are read tolerantly: what is not known goes on.
    fn outcome(&self) -> Option<Result<Value>> {
        match self.state.as_str() {
            "SUCCESS" | "FINISHED" => Some(Ok(self.result.clone())),
            "ABORTED" => Some(Err(Error::new(ErrorKind::Failed, "somebody has aborted it"))),
            "FAILED" | "ERROR" => {
                let reason = self.error.as_deref().unwrap_or_default();
                let exception = self.exc_info.as_ref();
                let number = exception.and_then(|exception| exception.errno).or(number_of(reason));
                let extra = exception.map_or(&Value::Null, |exception| &exception.extra);
                Some(Err(failure::error(number, reason, extra)))
            }
            _ => None,
        }
    }

    /// Whether it is the one that a call asked for. When too many wait for the same instance, the system answers with the
    /// last of them, whatever that does. Defaults may have been added, and secrets taken out.
    fn is(&self, method: &str, params: &Value) -> bool {
        self.method == method && (self.arguments.is_null() || holds(&self.arguments, params))
    }
}

/// The number that stands before the words, by its name.
fn number_of(reason: &str) -> Option<i64> {
    const NAMES: [(&str, i64); 7] = [
        ("[ENOENT]", 2),
        ("[EAGAIN]", 11),
        ("[EACCES]", 13),
        ("[EFAULT]", 14),
        ("[EBUSY]", 16),
        ("[EEXIST]", 17),
        ("[EINVAL]", 22),
    ];
    let found = NAMES.iter().find(|(name, _)| reason.starts_with(name));
    found.map(|(_, number)| *number)
}

/// Whether all that was sent is in what was received.
fn holds(received: &Value, sent: &Value) -> bool {
    match (received, sent) {
        (Value::String(text), _) if !text.is_empty() && text.bytes().all(|byte| byte == b'*') => true,
        (Value::Array(received), Value::Array(sent)) => {
            sent.len() <= received.len() && received.iter().zip(sent).all(|(received, sent)| holds(received, sent))
        }
        (Value::Object(received), Value::Object(sent)) => sent
            .iter()
            .all(|(key, sent)| received.get(key).is_some_and(|received| holds(received, sent))),
        (received, sent) => received == sent,
    }
}

/// What is known of jobs, as events tell it.
#[derive(Debug)]
pub(super) struct Jobs {
    known: Mutex<BTreeMap<i64, Job>>,
    changed: watch::Sender<()>,
}

impl Jobs {
    pub(super) fn new() -> Self {
        Self {
            known: Mutex::default(),
            changed: watch::Sender::new(()),
        }
    }

    pub(super) fn learn(&self, job: Job) {
        if let Ok(mut known) = self.known.lock() {
            // Events come in order, but a listing may be older than they are.
            let ended = known.get(&job.id).is_some_and(|known| known.outcome().is_some());
            if !ended {
                known.insert(job.id, job);
            }
            while known.len() > REMEMBERED {
                known.pop_first();
            }
        }
        self.changed.send_replace(());
    }

    fn get(&self, id: i64) -> Option<Job> {
        self.known.lock().ok()?.get(&id).cloned()
    }
}

/// A job that was asked for.
struct Asked<'a> {
    method: &'a str,
    params: &'a Value,
    /// The last job before it.
    after: i64,
}

impl Client {
    /// Calls a method that runs in the background, and waits for its end, at most so long.
    ///
    /// # Errors
    /// Whatever it fails with; [`ErrorKind::Timeout`] when it goes on after that; [`ErrorKind::Unreachable`] when the
    /// connection is lost and it is not known whether it was begun.
    pub(in crate::backend::truenas) async fn job(
        &self,
        method: &str,
        params: Value,
        patience: Duration,
    ) -> Result<Value> {
        let until = Instant::now() + patience;
        let late = || {
            Error::new(
                ErrorKind::Timeout,
                format!("`{method}` has not ended within {} s", patience.as_secs()),
            )
            .with_hint("it may still be under way: look at the tasks of the system")
        };
        let job = self.run(method, &params, until);
        timeout_at(until, job).await.unwrap_or_else(|_| Err(late()))
    }

    async fn run(&self, method: &str, params: &Value, until: Instant) -> Result<Value> {
        let (connection, after) = retry(|| async {
            let connection = self.connection().await?;
            let after = self.follow_jobs(&connection).await?;
            Ok((connection, after))
        })
        .await?;
        may_change().await?;
        let asked = Asked { method, params, after };
        let id = match self.ask(&connection, method, params).await {
            Ok(answer) => match answer.as_i64() {
                Some(id) => id,
                // A system that waits for the end itself.
                None => return Ok(answer),
            },
            Err(error) if error.kind() == ErrorKind::Unreachable => match self.find(&asked, until).await? {
                Some(id) => id,
                None => return Err(error),
            },
            Err(error) => return Err(error),
        };
        self.follow(&asked, id, until).await
    }

    /// Waits for the end of a job.
    async fn follow(&self, asked: &Asked<'_>, id: i64, until: Instant) -> Result<Value> {
        let other = || {
            Error::new(
                ErrorKind::Busy,
                format!(
                    "too much waits for the same instance, so `{}` was not begun",
                    asked.method
                ),
            )
        };
        loop {
            let connection = self.again(until).await?;
            self.follow_jobs(&connection).await?;
            let mut changes = connection.jobs().changed.subscribe();
            let mut told = connection.jobs().get(id);
            if told.is_none() {
                told = self.listed(&connection, &json!([[["id", "=", id]]])).await?.pop();
                match &told {
                    Some(job) => connection.jobs().learn(job.clone()),
                    None => return Err(forgotten(asked.method)),
                }
            }
            let (mut asked_at, mut quiet) = (Instant::now(), QUIET);
            while connection.is_open() {
                if let Some(job) = connection.jobs().get(id).or(told.take()) {
                    if !job.is(asked.method, asked.params) {
                        return Err(other());
                    }
                    if let Some(outcome) = job.outcome() {
                        return outcome;
                    }
                }
                let heard = timeout_at(asked_at + quiet, async {
                    tokio::select! {
                        _ = changes.changed() => {}
                        () = connection.ended() => {}
                    }
                });
                if heard.await.is_err() || connection.is_deaf() {
                    // Events may be lost; the listing tells.
                    self.follow_jobs(&connection).await.ok();
                    (asked_at, quiet) = (Instant::now(), (quiet * 2).min(QUIETEST));
                    if let Ok(listed) = self.listed(&connection, &json!([[["id", "=", id]]])).await {
                        listed.into_iter().for_each(|job| connection.jobs().learn(job));
                    }
                }
            }
        }
    }

    /// The job that a call whose answer was lost has begun, if it has.
    async fn find(&self, asked: &Asked<'_>, until: Instant) -> Result<Option<i64>> {
        let connection = self.again(until).await?;
        let newer = json!([[["method", "=", asked.method], ["id", ">", asked.after]]]);
        let jobs = self.listed(&connection, &newer).await?;
        let ours = jobs.iter().find(|job| job.is(asked.method, asked.params));
        Ok(ours.map(|job| job.id))
    }

    /// A connection; tried for a while, because the system may be on its way up again.
    async fn again(&self, until: Instant) -> Result<std::sync::Arc<Connection>> {
        let until = until.min(Instant::now() + GONE);
        loop {
            match self.connection().await {
                Err(error) if error.kind().is_transient() && Instant::now() + PAUSE < until => sleep(PAUSE).await,
                answer => return answer,
            }
        }
    }

    /// Has changes of jobs told, and gives the number of the last one so far.
    async fn follow_jobs(&self, connection: &Connection) -> Result<i64> {
        if let Some(last) = connection.followed() {
            return Ok(last);
        }
        self.ask(connection, "core.subscribe", &json!([JOBS])).await?;
        let last = json!([[], { "order_by": ["-id"], "limit": 1 }]);
        let last = self.listed(connection, &last).await?.first().map_or(0, |job| job.id);
        Ok(connection.follow(last))
    }

    async fn listed(&self, connection: &Connection, params: &Value) -> Result<Vec<Job>> {
        let jobs = self.ask(connection, JOBS, params).await?;
        serde_json::from_value(jobs)
            .map_err(|error| Error::new(ErrorKind::Failed, "the list of jobs cannot be read").with_source(error))
    }

    /// Waits for the end of all jobs of some methods that concern an instance, whoever began them.
    pub(in crate::backend::truenas) async fn settle(
        &self,
        methods: &[&str],
        concerns: impl Fn(&str) -> bool,
        patience: Duration,
    ) -> Result<()> {
        let until = Instant::now() + patience;
        loop {
            let filters = json!([[["state", "in", ["WAITING", "RUNNING"]]]]);
            let jobs: Vec<Job> = self.read(JOBS, filters).await?;
            let under_way = jobs.iter().any(|job| {
                let name = job.arguments.get(0);
                let name = name.and_then(|first| first.as_str().or_else(|| first.get("name")?.as_str()));
                methods.contains(&job.method.as_str()) && name.is_none_or(&concerns)
            });
            if !under_way {
                return Ok(());
            }
            if Instant::now() >= until {
                return Err(Error::new(
                    ErrorKind::Timeout,
                    "what another run has begun on the system has not ended",
                ));
            }
            sleep(PAUSE).await;
        }
    }
}

fn forgotten(method: &str) -> Error {
    Error::new(
        ErrorKind::Unreachable,
        format!("TrueNAS was started again, and no longer knows how `{method}` ended"),
    )
    .with_hint("apply again: what was done is found, and the rest is done")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_is_found_in_what_was_received() {
        let sent = json!([{ "name": "a", "environment": { "A": "1" }, "devices": [{ "dev_type": "NIC" }] }]);
        let received = json!([{ "name": "a", "cpu": null, "environment": { "A": "1" },
            "devices": [{ "dev_type": "NIC", "description": null }] }]);
        assert!(holds(&received, &sent));
        assert!(holds(
            &json!([{ "name": "********", "environment": "***", "devices": "***" }]),
            &sent
        ));
        assert!(!holds(
            &json!([{ "name": "a", "environment": { "A": "2" }, "devices": [] }]),
            &sent
        ));
        assert!(!holds(
            &json!(["b", { "force": true }]),
            &json!(["a", { "force": true }])
        ));
    }

    #[test]
    fn a_failed_job_tells_by_its_numbers() {
        let failed = |text: &str| {
            let job: Job = serde_json::from_str(text).expect("a job");
            job.outcome().expect("ended").expect_err("failed").kind()
        };
        let validation = r#"{"id":1,"state":"FAILED","error":"[EINVAL] virt_instance_create.name: Name 'x' already exists\n",
            "exc_info":{"type":"VALIDATION","errno":null,"extra":[["virt_instance_create.name","Name 'x' already exists",null]]}}"#;
        assert_eq!(failed(validation), ErrorKind::AlreadyExists);
        let missing = r#"{"id":1,"state":"FAILED","error":"[ENOENT] None: VirtInstance nope does not exist",
            "exc_info":{"type":"VALIDATION","errno":null,"extra":[[null,"VirtInstance nope does not exist",2]]}}"#;
        assert_eq!(failed(missing), ErrorKind::NotFound);
        assert_eq!(
            failed(r#"{"id":1,"state":"FAILED","error":"[EBUSY] no","exc_info":null}"#),
            ErrorKind::Busy
        );
        assert_eq!(failed(r#"{"id":1,"state":"ABORTED"}"#), ErrorKind::Failed);
        let running: Job = serde_json::from_str(r#"{"id":1,"state":"LATER_WORD"}"#).expect("a job");
        assert!(running.outcome().is_none());
    }
}
