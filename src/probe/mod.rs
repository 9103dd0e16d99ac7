//! Proof from inside: what a sandbox with an egress policy can reach, tried by a small program that is put into it, run
//! and removed again.
//!
//! A way out that even this machine cannot go proves nothing when it is closed inside: such a check is unknown.

mod checks;
mod look;

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use serde::Serialize;

use crate::backend::{Account, ExecOpts, Sandboxes};
use crate::model::{Content, Enforcement, GuestPath, InstanceName, LivePolicy, Mode, Owner, SandboxName, Status};
use checks::{Check, Inside, Outside};
use look::Seen;

/// The canary where none is named.
#[must_use]
pub fn usual_canary() -> SocketAddr {
    checks::CANARY.into()
}

/// The program for sandboxes; empty where this build has none.
static PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/probe"));

/// How long the program may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What came of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The policy holds.
    Held,
    /// It does not.
    Leak,
    /// It could not be told.
    Unknown,
}

/// One check of one sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Probe {
    /// The sandbox, by its name in the spec.
    #[schemars(with = "String")]
    pub sandbox: SandboxName,
    /// What was tried: `allowed example.com:443/tcp`, `canary 192.0.2.1:443`.
    pub check: String,
    /// What came of it.
    pub outcome: Outcome,
    /// What was seen, for people.
    pub detail: String,
}

/// A sandbox to look out of.
#[derive(Debug, Clone)]
pub struct Subject {
    /// Its name in the spec.
    pub sandbox: SandboxName,
    /// Its instance.
    pub instance: InstanceName,
    /// Whether it runs.
    pub status: Status,
    /// The policy that is in force; none where there is none.
    pub policy: Option<LivePolicy>,
}

/// Looks out of every one of some sandboxes whose policy closes something. Each gets a file under `/tmp`, which is removed
/// again; nothing else changes. `canary` is an address that no policy should open; `resolvers` are the DNS servers of this
/// machine.
pub async fn probe(
    backend: &dyn Sandboxes,
    subjects: &[Subject],
    canary: SocketAddr,
    resolvers: &[IpAddr],
) -> Vec<Probe> {
    let outside = Outside::look(canary, resolvers).await;
    let each = stream::iter(subjects).map(|subject| probe_one(backend, subject, &outside));
    let concurrency = backend.capabilities().concurrency.max(1);
    each.buffered(concurrency).collect::<Vec<_>>().await.concat()
}

async fn probe_one(backend: &dyn Sandboxes, subject: &Subject, outside: &Outside) -> Vec<Probe> {
    let told = |check: &str, outcome, detail: String| Probe {
        sandbox: subject.sandbox.clone(),
        check: check.to_owned(),
        outcome,
        detail,
    };
    let Some(found) = &subject.policy else {
        return vec![told("policy", Outcome::Leak, "no policy is in force".to_owned())];
    };
    if subject.status != Status::Running {
        return vec![told("policy", Outcome::Unknown, "it does not run".to_owned())];
    }
    if PROGRAM.is_empty() {
        let why = "this build has no program to look around with".to_owned();
        return vec![told("policy", Outcome::Unknown, why)];
    }
    match look_around(backend, subject, found, outside).await {
        Ok(checks) => checks
            .into_iter()
            .map(|(check, outcome, detail)| match (outcome, found.policy.enforce) {
                // What holds today, root inside can undo tomorrow.
                (Outcome::Held, Enforcement::Guest) => told(&check, outcome, format!("{detail} (inside, best effort)")),
                _ => told(&check, outcome, detail),
            })
            .collect(),
        Err(why) => vec![told("policy", Outcome::Unknown, why)],
    }
}

type Told = (String, Outcome, String);

async fn look_around(
    backend: &dyn Sandboxes,
    subject: &Subject,
    found: &LivePolicy,
    outside: &Outside,
) -> Result<Vec<Told>, String> {
    let name = &subject.instance;
    let path =
        GuestPath::new(format!("/tmp/.sbx-apply-probe-{}", std::process::id())).map_err(|error| error.to_string())?;
    let program = Content::inline(PROGRAM.to_vec());
    let put = backend
        .write(name, &path, program, Mode::of_bits(0o500), Some(Owner::ROOT))
        .await;
    put.map_err(|error| format!("the program could not be put into it: {error}"))?;
    let told = ask_all(backend, name, &path, found, outside).await;
    let removed = backend.delete_file(name, &path).await;
    let told = told?;
    removed.map_err(|error| format!("{path} could not be removed: {error}"))?;
    Ok(told)
}

async fn ask_all(
    backend: &dyn Sandboxes,
    name: &InstanceName,
    path: &GuestPath,
    found: &LivePolicy,
    outside: &Outside,
) -> Result<Vec<Told>, String> {
    let ask = |questions: Vec<String>| async move {
        let opts = ExecOpts {
            command: [path.to_string()]
                .into_iter()
                .chain(questions.iter().cloned())
                .collect(),
            account: Account::root(),
            env: Default::default(),
            timeout: Some(PATIENCE),
        };
        let output = backend.output(name, &opts).await;
        let output = output.map_err(|error| format!("the program did not run: {error}"))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let answers: Vec<Seen> = text.lines().map(checks::read).collect();
        match answers.len() == questions.len() && output.code == 0 {
            true => Ok(answers),
            false => Err(format!("the program did not run (exit code {})", output.code)),
        }
    };
    // The last is no question to be answered: it clears away what probes that were killed have left.
    let first = ask(["resolvers", "gateway", "leftovers"].map(str::to_owned).to_vec()).await?;
    let inside = Inside::of(&first);
    // While it listens, whoever reaches it reaches this machine.
    let listener = inside.gateway.and_then(|gateway| TcpListener::bind((gateway, 0)).ok());
    let listening = listener.as_ref().and_then(|listener| listener.local_addr().ok());
    let checks = checks::of(&found.policy, outside, &inside, listening);
    let questions: Vec<&String> = checks.iter().flat_map(|check| &check.questions).collect();
    let answers = ask(questions.into_iter().cloned().collect()).await?;
    let mut answers = answers.into_iter();
    let mut told = Vec::new();
    for check in checks {
        let of_it: Vec<Seen> = answers.by_ref().take(check.questions.len()).collect();
        let Check { name, judge, .. } = check;
        let (outcome, detail) = judge(&of_it);
        told.push((name, outcome, detail));
    }
    drop(listener);
    Ok(told)
}
