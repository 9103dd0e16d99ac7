//! Jobs: calls that go on after their answer.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tokio::sync::watch;

use super::check;
use super::failure::Failure;
use super::methods::{Call, Method};
use super::server::{self, Server};
use super::session::Session;

/// How many jobs are kept.
const KEPT: usize = 1000;

/// All jobs since the start of the server.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    jobs: Mutex<BTreeMap<u64, Job>>,
    locks: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

/// One job.
#[derive(Debug)]
struct Job {
    method: &'static str,
    arguments: Value,
    lock: Option<String>,
    state: &'static str,
    percent: u64,
    outcome: Option<Result<Value, Failure>>,
    started: u64,
    finished: Option<u64>,
    ended: watch::Sender<bool>,
    /// The requests whose answers are withheld until it ends.
    messages: Vec<Value>,
}

/// Milliseconds since 1970.
pub(super) fn now() -> u64 {
    let passed = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    u64::try_from(passed.as_millis()).expect("in range")
}

impl Job {
    fn fields(&self, number: u64, dialect: super::Dialect) -> Value {
        let failure = self.outcome.as_ref().and_then(|outcome| outcome.as_ref().err());
        let result = self.outcome.as_ref().and_then(|outcome| outcome.as_ref().ok());
        let mut fields = json!({
            "id": number,
            "method": self.method,
            "arguments": self.arguments,
            "transient": false,
            "description": null,
            "abortable": false,
            "logs_path": null,
            "logs_excerpt": null,
            "progress": { "percent": self.percent, "description": "", "extra": null },
            "result": if self.state == "SUCCESS" { result } else { None },
            "result_encoding_error": null,
            "error": failure.map(Failure::text),
            "exception": failure.map(Failure::exception),
            "exc_info": failure.map(Failure::exc_info),
            "state": self.state,
            "time_started": { "$date": self.started },
            "time_finished": self.finished.map(|finished| json!({ "$date": finished })),
            "credentials": {
                "type": "API_KEY",
                "data": { "username": server::USER, "api_key": { "id": 1, "name": "tests" } },
            },
        });
        if dialect != super::Dialect::V25_04 {
            fields["message_ids"] = json!(self.messages);
        }
        fields
    }
}

impl Jobs {
    fn all(&self) -> MutexGuard<'_, BTreeMap<u64, Job>> {
        self.jobs.lock().expect("no panic")
    }

    /// Forgets all of them.
    pub(super) fn clear(&self) {
        self.all().clear();
        self.locks.lock().expect("no panic").clear();
    }
}

impl Server {
    /// Starts a job, or, where too many wait for its lock, gives the last one that waits.
    pub(super) fn submit(
        self: &Arc<Self>,
        session: &Arc<Session>,
        method: Method,
        params: Vec<Value>,
        lock: Option<String>,
        message: Option<&Value>,
    ) -> Result<(u64, watch::Receiver<bool>), Failure> {
        let limit = self.knobs().lock_queue;
        let mut jobs = self.jobs.all();
        if limit == 0 && lock.is_some() {
            let mut held = jobs.values().filter(|job| job.lock == lock);
            if held.any(|job| job.finished.is_none()) {
                return Err(Failure::busy());
            }
        } else if lock.is_some() {
            let waiting = jobs
                .iter()
                .filter(|(_, job)| job.lock == lock && job.state == "WAITING");
            let waiting: Vec<_> = waiting.map(|(number, _)| *number).collect();
            if let Some(last) = waiting.last().filter(|_| waiting.len() >= limit) {
                let job = jobs.get_mut(last).expect("was just found");
                job.messages.extend(message.cloned());
                return Ok((*last, job.ended.subscribe()));
            }
        }
        let number = jobs.last_key_value().map_or(1, |(number, _)| number + 1);
        if jobs.len() >= KEPT {
            let oldest = jobs
                .iter()
                .find(|(_, job)| job.finished.is_some())
                .map(|(number, _)| *number);
            oldest.and_then(|oldest| jobs.remove(&oldest));
        }
        let (ended, ending) = watch::channel(false);
        let job = Job {
            method: method.name,
            arguments: server::redacted(method.name, &params),
            lock: lock.clone(),
            state: "WAITING",
            percent: 0,
            outcome: None,
            started: now(),
            finished: None,
            ended,
            messages: message.into_iter().cloned().collect(),
        };
        jobs.insert(number, job);
        drop(jobs);
        self.announce("added", number);
        let lock = lock.map(|lock| {
            self.jobs
                .locks
                .lock()
                .expect("no panic")
                .entry(lock)
                .or_default()
                .clone()
        });
        tokio::spawn(self.clone().work(session.clone(), method, params, number, lock));
        Ok((number, ending))
    }

    async fn work(
        self: Arc<Self>,
        session: Arc<Session>,
        method: Method,
        params: Vec<Value>,
        number: u64,
        lock: Option<Arc<tokio::sync::Mutex<()>>>,
    ) {
        let _held = match &lock {
            Some(lock) => Some(lock.lock().await),
            None => None,
        };
        self.change(number, |job| job.state = "RUNNING");
        let least = self.knobs().slow_jobs;
        if !least.is_zero() {
            tokio::time::sleep(least).await;
        }
        let outcome = if self.take(|knobs| &mut knobs.busy_jobs) {
            Err(Failure::busy())
        } else {
            self.body(session, method, params).await
        };
        let succeeded = outcome.is_ok();
        let finish = |job: &mut Job| {
            job.state = if succeeded { "SUCCESS" } else { "FAILED" };
            job.outcome = Some(outcome);
            job.finished = Some(now());
        };
        if succeeded {
            self.change(number, |job| {
                finish(job);
                job.percent = 100;
            });
            // The end of a success is told once by its progress and once by its state.
            self.change(number, |_| {});
        } else {
            self.change(number, finish);
        }
        if let Some(job) = self.jobs.all().get(&number) {
            job.ended.send_replace(true);
        }
    }

    async fn body(
        self: &Arc<Self>,
        session: Arc<Session>,
        method: Method,
        params: Vec<Value>,
    ) -> Result<Value, Failure> {
        let params = check::accept(method.checker, method.params, params)?;
        let call = Call {
            server: self.clone(),
            session,
            params,
        };
        call.server.refuse(&method)?;
        (method.run)(call).await
    }

    fn change(&self, number: u64, change: impl FnOnce(&mut Job)) {
        // After a restart nobody knows the job any more.
        let known = self.jobs.all().get_mut(&number).map(change).is_some();
        if known {
            self.announce("changed", number);
        }
    }

    fn announce(&self, what: &str, number: u64) {
        let fields = self.jobs.all().get(&number).map(|job| job.fields(number, self.dialect));
        if let Some(fields) = fields {
            self.event("core.get_jobs", what, &json!(number), Some(fields));
        }
    }

    /// Comes back once a job no longer waits.
    pub(super) async fn running(&self, number: u64) {
        while self.jobs.all().get(&number).is_some_and(|job| job.state == "WAITING") {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    }

    /// How a job that has ended went.
    pub(super) fn outcome(&self, number: u64) -> Result<Value, Failure> {
        let jobs = self.jobs.all();
        let outcome = jobs.get(&number).and_then(|job| job.outcome.clone());
        outcome.unwrap_or_else(|| Err(Failure::fault("Job is gone")))
    }

    /// All jobs, as `core.get_jobs` tells them.
    pub(super) fn job_list(&self, raw: bool) -> Vec<Value> {
        let jobs = self.jobs.all();
        let list = jobs.iter().map(|(number, job)| job.fields(*number, self.dialect));
        list.map(|mut fields| {
            if !raw && fields["result"].is_object() {
                // What a model calls a secret is not told.
                server::redact_result(&mut fields["result"]);
            }
            fields
        })
        .collect()
    }
}
