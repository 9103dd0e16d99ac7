//! The methods of each dialect: what they take, and what they do.

mod auth;
mod container;
mod core;
mod datasets;
mod files;
mod snapshots;
mod system;
mod virt;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde_json::Value;

use super::Dialect;
use super::check::{Checker, Field};
use super::failure::Failure;
use super::server::Server;
use super::session::Session;

/// One call, its parameters in order and checked.
pub(super) struct Call {
    pub(super) server: Arc<Server>,
    pub(super) session: Arc<Session>,
    pub(super) params: Vec<Value>,
}

impl Call {
    fn text(&self, index: usize) -> &str {
        self.params[index].as_str().unwrap_or_default()
    }
}

type Outcome = Result<Value, Failure>;
type Lock = fn(&[Value]) -> Result<String, Failure>;
type Run = fn(Call) -> BoxFuture<'static, Outcome>;

/// A method of the API.
#[derive(Debug, Clone, Copy)]
pub(super) struct Method {
    pub(super) name: &'static str,
    pub(super) params: &'static [Field],
    pub(super) checker: Checker,
    pub(super) job: Option<JobKind>,
    /// Whether it changes anything but the session.
    pub(super) changes: bool,
    /// Whether it may be called before a login.
    pub(super) open: bool,
    pub(super) run: Run,
}

/// How a method is a job.
#[derive(Debug, Clone, Copy)]
pub(super) struct JobKind {
    /// Names what no two jobs do at once, from parameters that nobody has checked.
    pub(super) lock: Option<Lock>,
}

impl Method {
    /// A method that only reads.
    const fn read(name: &'static str, params: &'static [Field], run: Run) -> Self {
        Self {
            name,
            params,
            checker: Checker::Model,
            job: None,
            changes: false,
            open: false,
            run,
        }
    }

    /// A method that changes something.
    const fn write(name: &'static str, params: &'static [Field], run: Run) -> Self {
        Self {
            changes: true,
            ..Self::read(name, params, run)
        }
    }

    const fn job(mut self, lock: Lock) -> Self {
        self.job = Some(JobKind { lock: Some(lock) });
        self
    }

    const fn checked_by(mut self, checker: Checker) -> Self {
        self.checker = checker;
        self
    }

    const fn open(mut self) -> Self {
        self.open = true;
        self
    }
}

/// All methods of a dialect.
pub(super) fn of(dialect: Dialect) -> BTreeMap<&'static str, Method> {
    let mut all = Vec::new();
    all.extend(auth::methods(dialect));
    all.extend(core::methods(dialect));
    all.extend(system::methods(dialect));
    all.extend(snapshots::methods(dialect));
    all.extend(datasets::methods(dialect));
    all.extend(files::methods(dialect));
    match dialect {
        Dialect::V26 => all.extend(container::methods()),
        _ => all.extend(virt::methods(dialect)),
    }
    all.into_iter().map(|method| (method.name, method)).collect()
}

/// Makes a [`Run`] of an asynchronous function.
macro_rules! run {
    ($function:path) => {
        |call| Box::pin($function(call))
    };
}
use run;
